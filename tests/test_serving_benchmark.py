"""The judges of benchmarks/serving: a wrong answer is seen, a goal is met or missed by the right figures."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tritonclient")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks" / "serving"))

import drivers
import exchanges
import ours
import served_models
import tables
from client import Call, Sample, outcomes, percentile_ms


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> served_models.ServedModel:
    return served_models.make("tiny", tmp_path_factory.mktemp("models"))


def answer(numbers: list[float]) -> bytes:
    return json.dumps({"outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 10], "data": numbers}]}).encode()


def test_a_right_answer_is_right_and_another_ones_is_not(tiny: served_models.ServedModel) -> None:
    exchange = exchanges.oip_json(tiny)
    right = tiny.answer.ravel().tolist()
    assert exchanges.differs(exchange, {}, answer(right), tiny.answer, int8=False) == ""
    assert "differs" in exchanges.differs(exchange, {}, answer(right[::-1]), tiny.answer, int8=False)
    assert "cosine" in exchanges.differs(exchange, {}, answer(right[::-1]), tiny.answer, int8=True)
    assert "numbers instead of" in exchanges.differs(exchange, {}, answer(right[:-1]), tiny.answer, int8=False)
    assert "unreadable" in exchanges.differs(exchange, {}, b"{}", tiny.answer, int8=False)


def test_json_and_binary_requests_carry_the_same_numbers(tiny: served_models.ServedModel) -> None:
    binary = exchanges.oip_binary(tiny)
    length = int(binary.headers["Inference-Header-Content-Length"])
    sent = np.frombuffer(binary.body[length:], np.float32)
    told = np.array(json.loads(exchanges.oip_json(tiny).body)["inputs"][0]["data"], np.float32)
    assert np.array_equal(sent, told)
    assert np.array_equal(sent, tiny.inputs["x"].ravel())


def test_the_second_version_of_a_model_answers_otherwise(tiny: served_models.ServedModel, tmp_path: Path) -> None:
    second = served_models.second_version(tiny, tmp_path)
    assert np.allclose(second.answer, 2 * tiny.answer)


def row(server: str, per_s: float, foreign: float = 0.0, **other: Any) -> dict[str, Any]:
    cell = {"model": "tiny", "server": server, "protocol": "binary", "concurrency": 32, "round": 1}
    return cell | {"per_s": per_s, "foreign_cores": foreign, "failed": 0} | other


def test_a_figure_is_the_median_of_the_quiet_runs() -> None:
    results = tables.Results([row("npuops", 10), row("npuops", 30), row("npuops", 20), row("npuops", 99, 1.0)])
    cell = results.cell("tiny", "npuops", "binary", 32)
    assert cell is not None
    assert (cell.per_s, cell.runs) == (20, "3/4")


def test_without_a_quiet_run_the_least_disturbed_half_counts() -> None:
    results = tables.Results([row("npuops", 10, 0.9), row("npuops", 50, 1.4)])
    assert results.rate("tiny", "npuops", "binary", 32) == 10


def test_goals_compare_with_the_better_triton_and_the_fastest_python_server(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row("npuops", 50_000), row("triton-py", 5_000), row("triton-py-d0", 13_000)]
    rows += [row("fastapi", 2_000), row("mlserver", 1_000, protocol="json")]
    tables.print_tables(rows)
    said = capsys.readouterr().out
    assert "| 50,000 | 13,000 | 3.85x | missed |" in said
    assert "| 50,000 | 2,000 | 25.00x | met |" in said
    assert "not measured" in said


def test_an_int8_loop_is_no_server_of_its_own() -> None:
    rows = [row("npuops loop", 9e9, protocol="loop", concurrency=1), row("kserve", 900)]
    assert tables.python_servers(tables.Results(rows)) == ["kserve"]


def test_percentiles_are_of_right_answers_alone() -> None:
    samples = [Sample(0.0, 0.010, "ok"), Sample(0.0, 9.0, "TimeoutError")]
    assert percentile_ms(samples, 99) == 10
    assert outcomes(samples) == {"ok": 1, "TimeoutError": 1}
    assert percentile_ms(samples[1:], 99) is None
    assert Call(b"", lambda _: "").refusals == frozenset()


def test_the_bytes_of_answers_are_read_from_what_h2load_says() -> None:
    said = "traffic: 1.21MB (1266842) total, 12.3KB (12600) headers (space savings 95%), 1.19MB (1244000) data\n"
    assert drivers.answered_bytes(said) == 1_244_000
    assert drivers.answered_bytes("finished in 1.00s") == 0


def test_an_artifact_of_another_model_or_of_other_flags_is_built_anew(tmp_path: Path) -> None:
    file, noise = tmp_path / "model.onnx", tmp_path / "noise.npz"
    file.write_bytes(b"one")
    noise.write_bytes(b"samples")
    flags = ["--calibration", str(noise)]
    first = ours.build_key(file, flags)
    assert ours.build_key(file, flags) == first
    assert ours.build_key(file, [*flags, "--dynamic-batch"]) != first
    noise.write_bytes(b"others")
    assert ours.build_key(file, flags) != first
    noise.write_bytes(b"samples")
    file.write_bytes(b"two")
    assert ours.build_key(file, flags) != first
