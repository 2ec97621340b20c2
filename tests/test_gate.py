"""The gate: a rule passes only on evidence, and the worst rule decides."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from manifest_examples import comparison, manifest, output, parity
from npuops.artifacts.evidence import Gate, GateRule, Verdict
from npuops.artifacts.manifest import CompileRecord, FileRecord, Manifest, Role
from npuops.build.gate import SignatureFinding, compiled_bytes, judge
from npuops.build.policy import (
    GatePolicy,
    LatencyPolicy,
    ParityPolicy,
    PlacementPolicy,
    SignaturePolicy,
    SizePolicy,
)
from npuops.models.placement import FallbackRatio
from npuops.units import Basis

COSINE = GatePolicy(parity=ParityPolicy(min_cosine=0.99))


def gate(found: Manifest, policy: GatePolicy, signature: SignatureFinding | None = None) -> Gate:
    if signature is None:
        return judge(found, policy, size_bytes=compiled_bytes(found))
    return judge(found, policy, size_bytes=compiled_bytes(found), signature=signature)


def rule(answer: Gate, name: str) -> GateRule:
    return next(rule for rule in answer.rules if rule.name.split(" ")[0] == name)


def test_the_default_policy_wants_parity_and_finite_outputs_and_nothing_else() -> None:
    answer = gate(manifest(), GatePolicy())
    assert [found.name for found in answer.rules] == ["parity", "finite"]
    assert answer.verdict is Verdict.PASS


@pytest.mark.parametrize("verdict", [Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.ERROR])
def test_a_parity_that_did_not_pass_decides_the_gate_with_its_reason(verdict: Verdict) -> None:
    answer = gate(manifest(parity=parity(verdict=verdict, reasons=("cosine 0.2",))), GatePolicy())
    assert answer.verdict is verdict
    assert "cosine 0.2" in rule(answer, "parity").found


def test_an_output_that_is_not_finite_fails_even_when_the_parity_says_pass() -> None:
    broken = comparison(outputs=(output(finite=False, cosine=None, sqnr_db=None, max_abs=math.nan),))
    answer = gate(manifest(parity=parity(broken)), GatePolicy())
    assert rule(answer, "finite").verdict is Verdict.FAIL


def test_absent_evidence_is_inconclusive_for_every_rule_and_never_a_pass() -> None:
    policy = GatePolicy(
        accuracy={"top1": {"max_drop": 0.1, "min_value": 0.1}},
        parity=ParityPolicy(min_cosine=-1, min_sqnr_db=-200, min_top1_agreement=0, max_abs=1e9),
        placement=PlacementPolicy(max_fallback_macs=1.0),
        latency=LatencyPolicy(max_us=1e12, basis=Basis.MEASURED),
        signature=SignaturePolicy(required=True, trusted_keys=("a.pub",)),
        toolchain={"vela": ">=1"},
    )
    unknown = replace(manifest().placement, fallback_ratio=FallbackRatio(ops=0.0, macs=None))
    answer = gate(manifest(parity=None, accuracy=None, toolchain={}, placement=unknown), policy)
    assert len(answer.rules) == 12
    assert {found.verdict for found in answer.rules} == {Verdict.INCONCLUSIVE}


def test_a_parity_limit_is_judged_against_the_reference_that_the_policy_names() -> None:
    near = comparison(outputs=(output(cosine=0.97),))
    far = comparison(reference="quantized", outputs=(output(cosine=0.9999),))
    found = manifest(parity=parity(near, far))
    assert gate(found, COSINE).verdict is Verdict.FAIL
    assert gate(found, GatePolicy(parity=ParityPolicy(against="quantized", min_cosine=0.99))).verdict is Verdict.PASS


def test_the_worst_output_and_the_worst_engine_decide() -> None:
    two = comparison(outputs=(output(), output(output="boxes", cosine=0.5)))
    answer = gate(manifest(parity=parity(comparison(engine="tosa"), two)), COSINE)
    assert [found.verdict for found in answer.rules if "cosine" in found.name] == [Verdict.PASS, Verdict.FAIL]
    assert "boxes 0.5" in next(found.found for found in answer.rules if found.verdict is Verdict.FAIL)


def test_too_few_samples_are_inconclusive_however_good_the_figure_is() -> None:
    answer = gate(manifest(), GatePolicy(parity=ParityPolicy(min_cosine=0.1, min_samples=81)))
    assert rule(answer, "parity.cosine").verdict is Verdict.INCONCLUSIVE
    policy = GatePolicy(accuracy={"top1": {"max_drop": 0.5, "min_samples": 501}})
    assert rule(gate(manifest(), policy), "accuracy.top1.max_drop").verdict is Verdict.INCONCLUSIVE


def test_equal_outputs_meet_every_sqnr_limit_and_undefined_ones_none() -> None:
    policy = GatePolicy(parity=ParityPolicy(min_sqnr_db=60, min_cosine=0.5))
    equal = comparison(outputs=(output(cosine=1.0, sqnr_db=None, max_abs=0.0),))
    assert gate(manifest(parity=parity(equal)), policy).verdict is Verdict.PASS
    zero = comparison(outputs=(output(cosine=None, sqnr_db=-200.0),))
    assert rule(gate(manifest(parity=parity(zero)), policy), "parity.cosine").verdict is Verdict.FAIL


def test_top1_of_an_output_without_classes_says_nothing() -> None:
    policy = GatePolicy(parity=ParityPolicy(min_top1_agreement=0.9))
    boxes = output(output="boxes", top1_agreement=None)
    answer = gate(manifest(parity=parity(comparison(outputs=(boxes,)))), policy)
    assert rule(answer, "parity.top1_agreement").verdict is Verdict.INCONCLUSIVE
    both = gate(manifest(parity=parity(comparison(outputs=(boxes, output())))), policy)
    assert rule(both, "parity.top1_agreement").verdict is Verdict.PASS


def test_a_nan_never_meets_a_limit() -> None:
    nan = comparison(outputs=(output(max_abs=math.nan, cosine=math.nan),))
    answer = gate(manifest(parity=parity(nan)), GatePolicy(parity=ParityPolicy(max_abs=1e9, min_cosine=-1)))
    assert rule(answer, "parity.max_abs").verdict is Verdict.FAIL
    assert rule(answer, "parity.cosine").verdict is Verdict.FAIL


@pytest.mark.parametrize(("limit", "verdict"), [(0.0063, Verdict.PASS), (0.0061, Verdict.FAIL)])
def test_the_accuracy_drop_is_fp32_minus_artifact(limit: float, verdict: Verdict) -> None:
    answer = gate(manifest(), GatePolicy(accuracy={"top1": {"max_drop": limit}}))
    assert rule(answer, "accuracy.top1.max_drop").verdict is verdict


def test_another_metric_than_the_wanted_one_is_inconclusive() -> None:
    answer = gate(manifest(), GatePolicy(accuracy={"top5": {"min_value": 0.1}}))
    assert rule(answer, "accuracy.top5.min_value").verdict is Verdict.INCONCLUSIVE
    assert "top1" in rule(answer, "accuracy.top5.min_value").found


def test_a_latency_of_another_basis_never_passes() -> None:
    answer = gate(manifest(), GatePolicy(latency=LatencyPolicy(max_us=1e9, basis=Basis.MEASURED)))
    assert rule(answer, "latency").verdict is Verdict.INCONCLUSIVE
    assert "41.25 ms (emulated)" in rule(answer, "latency").found


@pytest.mark.parametrize(("limit", "verdict"), [(5100, Verdict.PASS), (4900, Verdict.FAIL)])
def test_the_compilers_estimate_is_judged_by_a_limit_on_estimates(limit: float, verdict: Verdict) -> None:
    record = CompileRecord(seconds=1.0, cache_key="k", notes={"inference_us": "5020.0"})
    policy = GatePolicy(latency=LatencyPolicy(max_us=limit, basis=Basis.VENDOR_ESTIMATE))
    assert rule(gate(manifest(compile=record), policy), "latency").verdict is verdict


@pytest.mark.parametrize("note", ["fast", "nan", "-1", "inf", ""])
def test_a_note_that_is_no_time_is_no_latency(note: str) -> None:
    record = CompileRecord(seconds=1.0, cache_key="k", notes={"inference_us": note})
    policy = GatePolicy(latency=LatencyPolicy(max_us=1e9, basis=Basis.VENDOR_ESTIMATE))
    assert rule(gate(manifest(compile=record), policy), "latency").verdict is Verdict.INCONCLUSIVE


def test_size_counts_what_the_compiler_wrote() -> None:
    assert compiled_bytes(manifest()) == 1_824 + 3_960_832
    assert gate(manifest(), GatePolicy(size=SizePolicy(max_bytes=3_962_656))).verdict is Verdict.PASS
    assert gate(manifest(), GatePolicy(size=SizePolicy(max_bytes=3_962_655))).verdict is Verdict.FAIL


def test_placement_limits_are_ratios() -> None:
    strict = GatePolicy(placement=PlacementPolicy(max_fallback_ops=0.08, max_fallback_macs=0.03))
    answer = gate(manifest(), strict)
    assert rule(answer, "placement.ops").verdict is Verdict.FAIL
    assert rule(answer, "placement.macs").verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("trusted", "verdict"), [(True, Verdict.PASS), (False, Verdict.FAIL), (None, Verdict.INCONCLUSIVE)]
)
def test_a_demanded_signature_must_have_been_verified(trusted: bool | None, verdict: Verdict) -> None:
    policy = GatePolicy(signature=SignaturePolicy(required=True, trusted_keys=("a.pub",)))
    answer = gate(manifest(), policy, SignatureFinding(trusted=trusted, words="as found"))
    assert rule(answer, "signature").verdict is verdict


def test_a_toolchain_pin_is_judged_by_the_recorded_version() -> None:
    pins = {"onnxruntime-qnn": "==2.7.*", "qairt": ">=2.52"}
    answer = gate(manifest(), GatePolicy(toolchain=pins))
    assert rule(answer, "toolchain.onnxruntime-qnn").verdict is Verdict.PASS
    assert rule(answer, "toolchain.qairt").verdict is Verdict.FAIL


def recorded(name: str, verdict: Verdict) -> Gate:
    return Gate(verdict=verdict, rules=(GateRule(name=name, verdict=verdict, wanted="no fallback", found="8 %"),))


def test_what_the_build_refused_stays_refused() -> None:
    answer = gate(manifest(gate=recorded("fallback", Verdict.FAIL)), GatePolicy())
    assert answer.verdict is Verdict.FAIL
    assert rule(answer, "build").found == "fallback (fail): 8 %"


def test_a_policy_that_judges_the_same_rule_stands_above_the_builds() -> None:
    answer = gate(manifest(gate=recorded("size", Verdict.FAIL)), GatePolicy(size=SizePolicy(max_bytes=10**9)))
    assert answer.verdict is Verdict.PASS


def test_the_size_is_of_what_a_device_needs() -> None:
    sizes = {role: 1 << place for place, role in enumerate(Role)}
    files = tuple(FileRecord(name=role, role=role, sha256="", bytes=size) for role, size in sizes.items())
    assert compiled_bytes(manifest(files=files)) == sizes[Role.COMPILED]
