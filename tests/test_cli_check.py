"""`npuops check` as people and CI start it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from npuops.models.onnx_file import write_onnx
from npuops.models.open import open_model
from rewrite_cases import Builder, attention, gelu, torch_layernorm
from toy_artifact import npuops

HTP = "qnn-htp:sm8650"


def saved(proto: onnx.ModelProto, folder: Path) -> Path:
    write_onnx(proto, folder / "model.onnx")
    return folder / "model.onnx"


def dense(*ops: str, width: int = 16) -> onnx.ModelProto:
    b = Builder()
    x = b.add("MatMul", "x", b.weights(16, width))
    for op in ops:
        x = b.add(op, x)
    b.add("Relu", x, out="y")
    return b.model({"x": [1, 16]}, {"y": [1, width]})


def test_json_is_the_documented_contract(tmp_path: Path):
    done = npuops("check", saved(dense("Erf"), tmp_path), "--target", HTP, "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 0
    assert set(report) == {"schema", "model", "target", "placement", "fits", "latency", "energy", "advice"}
    assert (report["schema"], report["model"], report["target"]) == ("npuops.check/1", "model.onnx", HTP)
    assert set(report["placement"]) == {"nodes", "fallback_ratio"}
    assert set(report["placement"]["fallback_ratio"]) == {"ops", "macs"}
    assert [set(node) for node in report["placement"]["nodes"]] == [{"name", "op", "runs_on", "rule", "found"}] * 3
    assert set(report["fits"]) == {"ok", "weights_bytes", "peak_activation_bytes", "limit_bytes", "note", "uses"}
    assert all(set(entry) == {"pattern", "nodes", "message", "fix"} for entry in report["advice"])
    away = [node["op"] for node in report["placement"]["nodes"] if node["runs_on"] == "cpu"]
    assert away == ["Erf"]


def test_people_see_what_falls_back_and_no_invented_figure(tmp_path: Path):
    done = npuops("check", saved(dense("Erf"), tmp_path), "--target", HTP)
    assert "2 of 3 nodes on the NPU, 1 on the CPU" in done.stdout
    assert "Erf" in done.stdout
    assert "MatMul" not in done.stdout
    assert done.stdout.count("no honest figure") == 2


def test_all_shows_every_node(tmp_path: Path):
    done = npuops("check", saved(dense(), tmp_path), "--target", HTP, "--all")
    assert "MatMul" in done.stdout


def test_a_fallback_budget_decides_the_exit_code(tmp_path: Path):
    path = saved(dense("Erf"), tmp_path)
    assert npuops("check", path, "--target", HTP, "--max-fallback", "0.5").returncode == 0
    refused = npuops("check", path, "--target", HTP, "--max-fallback", "0.2")
    assert refused.returncode == 1
    assert "33.3% of the work runs on the CPU, allowed 20.0%" in refused.stdout


def test_nothing_on_the_npu_is_a_no_but_the_host_engine_has_none(tmp_path: Path):
    b = Builder()
    b.add("Erf", "x", out="y")
    path = saved(b.model({"x": [1, 4]}, {"y": [1, 4]}), tmp_path)
    assert npuops("check", path, "--target", "toy").returncode == 1
    assert npuops("check", path, "--target", "ort-cpu").returncode == 0


def test_a_model_that_does_not_fit_is_a_no(tmp_path: Path):
    b = Builder()
    b.add("MatMul", "x", b.constant(np.zeros((4096, 4352), dtype=np.float32)), out="y")
    done = npuops("check", saved(b.model({"x": [1, 4096]}, {"y": [1, 4352]}), tmp_path), "--target", "toy")
    assert done.returncode == 1
    assert "does not fit" in done.stdout


def test_several_targets_make_a_matrix(tmp_path: Path):
    path = saved(dense("Erf"), tmp_path)
    done = npuops("check", path, "--target", HTP, "--target", "toy", "--target", "ort-cpu")
    assert done.returncode == 0
    assert all(name in done.stdout for name in (HTP, "toy", "ort-cpu"))
    plain = json.loads(npuops("check", path, "--target", HTP, "--target", "toy", "--json").stdout)
    assert plain["schema"] == "npuops.check-matrix/1"
    assert [report["target"] for report in plain["reports"]] == [HTP, "toy"]


def test_fix_writes_a_cured_model_and_reports_on_it(tmp_path: Path):
    out = tmp_path / "fixed.onnx"
    done = npuops("check", saved(gelu("erf-torch"), tmp_path), "--target", HTP, "--fix", out, "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert "Gelu" in open_model(out).op_histogram
    assert report["model"] == "fixed.onnx"
    assert "decomposed-gelu" not in {entry["pattern"] for entry in report["advice"]}
    [fix] = report["fixes"]["fixes"]
    assert (fix["name"], fix["verdict"], fix["sites"]) == ("fuse-gelu", "applied", 1)
    assert fix["proof"][0]["equal"]


def test_fix_with_samples_of_the_users_and_one_rewrite(tmp_path: Path):
    rows = np.random.default_rng(1).standard_normal((4, 1, 6, 32)).astype(np.float32)
    np.savez(tmp_path / "s.npz", x=rows)
    path, out = saved(torch_layernorm(), tmp_path), tmp_path / "fixed.onnx"
    done = npuops(
        *("check", path, "--target", HTP, "--fix", out, "--only", "fuse-layernorm", "--samples", tmp_path / "s.npz")
    )
    assert done.returncode == 0, done.stderr
    assert "proved on 4 samples" in done.stdout
    assert "LayerNormalization" in open_model(out).op_histogram


def test_a_refused_fix_is_shown_with_its_reason(tmp_path: Path):
    path, out = saved(attention("where-scores", leak=True), tmp_path), tmp_path / "fixed.onnx"
    done = npuops("check", path, "--target", HTP, "--fix", out, "--only", "additive-mask")
    assert "refused" in done.stdout
    assert "masked" in done.stdout


def test_shape_fixes_a_dynamic_input(tmp_path: Path):
    b = Builder()
    b.add("Relu", "x", out="y")
    path = saved(b.model({"x": ["batch", 4]}, {"y": ["batch", 4]}), tmp_path)
    loose = json.loads(npuops("check", path, "--target", HTP, "--json").stdout)
    fixed = json.loads(npuops("check", path, "--target", HTP, "--shape", "x=2x4", "--json").stdout)
    assert "dynamic-shape" in {entry["pattern"] for entry in loose["advice"]}
    assert "dynamic-shape" not in {entry["pattern"] for entry in fixed["advice"]}


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        ["--only", "fuse-gelu"],
        ["--samples", "x.npz"],
        ["--target", "toy", "--fix", "out.onnx"],
        ["--fix", "out.onnx", "--only", "nonsense"],
        ["--shape", "nonsense"],
        ["--max-fallback", "7"],
    ],
)
def test_wrong_use_is_a_clear_error(more: list[str], tmp_path: Path):
    done = npuops("check", saved(dense(), tmp_path), "--target", HTP, *more)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("out.onnx"))


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x08\x12\x04"])
def test_a_file_that_is_no_model_is_a_clear_error(content: bytes, tmp_path: Path):
    (tmp_path / "bad.onnx").write_bytes(content)
    done = npuops("check", tmp_path / "bad.onnx", "--target", HTP)
    assert done.returncode == 2
    assert "error:" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_that_cannot_be_written_loses_nothing(tmp_path: Path):
    path = saved(dense(), tmp_path)
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    done = npuops("check", path, "--target", HTP, "--fix", tmp_path / "file" / "out.onnx")
    assert done.returncode == 2
    assert "advice:" in done.stderr
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


def test_a_tflite_source_is_never_overwritten(shared_models: Path, tmp_path: Path):
    source = tmp_path / "m.tflite"
    source.write_bytes((shared_models / "tiny/ic_resnet8_int8.tflite").read_bytes())
    content = source.read_bytes()
    assert npuops("check", source, "--target", HTP, "--fix", source).returncode == 2
    assert source.read_bytes() == content


def test_a_tflite_model_is_judged_as_build_would_build_it(shared_models: Path):
    done = npuops("check", shared_models / "tiny/ic_resnet8_int8.tflite", "--target", HTP, "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["model"]) == (0, "ic_resnet8_int8.tflite")
    assert report["placement"]["fallback_ratio"]["ops"] == 0.0


def test_a_tflite_model_that_cannot_be_imported_is_judged_by_its_own_layers(shared_models: Path, tmp_path: Path):
    model = shared_models / "vision/ssd_mobilenet_v1_300_uint8.tflite"
    done = npuops("check", model, "--target", "ethos-u:ethos-u85-256", "--json")
    away = [node["op"] for node in json.loads(done.stdout)["placement"]["nodes"] if node["runs_on"] == "cpu"]
    assert (done.returncode, len(away)) == (0, 1)
    assert "TFLite_Detection_PostProcess" in away[0]
    for more in (["--target", HTP], ["--target", "ethos-u:ethos-u85-256", "--fix", tmp_path / "out.onnx"]):
        refused = npuops("check", model, *more)
        assert refused.returncode == 2
        assert "advice:" in refused.stderr
