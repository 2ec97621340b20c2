"""Version pins: what holds, what does not, and what cannot be said."""

from __future__ import annotations

import pytest

from npuops.build.version_pins import parse_pin, satisfies
from npuops.errors import OptionError


@pytest.mark.parametrize(
    ("version", "spec", "answer"),
    [
        ("2.7.0", "==2.7.0", True),
        ("2.7.0", "==2.7", True),
        ("2.7.1", "==2.7", False),
        ("2.7.1", "==2.7.*", True),
        ("2.70.1", "==2.7.*", False),
        ("2", "==2.0.*", True),
        ("2.7.1", "!=2.7.*", False),
        ("2.10", ">=2.9", True),
        ("2.10", ">=2.7, <3", True),
        ("3.0.0", ">=2.7,<3", False),
        ("2.7", "<=2.7.0", True),
        ("2.7", ">2.7.0", False),
        ("2.7.0+cu12", "==2.7.0+cu12", True),
        ("2.7.0+cu12", "==2.7.0", False),
        ("2.7.0+cu12", "!=2.7.0", True),
        ("2.8rc1", ">=2.7", None),
        ("1" * 5000, ">=2.7", None),
        ("2.8rc1", "==2.8.*", None),
        ("2.8rc1", ">=2.7,==2.8rc2", False),
    ],
)
def test_a_version_obeys_a_pin_or_not_or_cannot_be_ordered(version: str, spec: str, answer: bool | None) -> None:
    assert satisfies(version, spec) is answer


@pytest.mark.parametrize("spec", ["", "2.7", "=2.7", "~=2.7", ">=2.7,", ">=2.7.*", ">=2.7rc1", "==1 2", "==2.x.*"])
def test_a_pin_that_cannot_be_read_is_refused(spec: str) -> None:
    with pytest.raises(OptionError, match="version pin"):
        parse_pin(spec)
