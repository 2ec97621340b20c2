"""The report's proof: the gate's rules, and the parity and accuracy tables."""

from __future__ import annotations

from npuops.artifacts.evidence import Comparison, Divergence, OutputParity, Parity, Verdict
from npuops.artifacts.manifest import Manifest
from npuops.report.report_page import Markup, element, section, table

_SIGN = {Verdict.PASS: "✓", Verdict.FAIL: "✗", Verdict.INCONCLUSIVE: "?", Verdict.ERROR: "!"}


def verdict_pill(verdict: Verdict | None, words: str = "", *, big: bool = False) -> Markup:
    """A verdict with sign and word, so that it reads without colour."""
    kind = verdict or Verdict.INCONCLUSIVE
    return element("span", f"{_SIGN[kind]} {words or kind}", class_=f"verdict {kind}{' big' if big else ''}")


def gate_section(manifest: Manifest) -> Markup:
    """Every rule with what was wanted and what was found."""
    gate = manifest.gate
    if gate is None:
        return section("Gate", element("p", "No gate has judged this artifact."))
    rows = [(rule.name, verdict_pill(rule.verdict), rule.wanted, rule.found) for rule in gate.rules]
    passed = sum(rule.verdict is Verdict.PASS for rule in gate.rules)
    caption = f"{passed} of {len(gate.rules)} rules passed"
    return section("Gate", table(caption, ("Rule", "Verdict", "Wanted", "Found"), rows))


def parity_section(manifest: Manifest) -> Markup:
    """Who was compared with whom, and how far apart they are."""
    parts: list[str] = []
    accuracy = manifest.accuracy
    if accuracy is not None:
        row = (
            accuracy.metric,
            f"{accuracy.fp32:.4f}",
            f"{accuracy.artifact:.4f}",
            f"{accuracy.drop:+.4f}",
            str(accuracy.samples),
        )
        head = ("Metric", "fp32", "Artifact", "Drop", "Samples")
        parts.append(table("The task's metric", head, [row], numbers=(1, 2, 3, 4)))
    if manifest.parity is None:
        parts.append(element("p", "No parity was measured."))
        return section("Accuracy and parity", *parts)
    parts.extend(_parity_parts(manifest.parity))
    return section("Accuracy and parity", *parts)


def _parity_parts(parity: Parity) -> list[str]:
    rows = [_row(comparison, output) for comparison in parity.comparisons for output in comparison.outputs]
    head = ("Engine", "Basis", "Against", "Output", "Samples", "Cosine", "SQNR", "Top-1 agrees", "Max abs")
    parts: list[str] = [table("Outputs of the artifact against its references", head, rows, numbers=(4, 5, 6, 7, 8))]
    if parity.skipped:
        words = "Could not open it, while another engine could:"
        parts.append(element("p", words, class_="note"))
        parts.append(element("ul", *(element("li", engine) for engine in parity.skipped), class_="reasons"))
    if parity.reasons:
        parts.append(element("ul", *(element("li", reason) for reason in parity.reasons), class_="reasons"))
    if parity.first_divergence:
        caption = "Where it goes wrong, earliest tensor first"
        rows_inside = [_divergence_row(tensor) for tensor in parity.first_divergence]
        parts.append(table(caption, ("Node", "Tensor", "SQNR", "Cosine"), rows_inside, numbers=(2, 3)))
    return parts


def _row(comparison: Comparison, output: OutputParity) -> tuple[str, ...]:
    return (
        comparison.engine,
        comparison.basis,
        comparison.reference,
        output.output,
        str(comparison.samples),
        _cosine(output.cosine) if output.finite else "not finite",
        _sqnr(output),
        "no classes" if output.top1_agreement is None else f"{output.top1_agreement:.1%}",
        "not finite" if output.max_abs is None else f"{output.max_abs:.4g}",
    )


def _divergence_row(tensor: Divergence) -> tuple[str, ...]:
    sqnr = "equal" if tensor.sqnr_db is None else f"{tensor.sqnr_db:.1f} dB"
    return tensor.node, tensor.tensor, sqnr, _cosine(tensor.cosine)


def _cosine(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.6f}"


def _sqnr(output: OutputParity) -> str:
    if output.sqnr_db is not None:
        return f"{output.sqnr_db:.1f} dB"
    return "equal" if output.finite else "not finite"
