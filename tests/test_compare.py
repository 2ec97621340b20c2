"""Two artifacts side by side: better and worse only where the figures mean the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from manifest_examples import comparison, manifest, output, parity
from npuops.artifacts.evidence import Accuracy
from npuops.artifacts.manifest import CompileRecord, Manifest
from npuops.report.compare import Mark, Row, compare_artifacts


def rows(b: Manifest, a: Manifest | None = None) -> dict[tuple[str, str], Row]:
    answer = compare_artifacts(a or manifest(), b, name_a="a", name_b="b")
    return {(row.group, row.name): row for row in answer.rows}


def test_an_artifact_is_the_same_as_itself_in_every_row() -> None:
    assert {row.mark for row in rows(manifest()).values()} == {Mark.SAME}


def test_lower_is_better_for_size_and_fallback_and_higher_for_accuracy() -> None:
    files = manifest().files
    b = manifest(
        files=(files[0], replace(files[1], bytes=1_980_416), files[2]),
        accuracy=Accuracy(metric="top1", fp32=0.7183, artifact=0.70, samples=500),
    )
    found = rows(b)
    assert found["size", "compiled files"].mark is Mark.BETTER
    assert found["size", "compiled files"].note == "-50.0%"
    assert found["accuracy", "top1"].mark is Mark.WORSE
    assert found["accuracy", "top1 drop"].mark is Mark.WORSE


def test_latencies_of_different_bases_are_shown_and_not_compared() -> None:
    record = CompileRecord(seconds=1.0, cache_key="k", notes={"inference_us": "2350"})
    b = manifest(target="ethos-u:ethos-u85-1024", compile=record, parity=parity(run_us=None, run_basis=""))
    row = rows(b)["latency", "one inference"]
    assert row.mark is Mark.NOT_COMPARABLE
    assert row.note == "not comparable: emulated vs vendor-estimate"
    assert (row.a, row.b) == ("41.25 ms (emulated)", "2.35 ms (vendor-estimate)")


def test_latencies_of_one_basis_are_compared() -> None:
    row = rows(manifest(parity=parity(run_us=20_000.0)))["latency", "µs (emulated)"]
    assert row.mark is Mark.BETTER


def test_parity_is_not_compared_between_different_source_models() -> None:
    b = manifest(model=replace(manifest().model, digest="sha256:" + "00" * 32))
    found = [row for (group, _), row in rows(b).items() if group == "parity"]
    assert found
    assert {row.mark for row in found} == {Mark.NOT_COMPARABLE}


def test_parity_of_one_source_model_is_compared_output_by_output() -> None:
    b = manifest(parity=parity(comparison(outputs=(output(cosine=0.9, sqnr_db=10.0, max_abs=0.5),))))
    found = rows(b)
    assert found["parity", "probabilities against fp32: cosine"].mark is Mark.WORSE
    assert found["parity", "probabilities against fp32: max abs"].mark is Mark.WORSE
    assert found["parity", "probabilities against quantized: cosine"].mark is Mark.NOT_COMPARABLE


def test_accuracies_of_different_metrics_or_sample_counts_are_not_compared() -> None:
    def mark(name: str, **changes: Any) -> Mark:
        accuracy = replace(Accuracy(metric="top1", fp32=0.7183, artifact=0.7121, samples=500), **changes)
        return rows(manifest(accuracy=accuracy))["accuracy", name].mark

    assert mark("metric", metric="top5") is Mark.NOT_COMPARABLE
    assert mark("top1", samples=10, artifact=0.9) is Mark.NOT_COMPARABLE


def test_toolchain_and_options_differ_without_being_better_or_worse() -> None:
    b = manifest(toolchain={"onnxruntime": "1.31.1", "qairt": "2.52.0"})
    found = rows(b)
    assert found["toolchain", "qairt"].mark is Mark.DIFFERENT
    assert found["toolchain", "onnxruntime"].mark is Mark.SAME
    assert found["toolchain", "onnxruntime-qnn"].b == "–"
