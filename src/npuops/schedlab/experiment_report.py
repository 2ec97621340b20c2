"""The report of an experiment: for programs as JSON, for people as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec
import numpy as np

from npuops.schedlab.comparison import Estimate
from npuops.schedlab.energy_figures import EnergyStanding, energies, energy_section, energy_words
from npuops.schedlab.estimate_words import as_count, as_ratio, in_fine_percent, in_ms, in_percent, in_points, told
from npuops.schedlab.experiment_figures import Standing, mix_harms, standings
from npuops.schedlab.experiment_goals import Goal, goals, over_mixes, p99_log, slo_gain
from npuops.schedlab.harms import FLOOR, Harm
from npuops.schedlab.mixes import CONTROLS, HELD_OUT
from npuops.schedlab.outcome import CLEAN
from npuops.schedlab.played import AnyPlayed, Head, Played, ProgramPlayed
from npuops.schedlab.program_figures import ProgramFigures
from npuops.schedlab.program_report import program_section
from npuops.schedlab.recording import Origin
from npuops.schedlab.rival_names import DEFAULT, place_of
from npuops.schedlab.trouble_words import troubles

SCHEMA: Final = "npuops.hostsched.bench/1"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All that an experiment came to.

    Attributes:
        schema: of this document.
        head: what held for all plays.
        rivals: what each is, by name.
        goals: met or missed.
        standings: of each rival on each mix.
        harms: beside the default, on each mix.
        programs: what real programs came to; without plays if none were asked for.
        energies: of each rival on each mix and on each load of programs, where they were measured.
        missing: plays that were asked for and not begun, by mix or load: the time was over.
    """

    schema: str
    head: Head
    rivals: dict[str, str]
    goals: list[Goal]
    standings: list[Standing]
    harms: list[Harm]
    programs: ProgramFigures
    energies: list[EnergyStanding]
    missing: dict[str, int]


NO_PROGRAMS: Final = ProgramFigures(loads={}, rivals={}, left_out={}, standings=[], harms=[], energies=[])


def report(
    head: Head,
    plays: Sequence[Played],
    rivals: dict[str, str],
    programs: ProgramFigures = NO_PROGRAMS,
    missing: Mapping[str, int] | None = None,
) -> Report:
    """Of all plays that there are so far."""
    order = {name: place for place, name in enumerate((*HELD_OUT, *CONTROLS))}
    known = sorted(standings(plays), key=lambda one: (order.get(one.mix, len(order)), one.mix, place_of(one.label)))
    beside = sorted(mix_harms(plays), key=lambda one: (order.get(one.mix, len(order)), one.mix, place_of(one.label)))
    return Report(
        schema=SCHEMA,
        head=head,
        rivals=rivals,
        goals=goals(plays, known, [*beside, *programs.harms]),
        standings=known,
        harms=beside,
        programs=programs,
        energies=[*energies(plays), *programs.energies],
        missing=dict(missing or {}),
    )


def markdown(found: Report, plays: Sequence[Played], programs: Sequence[ProgramPlayed] = ()) -> str:
    """For people, with everything that a reader needs to doubt it."""
    of_mixes = [*_summary(plays), *_tables(found.standings)] if plays or not programs else []
    return "\n".join(
        [
            *_head(found.head, [*plays, *programs]),
            *_missing(found.missing),
            *_goals(found.goals),
            *of_mixes,
            *program_section(found.programs, programs),
            *_harms([*found.harms, *found.programs.harms]),
            *energy_section(found.energies),
            *(_rivals(found.rivals) if of_mixes else ()),
            *_troubles(found.standings),
        ]
    )


def _head(head: Head, plays: Sequence[AnyPlayed]) -> Iterator[str]:
    kernel = f"the kernel of this machine ({head.kernel}, {head.cpus} CPUs)"
    where = f"on {kernel}" if head.on is Origin.KERNEL else f"in the simulator ({head.scheduler.upper()})"
    yield f"# Host scheduling: rivals {where}"
    yield ""
    repeats = len({played.repeat for played in plays})
    yield f"- {len(plays)} plays, {repeats} repeats with arrivals of their own; seed {head.seed}; npuops {head.version}"
    yield "- figures are medians of the repeats, in parentheses the 95 % bootstrap interval of the median"
    yield "- a request that is never answered is a miss"
    if any(isinstance(played, Played) for played in plays):
        yield "- *worst job*: progress of the slowest batch task over all phases, relative to the default's play with"
        yield "  the same arrivals; *in its worst phase*: of single phases, noisy where they are short"
    share = f"{100 * head.control_share:g} %"
    yield f"- under `learned` forecasts were not followed, for comparison, in {share} of the time"
    if head.quick:
        yield "- **quick**: phases and plays were cut short; these figures show that it works, and prove nothing"
    if head.on is Origin.KERNEL:
        yield f"- an agent may take {100 * head.cpu_share:g} % of one core on average, with its reaper;"
        yield "  in the first repeat it also records what it does, which is no part of its work elsewhere"
        repeated = sum(played.tries > 1 for played in plays)
        dirty = sum(played.outcome is not None and not played.outcome.is_clean for played in plays)
        yield f"- {repeated} plays were repeated because others took more than {100 * (1 - CLEAN):.0f} % of their CPUs;"
        yield f"  {dirty} stayed so, and are counted in (*unclean*)"
    else:
        yield "- in the simulator nobody else takes time, and no agent costs any"
    yield f"- {energy_words(plays)}"
    yield ""


def missing_words(missing: Mapping[str, int]) -> str:
    """`3 of crowd, 2 of idle`."""
    return ", ".join(f"{count} of {name}" for name, count in missing.items())


def _missing(missing: Mapping[str, int]) -> Iterator[str]:
    if missing:
        yield f"**Not finished**: the time was over, and {sum(missing.values())} plays are missing: "
        yield f"{missing_words(missing)}. `--resume` goes on."
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
        yield f"| {label} | {len(mixes)} | {told(slo, in_points)} | {told(times, as_ratio)} |"
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
        told(it.slo_share, in_percent),
        told(one.p50_us, in_ms),
        told(it.p99_us, in_ms),
        told(one.max_us, in_ms),
        told(it.worst_task_progress, in_percent),
        told(it.worst_progress, in_percent),
        told(it.fairness, as_ratio),
        told(it.switches_per_s, as_count),
        told(one.agent_share, in_fine_percent),
        f"{one.plays} ({it.unclean})",
    ]
    return f"| {one.label} | " + " | ".join(cells) + " |"


def _harms(found: Sequence[Harm]) -> Iterator[str]:
    yield "## Do no harm"
    yield ""
    yield "The difference to the default, play by play with the same arrivals: requests in time in points, p99 and"
    yield "batch progress in percent of the default's; below 0 is worse. *noise*: of a second default. Where somebody"
    yield f"serves, the batch side may pay for it, down to {100 * FLOOR:.0f} %."
    yield ""
    yield "| load | rival | measure | difference | noise | |"
    yield "|---|---|---|---|---|---|"
    for harm in found:
        noise = told(harm.noise, in_points)
        verdict = "**worse**" if harm.harmed else "no harm"
        found_words = told(harm.difference, in_points)
        yield f"| {harm.mix} | {harm.label} | {harm.measure} | {found_words} | {noise} | {verdict} |"
    yield ""


def _rivals(rivals: dict[str, str]) -> Iterator[str]:
    yield "## Rivals"
    yield ""
    yield from (f"- **{name}**: {note}" for name, note in rivals.items())
    yield "- *+ hints*: the apps tell the agent what they do, every 10 ms; without, it has the kernel's counters only"
    yield ""


def _troubles(found: Sequence[Standing]) -> Iterator[str]:
    lines = troubles([(one.mix, one) for one in found])
    if lines:
        yield from ("## What did not work", "", *lines, "")
