"""The worst figure of an artifact, for a table that has room for one."""

from __future__ import annotations

from manifest_examples import comparison, manifest, output, parity
from npuops.report.against_fp32 import worst_agreement, worst_cosine


def test_the_worst_output_of_the_worst_engine_counts_and_only_against_fp32() -> None:
    outputs = (output(cosine=0.99, top1_agreement=None), output(cosine=0.97, top1_agreement=0.9))
    other = comparison(reference="quantized", outputs=(output(cosine=0.1, top1_agreement=0.1),))
    found = manifest(parity=parity(comparison(), comparison(outputs=outputs), other))
    assert (worst_cosine(found), worst_agreement(found)) == (0.97, 0.9)


def test_nothing_measured_and_not_finite_have_no_figure() -> None:
    nan = output(cosine=None, max_abs=None, top1_agreement=None, finite=False)
    for proof in (None, parity(comparison(outputs=(output(), nan)))):
        assert worst_cosine(manifest(parity=proof)) is None
        assert worst_agreement(manifest(parity=proof)) is None
