"""Masks, gammas and Gelus before Qualcomm's own compiler (the HTP emulator): what fails, and what the cure changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from npuops.errors import CompileError
from npuops.evaluate.metrics import cosine
from npuops.evaluate.reference import run_reference
from npuops.models.onnx_file import write_onnx
from npuops.models.open import open_model
from npuops.models.placement import RunsOn
from npuops.rewrite.proof_samples import proof_samples
from npuops.rewrite.rewrite_table import REWRITES, rewrite_model
from npuops.targets.child import call
from npuops.targets.protocol import Compilation, CompileOptions, Precision
from npuops.targets.registry import open_target
from rewrite_cases import attention, einsum, gelu, quantized_layernorm, single

TARGET = "qnn-htp:sm8650"

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the quantizer divides by an infinite range


@pytest.fixture(scope="module", autouse=True)
def _emulator() -> None:
    probe = open_target(TARGET).probe()
    if not probe.available:
        pytest.skip(f"{TARGET}: {probe.why_not}; {probe.install}")


def quantized(proto: onnx.ModelProto, path: Path) -> Path:
    """A8W8 by ONNX Runtime's quantizer, as its QNN recipe says."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize  # noqa: PLC0415 - 0.5 s
    from onnxruntime.quantization.execution_providers.qnn import get_qnn_qdq_config  # noqa: PLC0415 - as above

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rows = iter(proof_samples(proto).inputs)

        def get_next(self):
            return next(self.rows, None)

    source = path.with_suffix(".float.onnx")
    write_onnx(proto, source)
    kinds = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QUInt8}
    quantize(str(source), str(path), get_qnn_qdq_config(str(source), Reader(), **kinds))
    return path


def compiled(path: Path, folder: Path) -> Compilation:
    arguments = {"path": str(path), "folder": str(folder)}
    folder.mkdir()
    value = call(compile_on_htp, arguments, what=TARGET, timeout_s=120).value
    assert isinstance(value, Compilation)
    return value


def compile_on_htp(*, path: str, folder: str) -> Compilation:
    options = CompileOptions(precision=Precision.A8W8)
    return open_target(TARGET).compile(open_model(Path(path)), options, Path(folder))


def cured(proto: onnx.ModelProto, fix: str) -> onnx.ModelProto:
    after, sites = rewrite_model(proto, REWRITES[fix])
    assert sites
    return after


def ops_on_cpu(done: Compilation) -> set[str]:
    return {node.op for node in done.placement if node.runs_on is RunsOn.CPU}


def test_an_infinite_mask_does_not_compile_and_its_cure_does(tmp_path: Path):
    before = attention("constant")
    with pytest.raises(CompileError):
        compiled(quantized(before, tmp_path / "before.onnx"), tmp_path / "before")
    after = quantized(cured(before, "additive-mask"), tmp_path / "after.onnx")
    assert ops_on_cpu(compiled(after, tmp_path / "after")) == set()


@pytest.mark.slow
@pytest.mark.parametrize("mask", ["where-scores", "where-mask", "where-keep", "scaled"])
def test_a_huge_mask_turns_quantized_attention_into_noise_and_its_cure_does_not(mask: str, tmp_path: Path):
    before = attention(mask, length=64)
    after = cured(before, "additive-mask")
    samples = proof_samples(before, seed=5)
    wanted = run_reference(before, samples)["y"]
    bad = run_reference(quantized(before, tmp_path / "before.onnx"), samples)["y"]
    good = run_reference(quantized(after, tmp_path / "after.onnx"), samples)["y"]
    assert (cosine(bad, wanted) or 0.0) < 0.8
    assert (cosine(good, wanted) or 0.0) > 0.98
    assert ops_on_cpu(compiled(tmp_path / "after.onnx", tmp_path / "after")) == set()


@pytest.mark.slow
@pytest.mark.parametrize("per_channel", [False, True])
def test_htp_refuses_a_signed_gamma_and_takes_the_cured_one(per_channel: bool, tmp_path: Path):
    before = quantized_layernorm(per_channel=per_channel)
    write_onnx(before, tmp_path / "before.onnx")
    write_onnx(cured(before, "layernorm-gamma-uint8"), tmp_path / "after.onnx")
    with pytest.raises(CompileError):
        compiled(tmp_path / "before.onnx", tmp_path / "before")
    assert ops_on_cpu(compiled(tmp_path / "after.onnx", tmp_path / "after")) == set()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("proto", "fix", "falls_back"),
    [
        (gelu("erf-torch"), "fuse-gelu", "Erf"),
        (einsum("bij,bjk->bki", [2, 3, 4], [2, 4, 5], [2, 5, 3]), "einsum-to-matmul", "Einsum"),
    ],
    ids=["gelu", "einsum"],
)
def test_an_operator_that_falls_to_the_cpu_runs_whole_after_its_cure(
    proto: onnx.ModelProto, fix: str, falls_back: str, tmp_path: Path
):
    before = compiled(quantized(proto, tmp_path / "before.onnx"), tmp_path / "before")
    after = compiled(quantized(cured(proto, fix), tmp_path / "after.onnx"), tmp_path / "after")
    assert falls_back in ops_on_cpu(before)
    assert ops_on_cpu(after) == set()


@pytest.mark.slow
def test_a_scaled_gemm_is_refused_and_the_plain_one_is_taken(tmp_path: Path):
    weights = np.random.default_rng(3).standard_normal((6, 8)).astype(np.float32)
    proto = single("Gemm", [4, 8], [4, 6], weights, np.ones(6, dtype=np.float32), alpha=0.25, beta=2.0, transB=1)
    with pytest.raises(CompileError):
        compiled(quantized(proto, tmp_path / "before.onnx"), tmp_path / "before")
    after = quantized(cured(proto, "plain-gemm"), tmp_path / "after.onnx")
    assert ops_on_cpu(compiled(after, tmp_path / "after")) == set()
