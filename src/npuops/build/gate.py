"""The gate: does an artifact meet a policy? Rule by rule, what was wanted and what was found.

Absent evidence is never a pass: a rule whose figure is missing is inconclusive. Limits are written so that a NaN
does not meet them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from npuops.artifacts.evidence import Comparison, Gate, GateRule, OutputParity, Verdict, common_verdict
from npuops.artifacts.latency_figures import latency_figures
from npuops.artifacts.manifest import Manifest, Role
from npuops.build.policy import GatePolicy, ParityPolicy
from npuops.build.version_pins import satisfies
from npuops.units import format_bytes, format_us

SCHEMA = "npuops.gate/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureFinding:
    """What was found out about an artifact's signature, before the gate."""

    trusted: bool | None = None
    """Verified with a trusted key, or refused; None: nobody looked."""
    words: str = "the signature was not looked at"


UNSEEN = SignatureFinding()


@dataclass(frozen=True, slots=True, kw_only=True)
class GateAnswer:
    """The JSON of `npuops gate`."""

    schema: str = SCHEMA
    artifact: str
    digest: str
    target: str
    verdict: Verdict
    rules: tuple[GateRule, ...]
    policy: GatePolicy


def compiled_bytes(manifest: Manifest) -> int:
    """Bytes of the files that the compiler wrote: what the size rule limits."""
    return sum(record.bytes for record in manifest.files if record.role is Role.COMPILED)


def judge(manifest: Manifest, policy: GatePolicy, *, size_bytes: int, signature: SignatureFinding = UNSEEN) -> Gate:
    """Every rule of `policy`, the two that always hold (`parity`, `finite`), and what the build itself refused.

    Args:
        manifest: of a verified artifact, or of one that is being built (then without a gate).
        policy: what is demanded.
        size_bytes: see `compiled_bytes`.
        signature: the finding of `npuops verify`.
    """
    rules = (
        *_always(manifest),
        *_parity(manifest, policy.parity),
        *_accuracy(manifest, policy),
        *_placement(manifest, policy),
        *_size(policy, size_bytes),
        *_latency(manifest, policy),
        *_signature(policy, signature),
        *_toolchain(manifest, policy),
    )
    rules += tuple(_build(manifest, judged=frozenset(rule.name for rule in rules)))
    return Gate(verdict=common_verdict(tuple(rule.verdict for rule in rules)), rules=rules)


def _build(manifest: Manifest, judged: frozenset[str]) -> Iterable[GateRule]:
    """The build's own promises (fallback, fit, accepted drop) hold on, unless this policy judges the same thing."""
    recorded = manifest.gate.rules if manifest.gate else ()
    kept = [rule for rule in recorded if rule.name not in judged]
    if kept:
        missed = [f"{rule.name} ({rule.verdict}): {rule.found}" for rule in kept if rule.verdict is not Verdict.PASS]
        yield GateRule(
            name="build",
            verdict=common_verdict(tuple(rule.verdict for rule in kept)),
            wanted="the build's own rules passed",
            found="; ".join(missed) or f"{', '.join(rule.name for rule in kept)} passed",
        )


def _rule(name: str, met: bool | None, wanted: str, found: str) -> GateRule:
    verdict = Verdict.INCONCLUSIVE if met is None else Verdict.PASS if met else Verdict.FAIL
    return GateRule(name=name, verdict=verdict, wanted=wanted, found=found)


def _always(manifest: Manifest) -> Iterable[GateRule]:
    parity = manifest.parity
    if parity is None:
        yield _rule("parity", None, "verdict pass", "no parity was measured")
        yield _rule("finite", None, "no NaN, no infinity", "no parity was measured")
        return
    reasons = "; ".join(parity.reasons)
    found = f"verdict {parity.verdict}" + (f": {reasons}" if reasons else "")
    yield GateRule(name="parity", verdict=parity.verdict, wanted="verdict pass", found=found)
    outputs = [(comparison, output) for comparison in parity.comparisons for output in comparison.outputs]
    bad = sorted({f"{output.output} ({comparison.engine})" for comparison, output in outputs if not output.finite})
    if not outputs:
        yield _rule("finite", None, "no NaN, no infinity", "no output was compared")
    else:
        yield _rule("finite", not bad, "no NaN, no infinity", f"not finite: {', '.join(bad)}" if bad else "all finite")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limit:
    """One figure of `OutputParity` with its limit, and how to read it."""

    name: str
    limit: float | None
    at_least: bool
    figure: Callable[[OutputParity], float | None]
    absent_means: Callable[[OutputParity], bool | None]
    """Verdict on an output without the figure: met, not met, or None for "says nothing"."""
    absent_words: str


def _limits(policy: ParityPolicy) -> tuple[_Limit, ...]:
    return (
        _Limit(
            name="cosine",
            limit=policy.min_cosine,
            at_least=True,
            figure=lambda output: output.cosine,
            absent_means=lambda _: False,
            absent_words="undefined (zero or not finite on one side)",
        ),
        _Limit(
            name="sqnr_db",
            limit=policy.min_sqnr_db,
            at_least=True,
            figure=lambda output: output.sqnr_db,
            # No noise at all has no finite ratio: equal outputs meet every limit.
            absent_means=lambda output: output.finite and output.max_abs == 0,
            absent_words="equal, or not finite",
        ),
        _Limit(
            name="top1_agreement",
            limit=policy.min_top1_agreement,
            at_least=True,
            figure=lambda output: output.top1_agreement,
            absent_means=lambda output: None if output.finite else False,
            absent_words="the output has no classes",
        ),
        _Limit(
            name="max_abs",
            limit=policy.max_abs,
            at_least=False,
            figure=lambda output: output.max_abs,
            absent_means=lambda _: None,
            absent_words="absent",
        ),
    )


def _parity(manifest: Manifest, policy: ParityPolicy) -> Iterable[GateRule]:
    wanted = [limit for limit in _limits(policy) if limit.limit is not None]
    parity = manifest.parity
    comparisons = [c for c in parity.comparisons if c.reference == policy.against] if parity else []
    for limit in wanted:
        sign = "≥" if limit.at_least else "≤"
        words = f"{limit.name} {sign} {limit.limit:g} against {policy.against}"
        if not comparisons:
            yield _rule(f"parity.{limit.name}", None, words, f"no comparison with {policy.against}")
        for comparison in comparisons:
            yield _judge_limit(comparison, limit, words, policy.min_samples)


def _judge_limit(comparison: Comparison, limit: _Limit, words: str, min_samples: int) -> GateRule:
    name = f"parity.{limit.name} [{comparison.engine}]"
    if comparison.samples < min_samples:
        found = f"{comparison.samples} samples, {min_samples} wanted"
        return _rule(name, None, words, found)
    answers = {output.output: _meets(output, limit) for output in comparison.outputs}
    found = ", ".join(f"{output.output} {_figure_words(output, limit)}" for output in comparison.outputs)
    judged = [answer for answer in answers.values() if answer is not None]
    met = all(judged) if judged else None
    return _rule(name, met, words, f"{found or 'no output'}; {comparison.samples} samples")


def _meets(output: OutputParity, limit: _Limit) -> bool | None:
    value = limit.figure(output)
    if value is None or limit.limit is None:
        return limit.absent_means(output)
    return value >= limit.limit if limit.at_least else value <= limit.limit


def _figure_words(output: OutputParity, limit: _Limit) -> str:
    value = limit.figure(output)
    return limit.absent_words if value is None else f"{value:.6g}"


def _accuracy(manifest: Manifest, policy: GatePolicy) -> Iterable[GateRule]:
    found = manifest.accuracy
    for metric, limits in policy.accuracy.items():
        for kind, limit in limits.items():
            if kind == "min_samples":
                continue
            name = f"accuracy.{metric}.{kind}"
            words = f"drop ≤ {limit:g}" if kind == "max_drop" else f"value ≥ {limit:g}"
            if found is None or found.metric != metric:
                absent = "no accuracy was measured" if found is None else f"only {found.metric} was measured"
                yield _rule(name, None, words, absent)
                continue
            figures = f"fp32 {found.fp32:.4g}, artifact {found.artifact:.4g}, {found.samples} samples"
            met = found.drop <= limit if kind == "max_drop" else found.artifact >= limit
            enough = found.samples >= limits.get("min_samples", 1)
            yield _rule(name, met if enough else None, words, figures + ("" if enough else ": too few"))


def _placement(manifest: Manifest, policy: GatePolicy) -> Iterable[GateRule]:
    ratio = manifest.placement.fallback_ratio
    if policy.placement.max_fallback_ops is not None:
        limit = policy.placement.max_fallback_ops
        yield _rule("placement.ops", ratio.ops <= limit, f"≤ {limit:.2%} of ops on the CPU", f"{ratio.ops:.2%}")
    if policy.placement.max_fallback_macs is not None:
        limit = policy.placement.max_fallback_macs
        met = None if ratio.macs is None else ratio.macs <= limit
        found = "MACs unknown" if ratio.macs is None else f"{ratio.macs:.2%}"
        yield _rule("placement.macs", met, f"≤ {limit:.2%} of MACs on the CPU", found)


def _size(policy: GatePolicy, size_bytes: int) -> Iterable[GateRule]:
    limit = policy.size.max_bytes
    if limit is not None:
        wanted, found = (f"{format_bytes(count)} ({count} bytes)" for count in (limit, size_bytes))
        yield _rule("size", size_bytes <= limit, f"≤ {wanted}", found)


def _latency(manifest: Manifest, policy: GatePolicy) -> Iterable[GateRule]:
    limit, basis = policy.latency.max_us, policy.latency.basis
    if limit is None or basis is None:
        return
    figures = latency_figures(manifest)
    wanted = f"≤ {format_us(limit)} ({basis})"
    same = [figure for figure in figures if figure.basis is basis]
    if same:
        yield _rule("latency", all(f.us <= limit for f in same), wanted, ", ".join(map(str, same)))
    else:
        others = ", ".join(map(str, figures))
        yield _rule("latency", None, wanted, f"no {basis} figure" + (f"; only {others}" if others else ""))


def _signature(policy: GatePolicy, finding: SignatureFinding) -> Iterable[GateRule]:
    if policy.signature.required or policy.signature.trusted_keys:
        wanted = "signed with a trusted key" if policy.signature.required else "unsigned, or signed with a trusted key"
        yield _rule("signature", finding.trusted, wanted, finding.words)


def _toolchain(manifest: Manifest, policy: GatePolicy) -> Iterable[GateRule]:
    for package, spec in policy.toolchain.items():
        version = manifest.toolchain.get(package)
        if version is None:
            known = ", ".join(sorted(manifest.toolchain)) or "nothing"
            yield _rule(f"toolchain.{package}", None, spec, f"not recorded; the manifest has {known}")
            continue
        met = satisfies(version, spec)
        found = version if met is not None else f"{version} (has letters: only == can judge it)"
        yield _rule(f"toolchain.{package}", met, spec, found)
