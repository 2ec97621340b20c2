"""Our quantizer beside onnxruntime.quantization, NNCF and Olive: time, memory, accuracy, and where the result runs.

    ./run bench quantizers [mobilenet] [minilm]

Every quantizer works in a process of its own on the same model and calibration samples; the quick ones take turns
three times, and the median counts. Every result is judged on the same held-out samples by the same three engines:
ONNX Runtime on the CPU, Qualcomm's HTP emulator, and OpenVINO. NNCF and Olive live in environments of their own under
$NPUOPS_PEERS (default: `peers` in the system's temporary directory), which are made when they are absent.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from minilm import minilm
from quantizer_judge import HEADINGS, Yardstick, judged

from npuops.cli.demo_models import mobilenet
from npuops.errors import NpuopsError
from npuops.evaluate.samples import Samples

HERE = Path(__file__).parent
PEERS = Path(os.environ.get("NPUOPS_PEERS", Path(tempfile.gettempdir()) / "peers"))
PINS = {
    "nncf": ("nncf==3.4.0", "openvino==2026.4.1", "onnx==1.23.2", "onnxruntime==1.31.1"),
    "olive": ("olive-ai==0.13.0", "onnx==1.23.2", "onnxruntime==1.31.1", "requests"),
}
REPEATS = 3
QUICK_S = 60.0
"""What takes longer is measured once."""
LIMIT_S = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantizer:
    """One script with one choice."""

    title: str
    script: str
    mode: str
    peer: str | None = None
    """The environment that it needs."""


@dataclass(slots=True)
class Measured:
    """What one quantizer did."""

    seconds: list[float] = field(default_factory=list)
    peak_mb: float = 0.0
    failed: str = ""


CNN: tuple[Quantizer, ...] = (
    Quantizer(title="npuops A8W8", script="peer_ours.py", mode="a8w8"),
    Quantizer(title="npuops A16W8", script="peer_ours.py", mode="a16w8"),
    Quantizer(title="ORT quantize_static, default", script="peer_ort.py", mode="per-tensor"),
    Quantizer(title="ORT quantize_static, per channel", script="peer_ort.py", mode="per-channel"),
    Quantizer(title="NNCF 3.4", script="peer_nncf.py", mode="default", peer="nncf"),
    Quantizer(title="Olive 0.13 A8", script="peer_olive.py", mode="uint8", peer="olive"),
    Quantizer(title="Olive 0.13 A16", script="peer_olive.py", mode="uint16", peer="olive"),
)
TRANSFORMER = (
    CNN[0],
    Quantizer(title="npuops mixed, drop ≤ 1 %", script="peer_ours.py", mode="mixed"),
    *CNN[1:4],
    Quantizer(title="NNCF 3.4, transformer", script="peer_nncf.py", mode="transformer", peer="nncf"),
    *CNN[5:],
)


def main() -> None:
    wanted = sys.argv[1:] or ["mobilenet", "minilm"]
    missing = {peer for peer in PINS if not made(peer)}
    with tempfile.TemporaryDirectory(prefix="npuops-quantizers-") as name:
        if "mobilenet" in wanted:
            try:
                demo = mobilenet()
            except NpuopsError as error:
                print(f"MobileNetV2 skipped: {error.message}")
            else:
                table("MobileNetV2", demo.path, demo.calibration, demo.evaluation, CNN, missing, Path(name))
        if "minilm" in wanted:
            model, calibration, evaluation = minilm()
            table("MiniLM-L6", model, calibration, evaluation, TRANSFORMER, missing, Path(name))


def made(peer: str) -> bool:
    """Whether the peer's environment is there, made now if need be; a failure is said aloud."""
    if installed(peer):
        return True
    print(f"making the environment of {peer} in {PEERS / peer} …", flush=True)
    if not python_of(peer).exists():
        venv.create(PEERS / peer, with_pip=True, symlinks=True)
    command = [str(python_of(peer)), "-m", "pip", "install", "--quiet", *PINS[peer]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"SKIPPED {peer}: its install failed: {done.stderr.strip()[-300:]}", flush=True)
    return done.returncode == 0


def installed(peer: str) -> bool:
    if not python_of(peer).exists():
        return False
    code = "import sys, importlib.metadata as m\nfor pin in sys.argv[1:]:\n n, _, v = pin.partition('==')\n"
    code += " assert m.version(n).startswith(v), pin"
    done = subprocess.run([str(python_of(peer)), "-c", code, *PINS[peer]], capture_output=True, check=False)
    return done.returncode == 0


def python_of(peer: str | None) -> Path:
    return Path(sys.executable) if peer is None else PEERS / peer / "bin" / "python"


def table(
    title: str,
    model: Path,
    calibration: Samples,
    evaluation: Samples,
    plan: tuple[Quantizer, ...],
    missing: set[str],
    folder: Path,
) -> None:
    folder = folder / model.stem
    folder.mkdir()
    # A mix is searched on the first two thirds of the held-out samples; then everybody is judged on the last third.
    searched = any(one.mode == "mixed" for one in plan)
    seen = evaluation.first(len(evaluation) * 2 // 3 if searched else 0)
    save(calibration, folder / "calibration.npz")
    if searched:
        save(seen, folder / "search.npz")
    unseen = evaluation.inputs[len(seen) :]
    present = tuple(one for one in plan if one.peer not in missing)
    results = {one: Measured() for one in present}
    for turn in range(REPEATS):
        for one, found in results.items():
            if not found.failed and (turn == 0 or found.seconds[0] < QUICK_S):
                quantize(one, model, folder, found)
    print(f"\n### {title}: {len(calibration)} calibration samples, judged on {len(unseen)} that nobody saw\n")
    print(f"| quantizer | s | peak MB | {' | '.join(HEADINGS)} |\n|{'---|' * (3 + len(HEADINGS))}")
    yardstick = Yardstick(model, unseen)
    for one, found in results.items():
        cells = [found.failed] if found.failed else list(row(one, found, yardstick, folder))
        print(f"| {one.title} | {' | '.join(cells)} |", flush=True)


def save(samples: Samples, file: Path) -> None:
    np.savez(file, **{name: np.stack([row[name] for row in samples.inputs]) for name in samples.inputs[0]})


def output_of(one: Quantizer, folder: Path) -> Path:
    return folder / f"{Path(one.script).stem}-{one.mode}.onnx"


def quantize(one: Quantizer, model: Path, folder: Path, found: Measured) -> None:
    """Start the script, wait, and note seconds, peak memory or why it failed."""
    command = [str(python_of(one.peer)), str(HERE / one.script), str(model), str(folder / "calibration.npz")]
    command += [str(output_of(one, folder)), one.mode, *([str(folder / "search.npz")] if one.mode == "mixed" else [])]
    log = folder / "log"
    started = time.perf_counter()
    with log.open("w") as words:
        child = subprocess.Popen(["timeout", str(LIMIT_S), *command], stdout=words, stderr=words)
        # The usage of `timeout` includes the one child that it waited for.
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        last = (log.read_text(errors="replace").strip().splitlines() or ["no words"])[-1]
        found.failed = f"failed ({child.returncode}): {last[:120]}"
        return
    found.seconds.append(time.perf_counter() - started)
    found.peak_mb = max(found.peak_mb, usage.ru_maxrss / 1024)
    if one.mode == "mixed":
        print(log.read_text().strip().splitlines()[-1], flush=True)


def row(one: Quantizer, found: Measured, yardstick: Yardstick, folder: Path) -> Iterator[str]:
    yield f"{statistics.median(found.seconds):.1f}"
    yield f"{found.peak_mb:.0f}"
    yield from judged(output_of(one, folder), yardstick)


if __name__ == "__main__":
    main()
