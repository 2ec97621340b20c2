"""The policy file: strict, and never one that lets everything through by accident."""

from __future__ import annotations

from pathlib import Path

import pytest

from npuops.build.policy import GatePolicy, LatencyPolicy
from npuops.config import load_options
from npuops.errors import OptionError
from npuops.units import Basis

FULL = """
[accuracy.top1]
max_drop = 0.01
min_value = 0.7
min_samples = 200

[parity]
against = "quantized"
min_cosine = 0.99
min_sqnr_db = 20
max_abs = 0.1
min_top1_agreement = 0.98
min_samples = 50

[placement]
max_fallback_ops = 0.0
max_fallback_macs = 0.02

[size]
max_bytes = 5_000_000

[latency]
max_us = 8000
basis = "vendor-estimate"

[signature]
required = true
trusted_keys = ["release.pub"]

[toolchain]
onnxruntime-qnn = "==2.7.*"
"""


def load(tmp_path: Path, text: str) -> GatePolicy:
    path = tmp_path / "gate.toml"
    path.write_text(text, encoding="utf-8")
    return load_options(GatePolicy, path)


def test_every_section_is_read(tmp_path: Path) -> None:
    policy = load(tmp_path, FULL)
    assert policy.accuracy == {"top1": {"max_drop": 0.01, "min_value": 0.7, "min_samples": 200}}
    assert policy.parity.against == "quantized"
    assert policy.latency == LatencyPolicy(max_us=8000, basis=Basis.VENDOR_ESTIMATE)
    assert policy.signature.trusted_keys == ("release.pub",)
    assert policy.toolchain == {"onnxruntime-qnn": "==2.7.*"}


def test_the_policy_of_the_docs_is_one(tmp_path: Path) -> None:
    page = (Path(__file__).parent.parent / "docs" / "gate.md").read_text(encoding="utf-8")
    policy = load(tmp_path, page.split("```toml\n")[1].split("```")[0])
    assert policy.latency.basis is Basis.VENDOR_ESTIMATE
    assert policy.toolchain["onnxruntime"] == ">=1.31,<1.32"


def test_an_empty_file_is_the_default_policy(tmp_path: Path) -> None:
    assert load(tmp_path, "") == GatePolicy()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[parity]\nmin_cosin = 0.9", "min_cosin"),
        ("[accuracy.top1]\nmax_dropp = 0.01", "max_dropp"),
        ("[accuracy]\nmax_drop = 0.01", "accuracy"),
        ("[accuracy.top1]\nmin_samples = 5", "limits nothing"),
        ("[accuracy.top1]\nmax_drop = nan", "finite"),
        ("[parity]\nmin_cosine = -inf", "finite"),
        ("[placement]\nmax_fallback_ops = 5", "max_fallback_ops = 0.05"),
        ("[placement]\nmax_fallback_macs = -0.1", "within 0 to 1"),
        ("[parity]\nmin_top1_agreement = 98", "within 0 to 1"),
        ("[latency]\nmax_us = 5000", "basis"),
        ('[latency]\nmax_us = 5000\nbasis = "guessed"', "guessed"),
        ("[signature]\nrequired = true", "trusted_keys"),
        ('[toolchain]\nqairt = "2.51"', "version pin"),
        ('[size]\nmax_bytes = "5 MB"', "max_bytes"),
    ],
)
def test_a_slip_is_an_error_that_names_it(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(OptionError) as caught:
        load(tmp_path, text)
    assert says in f"{caught.value.message} {caught.value.advice}"
