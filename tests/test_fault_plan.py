"""Plans: strict text in, faults in the order of time out."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npuops.errors import OptionError
from npuops.vnpu.fault_plan import FaultPlan, parse_plan
from npuops.vnpu.faults import Fault, Kind
from npuops.vnpu.tenancy import Priority

PLAN = """
seed = 7
[[fault]]
kind = "hang"
at_s = 60
[[fault]]
kind = "slow_dma"
at_s = 30.0
jitter_s = 5.0
for_s = 20.0
factor = 4
[[fault]]
kind = "noisy_neighbour"
at_s = 0.5
priority = "focus"
"""


def test_a_plan_is_read_in_the_order_of_time() -> None:
    plan = parse_plan(PLAN)
    assert [fault.kind for fault in plan.faults] == [Kind.NOISY_NEIGHBOUR, Kind.SLOW_DMA, Kind.HANG]
    assert plan.faults[0].priority is Priority.FOCUS
    assert plan.faults[0].at_us == 500_000
    assert plan.faults[1].for_us == 20_000_000


def test_the_seed_chooses_the_moment_and_chooses_it_again() -> None:
    moments = {parse_plan(PLAN.replace("seed = 7", f"seed = {seed}")).faults[1].at_us for seed in range(50)}
    assert len(moments) == 50
    assert all(30_000_000 <= moment < 35_000_000 for moment in moments)
    assert parse_plan(PLAN) == parse_plan(PLAN)


def test_a_fault_is_active_from_its_beginning_to_just_before_its_end() -> None:
    slow = Fault(kind=Kind.SLOW_DMA, at_us=10, for_us=5, factor=2.0)
    plan = FaultPlan((slow, Fault(kind=Kind.RESET, at_us=12)))
    assert [plan.active(moment) for moment in (9, 10, 14, 15)] == [(), (slow,), (slow,), ()]
    assert [plan.next_us(moment) for moment in (0, 10, 12, 15)] == [10, 12, 15, None]
    assert plan.over_at(15) == (slow,)
    assert plan.without((slow,)).faults == (plan.faults[1],)


def test_what_is_over_is_forgotten_and_the_rest_is_not() -> None:
    plan = FaultPlan((Fault(kind=Kind.RESET, at_us=5), Fault(kind=Kind.SLOW_DMA, at_us=3, for_us=4, factor=2.0)))
    assert [len(plan.from_now(moment).faults) for moment in (0, 4, 5, 6, 7)] == [2, 2, 1, 1, 0]


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20) | st.none()), max_size=12), st.integers(0, 80))
def test_walking_from_moment_to_moment_misses_no_change(spans: list[tuple[int, int | None]], now_us: int) -> None:
    plan = FaultPlan(tuple(Fault(kind=Kind.SLOW_DMA, at_us=at, for_us=lasts, factor=2.0) for at, lasts in spans))
    open_, moment = 0, plan.next_us(-1)
    while moment is not None and moment <= now_us:
        open_ += len(plan.begun_at(moment)) - len(plan.over_at(moment))
        moment = plan.next_us(moment)
    assert open_ == len(plan.active(now_us))
    assert all(fault.end_us == math.inf or fault.end_us > now_us for fault in plan.active(now_us))


@pytest.mark.parametrize(
    ("text", "message", "advice"),
    [
        ("sed = 1", "unknown key 'sed'", "did you mean 'seed'?"),
        ("seed = 'x'", "seed must be a whole number", ""),
        ("seed = true", "seed must be a whole number", ""),
        ("fault = 3", "fault a list of tables", ""),
        ("fault = [3]", "fault 1 is not a table", ""),
        ("[[fault]]\nkind = 'hang'", "fault 1 needs kind and at_s", ""),
        ("[[fault]]\nkind = 'hagn'\nat_s = 1", "unknown kind 'hagn'", "did you mean 'hang'?"),
        ("[[fault]]\nkind = 'hang'\nat = 1", "unknown key 'at'", "did you mean"),
        ("[[fault]]\nkind = 'hang'\nat_s = '1'", "at_s must be a number from 0 to 1000000000, found '1'", ""),
        ("[[fault]]\nkind = 'hang'\nat_s = nan", "at_s must be a number", ""),
        ("[[fault]]\nkind = 'hang'\nat_s = -1", "at_s must be a number from 0 to 1000000000", ""),
        ("[[fault]]\nkind = 'hang'\nat_s = true", "at_s must be a number", ""),
        ("[[fault]]\nkind = 'hang'\nat_s = 1e308", "at_s must be a number from 0", ""),
        (f"[[fault]]\nkind = 'hang'\nat_s = 1{'0' * 400}", "at_s must be a number from 0", ""),
        ("[[fault]]\nkind = 'wrong_output'\nat_s = 1\nop = 'Conv'\nrate = 2\nbit = 1", "rate must be from 0 to 1", ""),
        ("[[fault]]\nkind = 'reset'\nat_s = 1\nfor_s = 2", "fault 1: reset takes no for_s", "nothing but its time"),
        ("[[fault]]\nkind = 'hang'\nat_s = 1\nfor_s = 1e-9", "for_s must be at least a microsecond, 1e-6", ""),
        ("[[fault]]\nkind = 'unsupported_op'\nat_s = 1\nop = ''", "op must be a word", ""),
        ("[[fault]]\nkind = 'slow_dma'\nat_s = 1\nfactor = 1e6", "factor must be from 1 to 1000", ""),
        ("seed = 1" + "0" * 5000, "is not TOML", ""),
        ("fault = " + "[" * 5000, "is not TOML", ""),
        ("[[fault]]\nkind = 'slow_dma'\nat_s = 1", "slow_dma needs factor", "it takes factor, for_s"),
        ("[[fault]]\nkind = 'ecc_corrected'\nat_s = 1\ncount = 1.5", "count must be a whole number", ""),
        ("[[fault]]\nkind = 'noisy_neighbour'\nat_s = 1\npriority = 'high'", "unknown priority 'high'", "focus"),
        ("[[fault", "is not TOML", ""),
    ],
)
def test_what_a_plan_may_not_say_is_named(text: str, message: str, advice: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse_plan(text, where="plan.toml")
    assert "plan.toml" in caught.value.message
    assert message in caught.value.message
    assert advice in caught.value.advice
