"""The report of an experiment: for programs as JSON, for people as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec
import numpy as np

from npuops.schedlab.comparison import Estimate
from npuops.schedlab.experiment_figures import Harm, Standing, harms, standings
from npuops.schedlab.experiment_goals import Goal, goals, over_mixes, p99_log, slo_gain
from npuops.schedlab.mixes import CONTROLS, HELD_OUT
from npuops.schedlab.outcome import CLEAN
from npuops.schedlab.played import Head, Played
from npuops.schedlab.recording import Origin
from npuops.schedlab.rival_names import DEFAULT, place_of

SCHEMA: Final = "npuops.hostsched.bench/1"
_NO_FIGURE: Final = "-"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All that an experiment came to.

    Attributes:
        schema: of this document.
        head: what held for all plays.
        rivals: what each is, by name.
        goals: met or missed.
        standings: of each rival on each mix.
        harms: beside the default, on each mix.
    """

    schema: str
    head: Head
    rivals: dict[str, str]
    goals: list[Goal]
    standings: list[Standing]
    harms: list[Harm]


def report(head: Head, plays: Sequence[Played], rivals: dict[str, str]) -> Report:
    """Of all plays that there are so far."""
    order = {name: place for place, name in enumerate((*HELD_OUT, *CONTROLS))}
    known = sorted(standings(plays), key=lambda one: (order.get(one.mix, len(order)), one.mix, place_of(one.label)))
    beside = sorted(harms(plays), key=lambda one: (order.get(one.mix, len(order)), one.mix, place_of(one.label)))
    return Report(
        schema=SCHEMA, head=head, rivals=rivals, goals=goals(plays, known, beside), standings=known, harms=beside
    )


def markdown(found: Report, plays: Sequence[Played]) -> str:
    """For people, with everything that a reader needs to doubt it."""
    return "\n".join(
        [
            *_head(found.head, plays),
            *_goals(found.goals),
            *_summary(plays),
            *_tables(found.standings),
            *_harms(found.harms),
            *_rivals(found.rivals),
            *_troubles(found.standings),
        ]
    )


def _head(head: Head, plays: Sequence[Played]) -> Iterator[str]:
    where = f"the kernel of this machine ({head.kernel}, {head.cpus} CPUs)"
    yield f"# Host scheduling: {'rivals on ' + where if head.on is Origin.KERNEL else 'rivals in the simulator'}"
    yield ""
    repeats = len({played.repeat for played in plays})
    yield f"- {len(plays)} plays, {repeats} repeats with arrivals of their own; seed {head.seed}; npuops {head.version}"
    yield "- figures are medians of the repeats, in parentheses the 95 % bootstrap interval of the median"
    yield "- a request that is never answered is a miss"
    yield "- *worst job*: progress of the slowest batch task over all phases, relative to the default's play with the"
    yield "  same arrivals; *in its worst phase*: of single phases, noisy where they are short"
    share = f"{100 * head.control_share:g} %"
    yield f"- under `learned` everything was normal for comparison in {share} of the time, which costs it as much"
    if head.quick:
        yield "- **quick**: phases were cut to a second; these figures show that it works, and prove nothing"
    if head.on is Origin.KERNEL:
        repeated = sum(played.tries > 1 for played in plays)
        dirty = sum(played.outcome is not None and not played.outcome.is_clean for played in plays)
        yield f"- {repeated} plays were repeated because others took more than {100 * (1 - CLEAN):.0f} % of their CPUs;"
        yield f"  {dirty} stayed so, and are counted in (*unclean*)"
    else:
        yield "- in the simulator nobody else takes time, and no agent costs any"
    yield "- joules were not measured"
    yield ""


def _goals(found: Sequence[Goal]) -> Iterator[str]:
    yield "## Goals"
    yield ""
    yield "| rival | goal | found | |"
    yield "|---|---|---|---|"
    words = {True: "met", False: "**missed**", None: "unknown"}
    for goal in found:
        yield f"| {goal.label} | {goal.goal} | {goal.found} | {words[goal.met]} |"
    yield ""


def _summary(plays: Sequence[Played]) -> Iterator[str]:
    outcomes = {played.key: played.outcome for played in plays if played.outcome is not None}
    labels = sorted({key[1] for key in outcomes}, key=place_of)
    yield "## Over the held-out mixes"
    yield ""
    yield "Beside the default, repeat by repeat: requests in time in points, p99 as a factor (geometric mean)."
    yield ""
    yield "| rival | mixes | requests in time | p99 |"
    yield "|---|---|---|---|"
    for label in labels:
        mixes = {key[0] for key in outcomes if key[1] == label and key[0] in HELD_OUT}
        slo, log = (over_mixes(outcomes, label, DEFAULT, figure) for figure in (slo_gain, p99_log))
        times = (
            None
            if log is None
            else Estimate(
                median=float(np.exp(log.median)),
                low=float(np.exp(log.low)),
                high=float(np.exp(log.high)),
                plays=log.plays,
            )
        )
        yield f"| {label} | {len(mixes)} | {_words(slo, _points)} | {_words(times, _times)} |"
    yield ""


def _tables(found: Sequence[Standing]) -> Iterator[str]:
    for mix in dict.fromkeys(one.mix for one in found):
        yield f"## {mix}"
        yield ""
        yield (
            "| rival | requests in time % | p50 ms | p99 ms | max ms | worst job % | in its worst phase % | fairness "
            "| switches/s | agent % of a core | plays (unclean) |"
        )
        yield "|---|---|---|---|---|---|---|---|---|---|---|"
        for one in found:
            if one.mix == mix:
                yield _row(one)
        yield ""


def _row(one: Standing) -> str:
    if one.compared is None:
        why = "left out" if one.skipped else "broke off" if one.failed else "the default was not played"
        return f"| {one.label} | {why} " + "|" * 10
    it = one.compared
    cells = [
        _words(it.slo_share, _percent),
        _words(one.p50_us, _ms),
        _words(it.p99_us, _ms),
        _words(one.max_us, _ms),
        _words(it.worst_task_progress, _percent),
        _words(it.worst_progress, _percent),
        _words(it.fairness, _times),
        _words(it.switches_per_s, _count),
        _words(one.agent_share, _share),
        f"{one.plays} ({it.unclean})",
    ]
    return f"| {one.label} | " + " | ".join(cells) + " |"


def _harms(found: Sequence[Harm]) -> Iterator[str]:
    yield "## Do no harm"
    yield ""
    yield "The difference to the default, in points, play by play with the same arrivals; *noise*: of a second default."
    yield ""
    yield "| mix | rival | measure | difference | noise | |"
    yield "|---|---|---|---|---|---|"
    for harm in found:
        noise = _words(harm.noise, _points)
        verdict = "**worse**" if harm.harmed else "no harm"
        found_words = _words(harm.difference, _points)
        yield f"| {harm.mix} | {harm.label} | {harm.measure} | {found_words} | {noise} | {verdict} |"
    yield ""


def _rivals(rivals: dict[str, str]) -> Iterator[str]:
    yield "## Rivals"
    yield ""
    yield from (f"- **{name}**: {note}" for name, note in rivals.items())
    yield "- *+ hints*: the apps tell the agent what they do, every 10 ms; without, it has the kernel's counters only"
    yield ""


def _troubles(found: Sequence[Standing]) -> Iterator[str]:
    skipped: dict[tuple[str, str], list[str]] = {}
    for one in found:
        if one.skipped:
            skipped.setdefault((one.label, one.skipped), []).append(one.mix)
    troubles = [
        *(f"- {label} was left out on {', '.join(mixes)}: {why}" for (label, why), mixes in skipped.items()),
        *(f"- {one.label} on {one.mix} broke off: {words}" for one in found for words in one.failed),
        *(f"- {one.label} on {one.mix}: {one.stuck} things could not be put back" for one in found if one.stuck),
    ]
    if troubles:
        yield from ("## What did not work", "", *troubles, "")


def _words(figure: Estimate | None, write: Callable[[float], str]) -> str:
    if figure is None:
        return _NO_FIGURE
    if figure.plays == 1:
        return write(figure.median)
    return f"{write(figure.median)} ({write(figure.low)} to {write(figure.high)})"


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}"


def _share(value: float) -> str:
    return f"{100 * value:.2f}"


def _ms(value: float) -> str:
    ms = value / 1000
    return f"{ms:.0f}" if ms >= 100 else f"{ms:.2f}"


def _times(value: float) -> str:
    return f"{value:.2f}"


def _count(value: float) -> str:
    return f"{value:.0f}"
