"""The goals of the experiment, stated before it was run, and whether they were met.

What spans mixes is taken repeat by repeat, both rivals with the same arrivals, and then told as a median with its
interval.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final

import msgspec
import numpy as np

from npuops.schedlab.comparison import Estimate, estimate, progress_by_task
from npuops.schedlab.experiment_figures import Standing
from npuops.schedlab.harms import FLOOR, Harm
from npuops.schedlab.mixes import HELD_OUT
from npuops.schedlab.outcome import Outcome
from npuops.schedlab.played import Played
from npuops.schedlab.rival_names import AGENTS, DEFAULT, HEARING, LEARNED, ORACLE, ORACLE_IDLE, REACTIVE, TUNED

MORE_SLO: Final = 0.02
LESS_P99: Final = 0.75
EQUAL_PROGRESS: Final = 0.02
"""Worst-job progress counts as equal if it is not more than this below the other's."""
OF_ORACLE: Final = 0.97
TIMES_P99: Final = 4.0
AGENT_SHARE: Final = 0.01

Figure = Callable[[Outcome, Outcome, Outcome], float | None]
"""Of a rival's play, of another's, and of the default's, all of the same mix and repeat."""


class Goal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One goal for one rival.

    Attributes:
        label: of the rival.
        goal: in words.
        found: in words.
        met: None where it could not be measured.
    """

    label: str
    goal: str
    found: str
    met: bool | None


def goals(plays: Sequence[Played], standings: Sequence[Standing], harms: Sequence[Harm]) -> list[Goal]:
    """Of each rival that runs through the agent and was played.

    Args:
        plays: of mixes.
        standings: on mixes.
        harms: on mixes and real programs; who played only programs is judged by these alone.
    """
    outcomes = {played.key: played.outcome for played in plays if played.outcome is not None}
    labels = [label for label in AGENTS if any(key[1] == label for key in outcomes)]
    found = []
    for label in AGENTS:
        if label not in labels:
            found += [_harms_nobody(label, harms)] if any(harm.label == label for harm in harms) else []
            continue
        hears = HEARING if label.endswith(HEARING) else ""
        if label == LEARNED + hears:
            rule = next((one for one in (TUNED + hears, REACTIVE + hears) if one in labels), None)
            found.append(_beats_rule(outcomes, label, rule))
        found += [_near_oracle(outcomes, label), _beats_default(outcomes, label, standings)]
        found += [_costs_little(label, standings), _harms_nobody(label, harms)]
    return found


def over_mixes(
    outcomes: dict[tuple[str, str, int], Outcome], ours: str, theirs: str, figure: Figure, mixes: Collection[str] = ()
) -> Estimate | None:
    """The mean over the held-out mixes that both played, for each repeat that is complete."""
    both = [
        mix
        for mix in mixes or HELD_OUT
        if all(any(key[:2] == (mix, label) for key in outcomes) for label in (ours, theirs, DEFAULT))
    ]
    means: list[float | None] = []
    for repeat in sorted({key[2] for key in outcomes}):
        keys = [tuple((mix, label, repeat) for label in (ours, theirs, DEFAULT)) for mix in both]
        if not both or any(key not in outcomes for each in keys for key in each):
            continue
        values = [figure(*(outcomes[key] for key in each)) for each in keys]
        present = [value for value in values if value is not None]
        means.append(float(np.mean(present)) if present else None)
    return estimate(means)


def slo_gain(ours: Outcome, theirs: Outcome, _default: Outcome) -> float | None:
    """Share of requests in time, less the other's."""
    return None if ours.slo_share is None or theirs.slo_share is None else ours.slo_share - theirs.slo_share


def slo_ratio(ours: Outcome, theirs: Outcome, _default: Outcome) -> float | None:
    """Share of requests in time, by the other's."""
    return None if ours.slo_share is None or not theirs.slo_share else ours.slo_share / theirs.slo_share


def p99_log(ours: Outcome, theirs: Outcome, _default: Outcome) -> float | None:
    """Logarithm of p99 by the other's: its mean is that of a geometric mean."""
    return None if not ours.p99_us or not theirs.p99_us else float(np.log(ours.p99_us / theirs.p99_us))


def progress_gain(ours: Outcome, theirs: Outcome, default: Outcome) -> float | None:
    """Progress of the worst job, less that of the other's worst job."""
    mine, other = worst_job(ours, default), worst_job(theirs, default)
    return None if mine is None or other is None else mine - other


def worst_job(ours: Outcome, default: Outcome) -> float | None:
    """Progress of the slowest batch task over all phases, relative to the default."""
    return min(progress_by_task(ours, default).values(), default=None)


def _beats_rule(outcomes: dict[tuple[str, str, int], Outcome], label: str, rule: str | None) -> Goal:
    words = (
        f"+{100 * MORE_SLO:.0f} points of requests in time, or {100 * (1 - LESS_P99):.0f} % less p99, "
        f"than {rule or 'the tuned rule'} on held-out mixes at equal worst-job progress"
    )
    if rule is None:
        return Goal(label=label, goal=words, found="the rule was not played", met=None)
    slo, log, progress = (over_mixes(outcomes, label, rule, figure) for figure in (slo_gain, p99_log, progress_gain))
    if slo is None or log is None or progress is None:
        return Goal(label=label, goal=words, found="no repeat is complete", met=None)
    found = (
        f"{100 * slo.median:+.1f} points ({100 * slo.low:+.1f} to {100 * slo.high:+.1f}), p99 times "
        f"{np.exp(log.median):.2f} ({np.exp(log.low):.2f} to {np.exp(log.high):.2f}), worst job "
        f"{100 * progress.median:+.1f} points ({100 * progress.low:+.1f} to {100 * progress.high:+.1f})"
    )
    won = slo.median >= MORE_SLO or np.exp(log.median) <= LESS_P99
    return Goal(label=label, goal=words, found=found, met=bool(won and progress.median >= -EQUAL_PROGRESS))


def _near_oracle(outcomes: dict[tuple[str, str, int], Outcome], label: str) -> Goal:
    words = f"{100 * OF_ORACLE:.0f} % of the oracle's requests in time"
    ratios = {
        name: ratio
        for name in (ORACLE, ORACLE_IDLE)
        if (ratio := over_mixes(outcomes, label, name, slo_ratio)) is not None
    }
    if not ratios:
        return Goal(label=label, goal=words, found="no oracle was played", met=None)
    name, ratio = min(ratios.items(), key=lambda each: each[1].median)  # the harder one counts
    found = f"{100 * ratio.median:.1f} % ({100 * ratio.low:.1f} to {100 * ratio.high:.1f}) of that of `{name}`"
    return Goal(label=label, goal=words, found=found, met=ratio.median >= OF_ORACLE)


def _beats_default(outcomes: dict[tuple[str, str, int], Outcome], label: str, standings: Sequence[Standing]) -> Goal:
    words = f"p99 {TIMES_P99:g} times lower than the default's, every batch job at {100 * FLOOR:.0f} % of its progress"
    log = over_mixes(outcomes, label, DEFAULT, p99_log)
    worst = {
        one.mix: one.compared.worst_task_progress.median
        for one in standings
        if one.label == label and one.mix in HELD_OUT and one.compared and one.compared.worst_task_progress
    }
    if log is None or not worst:
        return Goal(label=label, goal=words, found="no repeat is complete", met=None)
    low = min(worst, key=lambda mix: worst[mix])
    found = (
        f"{np.exp(-log.median):.1f} times lower ({np.exp(-log.high):.1f} to {np.exp(-log.low):.1f}), "
        f"worst job at {100 * worst[low]:.0f} % (in {low}{_left_by_oracle(low, standings)}); below the floor in "
        f"{sum(value < FLOOR for value in worst.values())} of {len(worst)} mixes"
    )
    return Goal(
        label=label, goal=words, found=found, met=bool(np.exp(-log.median) >= TIMES_P99 and worst[low] >= FLOOR)
    )


def _left_by_oracle(mix: str, standings: Sequence[Standing]) -> str:
    """Who serves requests that the default lets wait takes that time from somebody, whoever it is."""
    for one in standings:
        if (one.mix, one.label) == (mix, ORACLE) and one.compared and one.compared.worst_task_progress:
            return f", where the oracle leaves it {100 * one.compared.worst_task_progress.median:.0f} %"
    return ""


def _costs_little(label: str, standings: Sequence[Standing]) -> Goal:
    words = f"agent and reaper take at most {100 * AGENT_SHARE:g} % of one core"
    shares = {one.mix: one.agent_share.median for one in standings if one.label == label and one.agent_share}
    if not shares:
        return Goal(label=label, goal=words, found="not measured: no agent runs in the simulator", met=None)
    most = max(shares, key=lambda mix: shares[mix])
    found = f"{100 * float(np.median(list(shares.values()))):.2f} %, at most {100 * shares[most]:.2f} % (in {most})"
    return Goal(label=label, goal=words, found=found, met=shares[most] <= AGENT_SHARE)


def _harms_nobody(label: str, harms: Sequence[Harm]) -> Goal:
    words = "never worse than the default beyond noise, on any load"
    these = [harm for harm in harms if harm.label == label]
    worse = [f"{harm.mix} ({harm.measure} {100 * harm.difference.median:+.1f})" for harm in these if harm.harmed]
    found = f"worse on {', '.join(worse)}" if worse else f"on none of {len(these)}"
    return Goal(label=label, goal=words, found=found, met=None if not these else not worse)
