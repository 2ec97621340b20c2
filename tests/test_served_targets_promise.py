"""Every target that runs on this machine is served, and answers over HTTP what `npuops run` answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from npuops import app
from npuops.artifacts.manifest import Artifact
from npuops.build.engine import run_engine
from npuops.build.options import BuildOptions
from npuops.build.pipeline import BuildRequest
from npuops.build.run import run_artifact
from npuops.cli.demo_models import digits
from npuops.evaluate.samples import Samples, make_samples
from npuops.models.batch_axis import free_batch
from npuops.models.onnx_file import read_onnx, write_onnx
from npuops.models.shapes import infer_shapes
from npuops.runtime.facts import BatchRan
from npuops.targets.protocol import Precision
from npuops.targets.registry import open_target
from npuops.testing import EventLog
from npuops.vnpu.daemon import Order
from npuops.vnpu.device_spec import spec_of
from npuops.vnpu.device_switch import up
from npuops.vnpu.pacing import Pacing
from running_server import Answer, Running, clients, repository, serving, wait_for
from toy_artifact import sample_input, toy_artifact
from virtual_devices import home_at

pytestmark = pytest.mark.slow
"""Whole servers and clients as processes: minutes together; CI runs them."""

DIGITS = digits()
PICTURES: list[NDArray[Any]] = [row["image"] for row in DIGITS.evaluation.inputs[:24]]
ROWS = np.concatenate(PICTURES)
SAMPLES = 6
Build = Callable[..., Artifact]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Builds of digits, as `npuops build` makes them; each once for the whole file."""
    folder = tmp_path_factory.mktemp("built")
    made: dict[str, Artifact] = {}
    open_axis = folder / "digits-any-batch.onnx"
    write_onnx(free_batch(infer_shapes(read_onnx(DIGITS.path))), open_axis)

    def make(target: str, precision: Precision, rows: int | None = 1) -> Artifact:
        """`rows`: of a fixed batch; None leaves it open."""
        probe = open_target(target).probe()
        if not probe.available:
            pytest.skip(f"{target} is not installed: {probe.why_not}")
        key = f"{target}-{precision}-{rows}".replace(":", "-")
        if key not in made:
            options = BuildOptions(precision=precision, dynamic_batch=rows is None, use_cache=False)
            request = DIGITS.request(target, options)
            if rows is not None and rows > 1:
                request = BuildRequest(
                    model=open_axis,
                    target=target,
                    calibration=stacked(DIGITS.calibration, rows),
                    options=options,
                    shapes={"image": (rows, 1, 8, 8)},
                )
            made[key] = app.run_request(request, folder / key, observe=EventLog()).artifact
        return made[key]

    return make


@pytest.fixture(autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with home_at(tmp_path_factory.mktemp("devices") / "home"):
        yield


def stacked(samples: Samples, rows: int) -> Samples:
    """The same pictures, so many in each sample."""
    pictures = [sample["image"] for sample in samples.inputs]
    whole = range(0, len(pictures) - rows + 1, rows)
    inputs = [{"image": np.concatenate(pictures[first : first + rows])} for first in whole]
    return make_samples(inputs, source=samples.source)


def ran(artifact: Artifact, *inputs: NDArray[Any]) -> list[NDArray[Any]]:
    """What `npuops run` answers to each."""
    samples = make_samples([{"image": each} for each in inputs], source="test")
    return list(run_engine(artifact, samples).outputs["logits"])


def asked(server: Running, model: str, rows: NDArray[Any]) -> Answer:
    answer = server.ask(model, {"image": rows})
    assert answer.status == 200, answer.said
    return answer


def same_bits(answer: Answer, wanted: NDArray[Any]) -> bool:
    found = answer.outputs["logits"]
    return found.shape == wanted.shape and found.dtype == wanted.dtype and found.tobytes() == wanted.tobytes()


SLOW = pytest.mark.slow
ONE_ROW = [
    pytest.param("ort-cpu", Precision.FP32, "never", id="ort-cpu-fp32"),
    pytest.param("ort-cpu", Precision.A8W8, "always", id="ort-cpu-a8w8-inline"),
    pytest.param("ort-cpu", Precision.A8W8, "never", id="ort-cpu-a8w8", marks=SLOW),
    pytest.param("openvino", Precision.A8W8, "never", id="openvino-a8w8", marks=SLOW),
    pytest.param("qnn-htp:sm8650", Precision.A8W8, "never", id="qnn-htp-a8w8", marks=SLOW),
    pytest.param("vnpu:rk3588", Precision.A8W8, "never", id="vnpu-rk3588"),
    pytest.param("vnpu:hexagon-v75", Precision.A8W8, "never", id="vnpu-hexagon-v75", marks=SLOW),
    pytest.param("vnpu:coral-edgetpu", Precision.A8W8, "never", id="vnpu-coral-edgetpu", marks=SLOW),
]


@pytest.mark.parametrize(("target", "precision", "inline"), ONE_ROW)
def test_a_served_artifact_answers_what_run_answers_bit_for_bit(
    build: Build, tmp_path: Path, target: str, precision: Precision, inline: str
) -> None:
    artifact = build(target, precision)
    with serving(repository(tmp_path, "digits", {"a": artifact}, f'inline = "{inline}"')) as server:
        assert server.settled("digits") == ""
        for picture, wanted in zip(PICTURES[:SAMPLES], ran(artifact, *PICTURES[:SAMPLES]), strict=True):
            answer = asked(server, "digits", picture)
            assert same_bits(answer, wanted)
            assert (answer.device, answer.fell_back) == (target, False)
        assert {event.inline for event in server.events.of(BatchRan)} == {inline == "always"}
        (start,) = server.starts("digits")
        assert {"spawn", "verify", "open", "warm_up", "measure"} <= set(start.phases)
        assert start.seconds == pytest.approx(sum(start.phases.values()), abs=0.01)


@pytest.mark.parametrize("target", ["ort-cpu", pytest.param("openvino", marks=SLOW)])
def test_any_batch_is_answered_whole_and_clients_that_share_a_run_get_their_own_rows(
    build: Build, tmp_path: Path, target: str
) -> None:
    artifact = build(target, Precision.A8W8, None)
    with serving(repository(tmp_path, "digits", {"a": artifact}, 'inline = "never"')) as server:
        assert server.settled("digits") == ""
        for rows in (1, 2, 5, 16):
            assert same_bits(asked(server, "digits", ROWS[:rows]), ran(artifact, ROWS[:rows])[0])
        alone = ran(artifact, *PICTURES[:SAMPLES])
        mixed_up = 0

        def ask() -> Answer:
            nonlocal mixed_up
            number = len(server.events.of(BatchRan)) % SAMPLES
            answer = asked(server, "digits", PICTURES[number])
            mixed_up += not np.allclose(answer.outputs["logits"], alone[number], rtol=1e-3, atol=1e-3)
            return answer

        with clients(server, 8, ask) as answers:
            wait_for(lambda: len(answers) >= 400, "8 clients get no answers")
        assert mixed_up == 0


@pytest.mark.parametrize("target", [pytest.param("ort-cpu", marks=SLOW), pytest.param("vnpu:rk3588", marks=SLOW)])
def test_buckets_take_what_fits_and_fill_the_rest_up(build: Build, tmp_path: Path, target: str) -> None:
    buckets = {rows: build(target, Precision.A8W8, rows) for rows in (1, 4, 8)}
    artifacts = {f"rows{rows}": artifact for rows, artifact in buckets.items()}
    with serving(repository(tmp_path, "digits", artifacts, 'inline = "never"')) as server:
        assert server.settled("digits") == ""
        for rows in (1, 2, 4, 5, 8):
            bucket = min(size for size in buckets if size >= rows)
            filled = np.zeros((bucket, 1, 8, 8), np.float32)
            filled[:rows] = ROWS[:rows]
            (wanted,) = ran(buckets[bucket], filled)
            assert same_bits(asked(server, "digits", ROWS[:rows]), wanted[:rows])
        padded = [event.padded_rows for event in server.events.of(BatchRan)]
        assert padded == [0, 2, 0, 3, 0]
        nine = server.ask("digits", {"image": ROWS[:9]})
        assert nine.status == 400
        assert "8" in nine.said["error"], "it says how many rows there may be"


def test_a_device_that_is_up_and_works_in_real_time_answers_the_same(build: Build, tmp_path: Path) -> None:
    artifact = build("vnpu:rk3588", Precision.A8W8)
    for pacing in (Pacing.REALTIME, Pacing.FAST):
        name = f"npu-{pacing}"
        up(Order(name=name, spec=spec_of("vnpu:rk3588"), pacing=pacing))
        device = f'[[device]]\ntarget = "vnpu:rk3588"\nname = "{name}"'
        with serving(repository(tmp_path / name, "digits", {"a": artifact}, device)) as server:
            assert server.settled("digits") == ""
            for picture, wanted in zip(PICTURES[:SAMPLES], ran(artifact, *PICTURES[:SAMPLES]), strict=True):
                answer = asked(server, "digits", picture)
                assert same_bits(answer, wanted)
                assert answer.device == f"vnpu:rk3588/{name}"


def test_the_toy_target_is_served_like_any_other(tmp_path: Path) -> None:
    artifact = toy_artifact(tmp_path / "mlp")
    with serving(repository(tmp_path / "repository", "mlp", {"a": artifact})) as server:
        assert server.settled("mlp") == ""
        for number in range(SAMPLES):
            inputs = {"x": sample_input(number)}
            answer = server.ask("mlp", inputs)
            assert answer.status == 200
            assert answer.outputs["y"].tobytes() == run_artifact(artifact, inputs).outputs["y"].tobytes()


@pytest.mark.slow
def test_what_nothing_here_runs_is_said_with_its_reason_and_the_others_are_served(build: Build, tmp_path: Path) -> None:
    chip = "ethos-u:ethos-u55-128"
    repository(tmp_path, "camera", {"a": build(chip, Precision.A8W8)})
    repository(tmp_path, "digits", {"a": build("ort-cpu", Precision.A8W8)})
    with serving(tmp_path) as server:
        assert server.settled("camera") == f"nothing on this machine runs an artifact for {chip}"
        assert server.settled("digits") == ""
        refused = server.ask("camera", {"image": PICTURES[0]})
        assert refused.status == 503
        assert chip in refused.said["error"]
        assert asked(server, "digits", PICTURES[0]).device == "ort-cpu"
        assert server.http("GET", "/v2/health/ready")[0] == 503, "a model that cannot be served is no ready server"
