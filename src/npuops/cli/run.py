"""`npuops run`: an artifact on one input."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from npuops.artifacts.folder import opened
from npuops.build.run import RunAnswer, run_answer, run_artifact
from npuops.cli.artifact_argument import ArtifactArgument
from npuops.cli.image_flag import ImageFlag
from npuops.cli.input_file import artifact_input
from npuops.cli.show import JsonFlag, console, print_json, progress
from npuops.cli.time_limit_flag import TimeLimitFlag
from npuops.cli.trust_flag import TrustFlag, trust_policy
from npuops.report.output_file import refuse_output, write_output
from npuops.targets.protocol import ModelledRun
from npuops.units import format_us


def command(
    artifact: ArtifactArgument,
    source: Annotated[str, typer.Option("--input", "-i", help="Input: .npz, .npy, an image, or - for .npz on stdin.")],
    engine: Annotated[
        str, typer.Option("--engine", help="`runner` (device or emulator), or a reference such as litert or tosa.")
    ] = "runner",
    top_k: Annotated[int, typer.Option("--top-k", "-k", min=1, help="How many labels to show.")] = 5,
    repeat: Annotated[
        int, typer.Option("--repeat", min=1, max=1_000_000, help="Runs of the same input; the first warms up.")
    ] = 1,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the outputs to this .npz file.")] = None,
    image: ImageFlag = None,
    time_limit: TimeLimitFlag = 600,
    key: TrustFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Verify, check the input, run in a child process, and show the outputs."""
    if output is not None:
        refuse_output(output, artifact)
    with opened(artifact, require=trust_policy(key)) as found, progress(quiet=as_json) as observe:
        inputs = artifact_input(source, found.manifest, image, observe=observe)
        done = run_artifact(found, inputs, engine=engine, repeat=repeat, timeout_s=time_limit, observe=observe)
        answer = run_answer(found.manifest, done, top_k=top_k, file=str(output) if output else None)
    if output is not None:
        write_output(output, _npz(done.outputs))
    if as_json:
        print_json(answer)
    else:
        _show(answer, done.outputs)


def _npz(outputs: Mapping[str, NDArray[Any]]) -> bytes:
    buffer = io.BytesIO()
    # Not numpy.savez: an output named `file` would collide with its parameter.
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in outputs.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)  # type: ignore[no-untyped-call]
    return buffer.getvalue()


def _show(answer: RunAnswer, outputs: Mapping[str, NDArray[Any]]) -> None:
    screen = console()
    for name, array in outputs.items():
        shape = "×".join(map(str, array.shape))
        where = answer.outputs[name].file
        written = f" → {where}" if where else ""
        screen.print(f"{name}: {array.dtype.name}[{shape}]{_range(array)}{written}")
    for place, score in enumerate(answer.top_k, start=1):
        screen.print(f"  {place}. {score.label}  {score.score:.4f}")
    latency = answer.latency
    if latency is None:
        screen.print(f"on {answer.device}: a reference implementation, its time means nothing")
    else:
        time = f"{format_us(latency.us)} ({latency.basis}; {latency.source})"
        screen.print(f"on {answer.device}: {time}")
    if answer.modelled is not None:
        screen.print(_modelled_words(answer.modelled))


def _modelled_words(run: ModelledRun) -> str:
    wait = f", {format_us(run.wait_us)} of it waiting for others" if run.wait_us else ""
    return (
        f"the chip would take {format_us(run.latency_us)}{wait} and {run.energy_mj:.3g} mJ above idle ({run.basis}); "
        f"it is at {run.temperature_c:.1f} °C, {run.clock_mhz:.0f} MHz allowed"
    )


def _range(array: NDArray[Any]) -> str:
    if not array.size or array.dtype.kind not in "biuf":
        return ""
    return f", {float(array.min()):.6g} to {float(array.max()):.6g}"
