from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from npuops.artifacts.evidence import Verdict
from npuops.artifacts.folder import open_artifact
from npuops.artifacts.store import DirectoryStore
from npuops.build.compile import toolchain_identity
from npuops.build.fallback import ALLOW
from npuops.build.localise import DIVERGED_DB
from npuops.build.options import BuildOptions
from npuops.build.pipeline import BuildRequest, build
from npuops.errors import CompileError, DataError, OptionError, ToolchainTimeoutError, UsageError
from npuops.evaluate.samples import Samples, make_samples
from npuops.events import Event, StepFinished, StepStarted, Warned
from npuops.models.preprocessing import ImagePreprocessing
from npuops.targets.protocol import Precision
from npuops.testing import EventLog
from onnx_models import mlp


def normal(count: int, *, seed: int, inputs: int = 16) -> Samples:
    rng = np.random.default_rng(seed)
    rows = [{"x": rng.normal(size=(1, inputs)).astype(np.float32)} for _ in range(count)]
    return make_samples(rows, source=f"normal, seed {seed}")


@pytest.fixture
def request_toy(tmp_path: Path) -> BuildRequest:
    return BuildRequest(model=mlp(tmp_path / "m.onnx"), target="toy", evaluation=normal(32, seed=1))


@pytest.fixture
def request_a8w8(tmp_path: Path) -> BuildRequest:
    return BuildRequest(
        model=mlp(tmp_path / "m.onnx"),
        target="ort-cpu",
        calibration=normal(64, seed=2),
        evaluation=normal(64, seed=1),
        options=BuildOptions(precision=Precision.A8W8),
    )


def test_a_build_leaves_one_verified_artifact_with_its_evidence(request_toy: BuildRequest, tmp_path: Path) -> None:
    result = build(request_toy, tmp_path / "art")
    manifest = open_artifact(tmp_path / "art").manifest
    assert manifest == result.artifact.manifest
    assert manifest.gate is not None
    assert manifest.gate.verdict is Verdict.PASS
    assert manifest.parity is not None
    assert {comparison.reference for comparison in manifest.parity.comparisons} == {"fp32"}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_quantized_build_is_compared_with_both_references(request_a8w8: BuildRequest, tmp_path: Path) -> None:
    log = EventLog()
    manifest = build(request_a8w8, tmp_path / "art", observe=log).artifact.manifest
    assert manifest.gate is not None
    assert manifest.gate.verdict is Verdict.PASS, manifest.gate
    assert manifest.parity is not None
    assert {comparison.reference for comparison in manifest.parity.comparisons} == {"fp32", "quantized"}
    assert manifest.quantization is not None
    assert (manifest.quantization.calibration_samples, manifest.quantization.activations) == (64, "uint8")
    assert (tmp_path / "art" / "quantized.onnx").is_file()
    assert {"check", "quantize", "compile", "parity"} <= {event.step for event in log.of(StepFinished)}


def test_the_same_build_comes_from_the_cache_and_says_so(request_a8w8: BuildRequest, tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "cache")
    first = build(request_a8w8, tmp_path / "one", store=store)
    log = EventLog()
    second = build(request_a8w8, tmp_path / "two", store=store, observe=log)
    assert (first.cached, second.cached) == (False, True)
    assert first.artifact.manifest == second.artifact.manifest
    assert any("cache" in event.detail for event in log.of(StepFinished))
    assert open_artifact(tmp_path / "two").manifest.digest == first.artifact.manifest.digest


@pytest.mark.slow
@pytest.mark.parametrize("change", ["calibration", "options", "model", "evaluation"])
def test_whatever_changes_the_result_misses_the_cache(request_a8w8: BuildRequest, tmp_path: Path, change: str) -> None:
    store = DirectoryStore(tmp_path / "cache")
    build(request_a8w8, tmp_path / "one", store=store)
    changed = {
        "calibration": {"calibration": normal(64, seed=3)},
        "evaluation": {"evaluation": normal(64, seed=4)},
        "options": {"options": replace(request_a8w8.options, method="percentile")},
        "model": {"model": mlp(tmp_path / "other.onnx", seed=5)},
    }[change]
    assert not build(replace(request_a8w8, **changed), tmp_path / "two", store=store).cached


def test_the_libraries_and_the_file_of_the_target_are_in_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = tmp_path / "their_npu.py"
    theirs.write_text("from npuops.targets.toy import ToyTarget\nclass TheirTarget(ToyTarget):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    target = importlib.import_module("their_npu").TheirTarget()
    before = toolchain_identity(target)
    assert before.keys() >= {"numpy", "onnx", "onnxruntime"}
    theirs.write_text(theirs.read_text() + "# another compiler\n")
    assert toolchain_identity(target) != before


def test_a_compilation_from_the_cache_may_be_pruned_while_the_build_goes_on(
    request_a8w8: BuildRequest, tmp_path: Path
) -> None:
    store = DirectoryStore(tmp_path / "cache")
    build(request_a8w8, tmp_path / "one", store=store)

    def prune(event: Event) -> None:
        if isinstance(event, StepStarted) and event.step == "parity":
            store.prune(0)

    log = EventLog()
    other = replace(request_a8w8, evaluation=normal(64, seed=4))
    build(other, tmp_path / "two", store=store, observe=lambda event: (log(event), prune(event))[0])
    assert any(event.step == "compile" and "cache" in event.detail for event in log.of(StepFinished))
    open_artifact(tmp_path / "two")


def test_calibration_on_blank_inputs_is_caught_and_located(request_a8w8: BuildRequest, tmp_path: Path) -> None:
    blank = make_samples([{"x": np.zeros((1, 16), np.float32)}] * 16, source="blank")
    manifest = build(replace(request_a8w8, calibration=blank), tmp_path / "art").artifact.manifest
    assert manifest.gate is not None
    assert manifest.gate.verdict is Verdict.FAIL
    assert manifest.parity is not None
    assert any("quantization is to blame" in reason for reason in manifest.parity.reasons)
    assert manifest.parity.first_divergence


def test_the_first_node_that_diverges_is_looked_for_on_the_samples_that_came_out_worst(
    request_a8w8: BuildRequest, tmp_path: Path
) -> None:
    small = [{"x": row["x"] * np.float32(0.01)} for row in normal(64, seed=2).inputs]
    evaluation = make_samples([*small[:4], *normal(28, seed=1).inputs], source="mostly larger than in calibration")
    calibration = make_samples(small, source="small")
    changed = replace(request_a8w8, calibration=calibration, evaluation=evaluation)
    parity = build(changed, tmp_path / "art").artifact.manifest.parity
    assert parity is not None
    levels = [tensor.sqnr_db for tensor in parity.first_divergence if tensor.sqnr_db is not None]
    assert min(levels) < DIVERGED_DB, parity


@pytest.mark.slow
def test_a_model_that_gives_nan_never_passes(tmp_path: Path) -> None:
    model = mlp(tmp_path / "m.onnx")
    rows = [{"x": np.full((1, 16), value, np.float32)} for value in (1.0, np.nan)]
    request = BuildRequest(
        model=model,
        target="ort-cpu",
        evaluation=make_samples(rows, source="with NaN"),
        options=BuildOptions(precision=Precision.FP32),
    )
    manifest = build(request, tmp_path / "art").artifact.manifest
    assert manifest.gate is not None
    assert manifest.gate.verdict is Verdict.FAIL


@pytest.mark.slow
def test_labels_do_not_turn_the_evidence_of_nan_into_an_error(tmp_path: Path) -> None:
    rows = [{"x": np.full((1, 16), value, np.float32)} for value in (1.0, np.nan)]
    request = BuildRequest(
        model=mlp(tmp_path / "m.onnx"),
        target="ort-cpu",
        evaluation=make_samples(rows, source="with NaN", labels=np.array([0, 1])),
        options=BuildOptions(precision=Precision.FP32),
    )
    manifest = build(request, tmp_path / "art").artifact.manifest
    assert manifest.gate is not None
    assert (manifest.gate.verdict, manifest.accuracy) == (Verdict.FAIL, None)


def test_a_metric_that_was_named_is_measured_without_labels_too(request_a8w8: BuildRequest, tmp_path: Path) -> None:
    manifest = build(replace(request_a8w8, options=replace(request_a8w8.options, metric="cosine")), tmp_path / "art")
    assert manifest.artifact.manifest.accuracy is not None
    assert manifest.artifact.manifest.accuracy.metric == "cosine"


def test_a_quantized_precision_without_data_is_an_error_with_advice(request_a8w8: BuildRequest, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        build(replace(request_a8w8, calibration=None), tmp_path / "art")
    assert "--calibration" in caught.value.advice
    assert not (tmp_path / "art").exists()


def test_without_an_evaluation_set_the_build_says_what_it_judges_on(request_a8w8: BuildRequest, tmp_path: Path) -> None:
    log = EventLog()
    build(replace(request_a8w8, evaluation=None), tmp_path / "art", observe=log)
    assert any("calibration set" in event.message for event in log.of(Warned))


def test_a_precision_that_the_target_lacks_is_refused(request_toy: BuildRequest, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="toy has no precision a8w8"):
        build(replace(request_toy, options=BuildOptions(precision=Precision.A8W8)), tmp_path / "art")


def test_a_folder_that_is_no_artifact_is_never_replaced(request_toy: BuildRequest, tmp_path: Path) -> None:
    (tmp_path / "art").mkdir()
    (tmp_path / "art" / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="is no artifact"):
        build(request_toy, tmp_path / "art")
    assert (tmp_path / "art" / "thesis.txt").read_text() == "years of work"


@pytest.mark.slow
def test_an_older_artifact_is_replaced_only_when_the_new_one_is_whole(
    request_toy: BuildRequest, tmp_path: Path
) -> None:
    old = build(request_toy, tmp_path / "art").artifact.manifest.digest
    bad = replace(request_toy, options=BuildOptions(vendor={"no": "such"}))
    with pytest.raises(OptionError):
        build(bad, tmp_path / "art")
    assert open_artifact(tmp_path / "art").manifest.digest == old
    new = build(replace(request_toy, evaluation=normal(32, seed=9)), tmp_path / "art").artifact.manifest.digest
    assert open_artifact(tmp_path / "art").manifest.digest == new != old


def test_a_compiler_that_refuses_is_quoted(tmp_path: Path) -> None:
    model = mlp(tmp_path / "m.onnx")
    proto = onnx.load(model)
    proto.graph.node[1].op_type = "Sigmoid"
    onnx.save(proto, model)
    request = BuildRequest(
        model=model, target="toy", evaluation=normal(4, seed=1), options=BuildOptions(fallback=ALLOW)
    )
    with pytest.raises(CompileError, match=r"relu \(Sigmoid\): operator is in the supported list"):
        build(request, tmp_path / "art")


def test_a_time_limit_ends_the_compiler(request_toy: BuildRequest, tmp_path: Path) -> None:
    with pytest.raises(ToolchainTimeoutError, match="toy compile"):
        build(replace(request_toy, options=BuildOptions(time_limit_s=0.01)), tmp_path / "art")


BUILD_SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_pipeline import normal
from npuops.artifacts.store import DirectoryStore
from npuops.build.options import BuildOptions
from npuops.build.pipeline import BuildRequest, build
from npuops.targets.protocol import Precision
request = BuildRequest(model=Path({model!r}), target="ort-cpu", calibration=normal(64, seed=2),
                       evaluation=normal(64, seed=1), options=BuildOptions(precision=Precision.A8W8))
print("begun", flush=True)
print("cached" if build(request, Path({out!r}), store=DirectoryStore(Path({cache!r}))).cached else "fresh", flush=True)
"""


@pytest.fixture
def building() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def start(building: list[subprocess.Popen[str]], tmp_path: Path, out: str) -> subprocess.Popen[str]:
    script = BUILD_SCRIPT.format(
        tests=str(Path(__file__).parent),
        model=str(tmp_path / "m.onnx"),
        out=str(tmp_path / out),
        cache=str(tmp_path / "cache"),
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    building.append(process)
    return process


@pytest.mark.slow
def test_two_builds_of_the_same_at_once_compile_once_and_both_end_well(
    building: list[subprocess.Popen[str]], tmp_path: Path
) -> None:
    mlp(tmp_path / "m.onnx")
    both = [start(building, tmp_path, out) for out in ("one", "two")]
    words = sorted(process.communicate(timeout=120)[0].split()[-1] for process in both)
    assert words == ["cached", "fresh"]
    assert open_artifact(tmp_path / "one").manifest == open_artifact(tmp_path / "two").manifest


@pytest.mark.slow
@pytest.mark.parametrize("delay_s", [0.3, 0.8, 1.5])
def test_a_build_that_is_killed_leaves_nothing_half_written(
    building: list[subprocess.Popen[str]], tmp_path: Path, delay_s: float
) -> None:
    mlp(tmp_path / "m.onnx")
    first = start(building, tmp_path, "art")
    assert first.stdout is not None
    assert first.stdout.readline() == "begun\n"
    time.sleep(delay_s)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    if (tmp_path / "art").exists():
        open_artifact(tmp_path / "art")
    second = start(building, tmp_path, "art")
    assert second.communicate(timeout=120)[0].split()[-1] in {"fresh", "cached"}
    assert open_artifact(tmp_path / "art").manifest.gate is not None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["art", "cache", "m.onnx"]


def test_a_cache_without_room_costs_no_build(request_a8w8: BuildRequest, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "entries").write_text("a file where the store wants a folder")
    log = EventLog()
    build(request_a8w8, tmp_path / "art", store=DirectoryStore(tmp_path / "cache"), observe=log)
    assert open_artifact(tmp_path / "art").manifest.gate is not None
    assert any("not kept for the next time" in event.message for event in log.of(Warned))


def test_samples_that_read_pixels_in_different_ways_are_refused(request_a8w8: BuildRequest, tmp_path: Path) -> None:
    assert request_a8w8.evaluation is not None
    evaluation = replace(request_a8w8.evaluation, image=ImagePreprocessing(channels="bgr"))
    with pytest.raises(UsageError, match="different ways"):
        build(replace(request_a8w8, evaluation=evaluation, image=ImagePreprocessing()), tmp_path / "art")
