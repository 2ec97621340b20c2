"""`apply_fixes`: only what is proved equal is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from npuops.errors import NpuopsError, OptionError, RunError, UnsupportedModelError, UsageError
from npuops.evaluate.equality import ROUNDING, all_equal, compare
from npuops.evaluate.reference import run_reference
from npuops.evaluate.sample_sources import fitted_samples
from npuops.events import StepProgressed
from npuops.models.onnx_file import read_onnx, write_onnx
from npuops.models.onnx_layers import graph_inputs
from npuops.models.open import as_onnx, open_model
from npuops.rewrite.analyse import analyse
from npuops.rewrite.proof_samples import proof_samples
from npuops.rewrite.rewrites import FixVerdict, apply_fixes
from npuops.targets.protocol import Target
from npuops.targets.registry import open_target
from rewrite_cases import Builder, attention, gelu, torch_layernorm, wide_sum


@pytest.fixture(scope="module")
def htp() -> Target:
    return open_target("qnn-htp:sm8650")


def saved(proto: onnx.ModelProto, folder: Path, name: str = "model.onnx") -> Path:
    write_onnx(proto, folder / name)
    return folder / name


def verdicts(report) -> dict[str, FixVerdict]:
    return {fix.name: fix.verdict for fix in report.fixes}


def histogram(path: Path) -> dict[str, int]:
    return open_model(path).op_histogram


def test_what_the_target_needs_is_cured_and_proved(tmp_path: Path, htp: Target):
    source = saved(attention("where-scores"), tmp_path)
    seen = []
    report = apply_fixes(source, tmp_path / "out.onnx", target=htp, observe=seen.append)
    assert verdicts(report)["additive-mask"] is FixVerdict.APPLIED
    assert "Where" not in histogram(tmp_path / "out.onnx")
    assert report.constant_outputs == ()
    assert all(fix.proof and all_equal(fix.proof) for fix in report.fixes)
    assert seen
    assert all(isinstance(event, StepProgressed) for event in seen)
    patterns = {advice.pattern for advice in analyse(open_model(tmp_path / "out.onnx"), htp).advice}
    assert "float-where-mask" not in patterns


def test_a_mask_that_something_else_reads_is_refused_and_rolled_back(tmp_path: Path, htp: Target):
    source = saved(attention("where-scores", leak=True), tmp_path)
    report = apply_fixes(source, tmp_path / "out.onnx", target=htp, only=["additive-mask"])
    fix = report.fixes[0]
    assert (fix.name, fix.verdict) == ("additive-mask", FixVerdict.REFUSED)
    assert "masked" in fix.why
    assert not all_equal(fix.proof)
    assert histogram(tmp_path / "out.onnx") == histogram(source)


def test_places_that_are_proved_stay_when_another_place_is_refused(tmp_path: Path, htp: Target):
    b = Builder()
    scores = b.add("MatMul", "x", b.weights(8, 8))
    hide = b.add("Less", scores, b.constant(-0.3))
    one = b.add("Where", hide, b.constant(-1e9), scores, out="shown")
    b.add("Softmax", one, axis=-1, out="y")
    other = b.add("Where", hide, b.constant(-1e9), b.add("Neg", scores))
    b.add("Softmax", other, axis=-1, out="z")
    shapes = {"shown": [1, 8], "y": [1, 8], "z": [1, 8]}
    source = saved(b.model({"x": [1, 8]}, shapes), tmp_path)
    report = apply_fixes(source, tmp_path / "out.onnx", target=htp, only=["additive-mask"])
    fix = report.fixes[0]
    assert (fix.verdict, fix.sites) == (FixVerdict.PARTLY, 1)
    assert "1 of 2" in fix.why
    assert histogram(tmp_path / "out.onnx")["Where"] == 1


def test_a_proof_on_nan_is_no_proof(tmp_path: Path, htp: Target):
    source = saved(gelu("erf-torch"), tmp_path)
    inputs = graph_inputs(read_onnx(source))
    rows = [{"x": np.full((4, 16), 1e38, dtype=np.float32) * np.float32([1, -1] * 8)}]
    samples = fitted_samples(rows, inputs, source="overflow")
    assert not np.isfinite(run_reference(source, samples)["y"]).all()
    report = apply_fixes(source, tmp_path / "out.onnx", target=htp, only=["fuse-gelu"], samples=samples)
    assert report.fixes[0].verdict is FixVerdict.REFUSED


def test_only_names_what_to_do_whatever_the_target_needs(tmp_path: Path):
    source = saved(wide_sum(), tmp_path)
    report = apply_fixes(
        source, tmp_path / "out.onnx", target=open_target("ort-cpu"), only=["sum-to-adds", "fuse-gelu"]
    )
    assert verdicts(report) == {"sum-to-adds": FixVerdict.APPLIED, "fuse-gelu": FixVerdict.ABSENT}


def test_an_unknown_fix_names_the_nearest(tmp_path: Path, htp: Target):
    source = saved(wide_sum(), tmp_path)
    with pytest.raises(OptionError) as caught:
        apply_fixes(source, tmp_path / "out.onnx", target=htp, only=["fuse-gelo"])
    assert "fuse-gelu" in caught.value.advice
    assert not (tmp_path / "out.onnx").exists()


def test_the_source_is_never_overwritten(tmp_path: Path, htp: Target):
    source = saved(wide_sum(), tmp_path)
    (tmp_path / "link.onnx").symlink_to(source)
    content = source.read_bytes()
    for out in (source, tmp_path / "link.onnx", tmp_path / "." / "model.onnx"):
        with pytest.raises(UsageError):
            apply_fixes(source, out, target=htp)
    assert source.read_bytes() == content


def test_dynamic_shapes_are_fixed_in_the_result(tmp_path: Path, htp: Target):
    b = Builder()
    b.add("Pow", "x", b.constant(2.0), out="y")
    source = saved(b.model({"x": ["batch", 4]}, {"y": ["batch", 4]}), tmp_path)
    with pytest.raises(NpuopsError, match="x"):
        apply_fixes(source, tmp_path / "out.onnx", target=htp)
    apply_fixes(source, tmp_path / "out.onnx", target=htp, shapes={"x": (3, 4)})
    assert open_model(tmp_path / "out.onnx").inputs[0].shape == (3, 4)


def test_a_model_that_the_reference_cannot_run_is_an_error_not_a_refusal(tmp_path: Path, htp: Target):
    b = Builder()
    b.add("Foreign", b.add("Pow", "x", b.constant(2.0)), out="y", domain="org.example")
    proto = b.model({"x": [4]}, {"y": [4]}, foreign=["org.example"])
    with pytest.raises((RunError, UnsupportedModelError)):
        apply_fixes(saved(proto, tmp_path), tmp_path / "out.onnx", target=htp)
    assert not (tmp_path / "out.onnx").exists()


def test_a_model_that_needs_nothing_is_written_unchanged(tmp_path: Path, htp: Target):
    source = saved(torch_layernorm(), tmp_path)
    apply_fixes(source, tmp_path / "once.onnx", target=htp)
    again = apply_fixes(tmp_path / "once.onnx", tmp_path / "twice.onnx", target=htp)
    assert again.applied == ()
    assert histogram(tmp_path / "twice.onnx") == histogram(tmp_path / "once.onnx")


REAL = {
    "vision/ultraface_rfb_320_fp32.onnx": set(),
    "vision/yunet_n_640_fp32.onnx": set(),
    "audio/dtln_1_fp32.onnx": set(),
    "audio/dtln_2_fp32.onnx": {"drop-leftovers", "fuse-layernorm"},
    "audio/kwt1_transformer_fp32.tflite": {"fuse-layernorm", "fuse-gelu"},
    "graphs/light_bvlc_alexnet.onnx": {"fold-constants", "drop-leftovers"},
    "graphs/light_resnet50.onnx": {"fold-constants", "fold-batchnorm"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_real_models_keep_their_answers(name: str, shared_models: Path, tmp_path: Path, htp: Target):
    source = as_onnx(shared_models / name, tmp_path / "source.onnx")
    report = apply_fixes(source, tmp_path / "out.onnx", target=htp)
    assert REAL[name] <= set(report.applied)
    assert all(fix.verdict is FixVerdict.APPLIED for fix in report.fixes), report.fixes
    samples = proof_samples(read_onnx(source), seed=99)  # other inputs than those of the proof
    got, wanted = (run_reference(path, samples) for path in (tmp_path / "out.onnx", source))
    assert all_equal(compare(got, wanted, ROUNDING))


def test_the_keyword_transformer_gets_its_layernorms_and_gelus_back(shared_models: Path, tmp_path: Path, htp: Target):
    source = as_onnx(shared_models / "audio/kwt1_transformer_fp32.tflite", tmp_path / "source.onnx")
    apply_fixes(source, tmp_path / "out.onnx", target=htp)
    found = histogram(tmp_path / "out.onnx")
    assert (found["LayerNormalization"], found["Gelu"]) == (24, 12)
    assert found.get("Tanh", 0) == found.get("ReduceMean", 0) == 0


@pytest.mark.slow
def test_batch_normalization_of_a_real_resnet_disappears(shared_models: Path, tmp_path: Path, htp: Target):
    source = shared_models / "graphs/light_resnet50.onnx"
    apply_fixes(source, tmp_path / "out.onnx", target=htp)
    assert histogram(source)["BatchNormalization"] == 53
    assert "BatchNormalization" not in histogram(tmp_path / "out.onnx")
