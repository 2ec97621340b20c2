"""A fault says neither too little nor too much."""

from __future__ import annotations

import math
from typing import Any

import pytest

from npuops.errors import OptionError
from npuops.vnpu.faults import TAKES, Fault, Kind
from npuops.vnpu.tenancy import Priority
from npuops.vnpu.versions import Part

FIGURES: dict[str, Any] = {
    "count": 3,
    "share": 0.5,
    "op": "Conv",
    "rate": 0.1,
    "bit": 6,
    "factor": 2.0,
    "part": Part.FIRMWARE,
    "version": "9.0",
    "priority": Priority.NORMAL,
}


def figures(kind: Kind) -> dict[str, Any]:
    return {name: FIGURES[name] for name in TAKES[kind] - {"for_us"}}


@pytest.mark.parametrize("kind", Kind)
def test_each_kind_takes_its_own_figures_and_no_others(kind: Kind) -> None:
    assert Fault(kind=kind, **figures(kind)).kind is kind
    for missing in figures(kind):
        rest = {name: value for name, value in figures(kind).items() if name != missing}
        with pytest.raises(OptionError, match=f"{kind} needs {missing}"):
            Fault(kind=kind, **rest)
    for surplus in set(FIGURES) - TAKES[kind]:
        with pytest.raises(OptionError, match=f"{kind} takes no {surplus}"):
            Fault(kind=kind, **figures(kind), **{surplus: FIGURES[surplus]})


@pytest.mark.parametrize("kind", Kind)
def test_a_fault_is_over_at_once_or_after_its_time_or_when_it_is_cleared(kind: Kind) -> None:
    fault = Fault(kind=kind, at_us=5, **figures(kind))
    if fault.lasts:
        assert fault.end_us == math.inf
        assert Fault(kind=kind, at_us=5, for_us=10, **figures(kind)).end_us == 15
    else:
        assert fault.end_us == 5
        with pytest.raises(OptionError, match="takes no for_s"):
            Fault(kind=kind, for_us=10, **figures(kind))


@pytest.mark.parametrize(
    ("name", "value"),
    [("share", 1.5), ("rate", -0.1), ("bit", 8), ("factor", 0.5), ("count", 0), ("at_us", -1), ("rate", math.nan)],
)
def test_an_impossible_figure_is_refused(name: str, value: float) -> None:
    kind = next(kind for kind in Kind if name in TAKES[kind] or name == "at_us")
    with pytest.raises(OptionError, match=f"{name} must be from"):
        Fault(kind=kind, **figures(kind) | {name: value})


def test_an_operator_may_come_from_another_domain() -> None:
    assert Fault(kind=Kind.UNSUPPORTED_OP, op="com.microsoft:Attention").op == "com.microsoft:Attention"


@pytest.mark.parametrize("text", ["", "two words", "two\nlines", "x" * 65])
@pytest.mark.parametrize("name", ["op", "version"])
def test_a_word_that_would_do_nothing_or_spoil_a_line_is_refused(name: str, text: str) -> None:
    kind = next(kind for kind in Kind if name in TAKES[kind])
    with pytest.raises(OptionError, match=f"{name} must be a word"):
        Fault(kind=kind, **figures(kind) | {name: text})
