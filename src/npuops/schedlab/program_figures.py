"""What real programs came to under each rival: figures beside the default, the best static setting, and no harm."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import msgspec

from npuops.schedlab.comparison import Estimate, estimate
from npuops.schedlab.energy_figures import EnergyStanding
from npuops.schedlab.harms import FLOOR, Harm, harms, program_measures
from npuops.schedlab.played import ProgramPlayed
from npuops.schedlab.program_outcome import ProgramOutcome
from npuops.schedlab.rival_names import DEFAULT, PROGRAM_NAMES, STATIC_SETTINGS, place_of


class ProgramStanding(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One rival on one load of real programs. Figures are None where no play has them.

    Attributes:
        load: its name.
        label: of the rival.
        slo_share: of the requests, answered in time.
        p50_us: of the response times.
        p99_us: likewise.
        max_us: likewise.
        batch_share: what the batch side did, relative to the default's play with the same arrivals.
        batch_per_s: what it did in each second.
        switches_per_s: context switches of the whole machine.
        batch_unit: of that.
        agent_share: of one core, agent and reaper.
        plays: that have an outcome.
        unclean: of these, disturbed by others; they are counted in all the same.
        behind: of these, whose client did not run before all others: some of the lateness may be its own.
        skipped: why it was not played.
        failed: words of plays that broke off.
        stuck: things that an agent could not put back.
        best: of the static settings, in hindsight: `static` has the most requests in time, `fair-static` the most of
            those that leave the batch side its fair part.
    """

    load: str
    label: str
    slo_share: Estimate | None
    p50_us: Estimate | None
    p99_us: Estimate | None
    max_us: Estimate | None
    batch_share: Estimate | None
    batch_per_s: Estimate | None
    batch_unit: str
    switches_per_s: Estimate | None
    agent_share: Estimate | None
    plays: int
    unclean: int
    behind: int
    skipped: str
    failed: tuple[str, ...]
    stuck: int
    best: tuple[str, ...] = ()


class ProgramFigures(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that the plays of real programs came to.

    Attributes:
        loads: what each is, by name.
        rivals: what each is, by name.
        left_out: loads that were asked for, and why they were not played.
        standings: of each rival on each load.
        harms: beside the default, on each load.
        energies: where they were measured.
    """

    loads: dict[str, str]
    rivals: dict[str, str]
    left_out: dict[str, str]
    standings: list[ProgramStanding]
    harms: list[Harm]
    energies: list[EnergyStanding]


def program_standings(plays: Sequence[ProgramPlayed]) -> list[ProgramStanding]:
    """Of each rival on each load: loads by name, rivals in the order of tables."""
    groups: defaultdict[tuple[str, str], list[ProgramPlayed]] = defaultdict(list)
    for one in plays:
        groups[one.load, one.label].append(one)
    keys = sorted(groups, key=lambda key: (key[0], place_of(key[1], PROGRAM_NAMES), key[1]))
    defaults = _defaults(plays)
    found = [_standing(load, label, groups[load, label], defaults) for load, label in keys]
    return _with_best(found)


def program_harms(plays: Sequence[ProgramPlayed]) -> list[Harm]:
    """Of every rival but the default, on every load where both were played with the same arrivals."""
    defaults = _defaults(plays)
    pairs: defaultdict[tuple[str, str], list[tuple[ProgramOutcome, ProgramOutcome]]] = defaultdict(list)
    for one in plays:
        if one.outcome is not None and (beside := defaults.get((one.load, one.repeat))) is not None:
            pairs[one.load, one.label].append((one.outcome, beside))
    order = sorted(pairs, key=lambda key: (key[0], place_of(key[1], PROGRAM_NAMES), key[1]))
    return harms({key: pairs[key] for key in order}, program_measures)


def _defaults(plays: Sequence[ProgramPlayed]) -> dict[tuple[str, int], ProgramOutcome]:
    """By load and repeat."""
    return {(one.load, one.repeat): one.outcome for one in plays if one.label == DEFAULT and one.outcome is not None}


def _standing(
    load: str, label: str, plays: Sequence[ProgramPlayed], defaults: dict[tuple[str, int], ProgramOutcome]
) -> ProgramStanding:
    done = [(one.repeat, one.outcome) for one in plays if one.outcome is not None]
    outcomes = [outcome for _, outcome in done]
    shares = [
        outcome.batch_per_s / beside.batch_per_s
        for repeat, outcome in done
        if (beside := defaults.get((load, repeat))) is not None and beside.batch_per_s > 0
    ]
    return ProgramStanding(
        load=load,
        label=label,
        slo_share=estimate([one.slo_share for one in outcomes]),
        p50_us=estimate([one.p50_us for one in outcomes]),
        p99_us=estimate([one.p99_us for one in outcomes]),
        max_us=estimate([one.max_us for one in outcomes]),
        batch_share=estimate(shares),
        batch_per_s=estimate([one.batch_per_s for one in outcomes]),
        batch_unit=next((one.batch_unit for one in outcomes), ""),
        switches_per_s=estimate([one.switches_per_s for one in outcomes]),
        agent_share=estimate([one.agent.cpu_share for one in plays if one.agent is not None]),
        plays=len(outcomes),
        unclean=sum(not one.is_clean for one in outcomes),
        behind=sum(one.client_ahead is False for one in outcomes),
        skipped=next((one.skipped for one in plays if one.skipped), ""),
        failed=tuple(one.failed for one in plays if one.failed),
        stuck=sum(one.agent.stuck for one in plays if one.agent is not None),
    )


def _with_best(found: Sequence[ProgramStanding]) -> list[ProgramStanding]:
    """The winners among the static settings of each load are marked."""
    marks: defaultdict[tuple[str, str], tuple[str, ...]] = defaultdict(tuple)
    for load in dict.fromkeys(one.load for one in found):
        statics = [one for one in found if one.load == load and one.label in STATIC_SETTINGS and one.slo_share]
        fair = [one for one in statics if one.batch_share is not None and one.batch_share.median >= FLOOR]
        for mark, these in (("static", statics), ("fair-static", fair)):
            if these:
                marks[load, max(these, key=_worth).label] += (mark,)
    return [msgspec.structs.replace(one, best=marks[one.load, one.label]) for one in found]


def _worth(one: ProgramStanding) -> tuple[float, float]:
    """Requests in time first, then what the batch side keeps."""
    slo, batch = one.slo_share, one.batch_share
    return (0.0 if slo is None else slo.median, 0.0 if batch is None else batch.median)
