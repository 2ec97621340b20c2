from __future__ import annotations

from dataclasses import replace

import pytest

from manifest_examples import manifest
from npuops.artifacts.evidence import Accuracy, Gate, Verdict
from npuops.build.fallback import ALLOW, FORBID, FallbackPolicy
from npuops.build.options import BuildOptions
from npuops.build.policy import GatePolicy
from npuops.build.verdict import build_gate
from npuops.models.placement import FallbackRatio, PlacementReport
from npuops.targets.report import Fit, SupportReport


def report(*, fits: bool = True) -> SupportReport:
    return SupportReport(
        model="m.onnx",
        target="toy",
        placement=PlacementReport(nodes=(), fallback_ratio=FallbackRatio(ops=0.0, macs=0.0)),
        fits=Fit(ok=fits, weights_bytes=10, peak_activation_bytes=None, limit_bytes=8),
        latency=None,
        energy=None,
    )


def gate(options: BuildOptions, *, ratio: float = 0.0, drop: float | None = None, fits: bool = True) -> Gate:
    base = manifest()
    placement = replace(base.placement, fallback_ratio=FallbackRatio(ops=ratio, macs=ratio))
    accuracy = None if drop is None else Accuracy(metric="top1", fp32=0.9, artifact=0.9 - drop, samples=100)
    judged = replace(base, placement=placement, accuracy=accuracy, gate=None)
    return build_gate(judged, GatePolicy(), options, report(fits=fits))


def verdict_of(found: Gate, rule: str) -> Verdict:
    return next(one.verdict for one in found.rules if one.name == rule)


@pytest.mark.parametrize(
    ("policy", "ratio", "verdict"),
    [
        (FORBID, 0.0, Verdict.PASS),
        (FORBID, 0.01, Verdict.FAIL),
        (ALLOW, 1.0, Verdict.PASS),
        (FallbackPolicy(0.1), 0.1, Verdict.PASS),
        (FallbackPolicy(0.1), 0.11, Verdict.FAIL),
    ],
)
def test_the_fallback_policy_is_a_rule_of_the_gate(policy: FallbackPolicy, ratio: float, verdict: Verdict) -> None:
    assert verdict_of(gate(BuildOptions(fallback=policy), ratio=ratio), "fallback") is verdict


@pytest.mark.parametrize(
    ("drop", "verdict"), [(0.0, Verdict.PASS), (0.02, Verdict.FAIL), (-0.1, Verdict.PASS), (None, Verdict.INCONCLUSIVE)]
)
def test_an_accepted_drop_is_judged_and_unmeasured_is_no_pass(drop: float | None, verdict: Verdict) -> None:
    found = gate(BuildOptions(max_drop=0.01), drop=drop)
    assert verdict_of(found, "drop") is verdict
    assert (found.verdict is Verdict.PASS) == (verdict is Verdict.PASS)


def test_what_does_not_fit_fails() -> None:
    found = gate(BuildOptions(), fits=False)
    assert verdict_of(found, "fits") is Verdict.FAIL
    assert found.verdict is Verdict.FAIL


def test_why_it_does_not_fit_is_found_in_the_gate() -> None:
    judged = replace(manifest(), gate=None)
    short = replace(report(fits=False), fits=replace(report(fits=False).fits, note="flash would have to hold 9 MiB"))
    found = build_gate(judged, GatePolicy(), BuildOptions(), short)
    assert next(rule.found for rule in found.rules if rule.name == "fits").endswith("; flash would have to hold 9 MiB")
