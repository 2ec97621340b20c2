"""The gate of a build: the policy's rules, and what the build's own options promise. Pure."""

from __future__ import annotations

from npuops.artifacts.evidence import Gate, GateRule, Verdict, common_verdict
from npuops.artifacts.manifest import Manifest
from npuops.build.gate import compiled_bytes, judge
from npuops.build.options import BuildOptions
from npuops.build.policy import GatePolicy
from npuops.targets.report import SupportReport
from npuops.units import format_bytes


def build_gate(manifest: Manifest, policy: GatePolicy, options: BuildOptions, report: SupportReport) -> Gate:
    """Judge a manifest that has all its evidence.

    Args:
        manifest: with parity and accuracy, without a gate.
        policy: of the user, or the default.
        options: the fallback policy and the accepted drop are promises of the build.
        report: says whether it fits.
    """
    judged = judge(manifest, policy, size_bytes=compiled_bytes(manifest)).rules
    # Signing comes after the build, so a signature can neither be there nor be missing yet; `npuops gate` looks at it.
    rules = [rule for rule in judged if rule.name != "signature"]
    rules.append(_fallback(manifest, options))
    rules.append(_fits(report))
    if options.max_drop is not None:
        rules.append(_drop(manifest, options.max_drop))
    return Gate(verdict=common_verdict(tuple(rule.verdict for rule in rules)), rules=tuple(rules))


def _fallback(manifest: Manifest, options: BuildOptions) -> GateRule:
    ratio = manifest.placement.fallback_ratio
    macs = "" if ratio.macs is None else f", {ratio.macs:.1%} of MACs"
    return GateRule(
        name="fallback",
        verdict=Verdict.PASS if options.fallback.admits(ratio) else Verdict.FAIL,
        wanted=options.fallback.words,
        found=f"{ratio.ops:.1%} of operators{macs} on the CPU",
    )


def _fits(report: SupportReport) -> GateRule:
    fits = report.fits
    limit = "no fixed limit" if fits.limit_bytes is None else f"at most {format_bytes(fits.limit_bytes)}"
    peak = fits.peak_activation_bytes
    activations = "unknown" if peak is None else format_bytes(peak)
    need = f"weights {format_bytes(fits.weights_bytes)}, peak activations {activations}"
    return GateRule(
        name="fits",
        verdict=Verdict.PASS if fits.ok else Verdict.FAIL,
        wanted=limit,
        found="; ".join(filter(None, (need, fits.note))),
    )


def _drop(manifest: Manifest, max_drop: float) -> GateRule:
    wanted = f"at most {max_drop:.2%}"
    found = manifest.accuracy
    if found is None:
        return GateRule(name="drop", verdict=Verdict.INCONCLUSIVE, wanted=wanted, found="accuracy was not measured")
    return GateRule(
        name="drop",
        verdict=Verdict.PASS if found.drop <= max_drop else Verdict.FAIL,
        wanted=f"{wanted} of {found.metric}",
        found=f"{found.drop:.2%} ({found.fp32:.4f} → {found.artifact:.4f} on {found.samples} samples)",
    )
