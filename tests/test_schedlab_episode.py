"""A mix under a policy in the simulator: the same loop as on the real machine."""

from __future__ import annotations

from npuops.eevdf.rules import Rules
from npuops.hostsched.guard import Guard
from npuops.hostsched.guard_options import GuardOptions
from npuops.hostsched.reactive import Reactive
from npuops.hostsched.static_policy import Default
from npuops.schedlab.comparison import progress_by_task
from npuops.schedlab.episode import play_under
from npuops.schedlab.mixes import by_name, four_phase
from npuops.schedlab.outcome import judge

MIX = four_phase(phase_s=0.6)
EVERYBODY = tuple(player.name for player in MIX.players)


def test_the_reactive_rule_that_is_told_keeps_more_answers_in_time_and_starves_nobody() -> None:
    default = judge(play_under(Default(), MIX, 1, Rules()))
    acted = judge(play_under(Reactive(), MIX, 1, Rules(), telling=EVERYBODY, pinned=True))
    assert default.slo_share is not None
    assert acted.slo_share is not None
    assert acted.slo_share > default.slo_share + 0.3
    assert min(progress_by_task(acted, default).values()) > 0.5


def test_a_guard_that_refuses_everything_leaves_the_default() -> None:
    refusing = Guard(GuardOptions(allowed=frozenset()))
    default = judge(play_under(Default(), MIX, 1, Rules()))
    refused = judge(play_under(Reactive(), MIX, 1, Rules(), telling=EVERYBODY, guard=refusing))
    assert refused.slo_share == default.slo_share
    assert refused.switches == default.switches


def test_the_same_play_twice_is_the_same() -> None:
    mix = by_name("stationary")
    one, other = (judge(play_under(Reactive(), mix, 4, Rules())) for _ in range(2))
    assert one == other
