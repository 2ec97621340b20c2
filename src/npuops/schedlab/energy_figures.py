"""Energy of the machine under each rival, where a meter measured it; elsewhere, why there is none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from npuops.hostsched.energy_meter import NOT_MEASURED
from npuops.schedlab.comparison import Estimate, estimate
from npuops.schedlab.estimate_words import as_ratio, told
from npuops.schedlab.outcome import Outcome
from npuops.schedlab.played import AnyPlayed


class EnergyStanding(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One rival on one load.

    Attributes:
        load: name of the mix, or of the load of real programs.
        label: of the rival.
        joules: of the whole machine over one play.
        joules_per_1000: over the requests answered in time; None where there are none.
        words: what measured it.
    """

    load: str
    label: str
    joules: Estimate
    joules_per_1000: Estimate | None
    words: str


def energies(plays: Sequence[AnyPlayed]) -> list[EnergyStanding]:
    """Of the plays that a meter measured, in the order in which their loads and rivals first come."""
    found = []
    for load, label in dict.fromkeys((one.key[0], one.label) for one in plays):
        these = [one for one in plays if (one.key[0], one.label) == (load, label)]
        joules = [None if one.energy is None else one.energy.joules for one in these]
        if (standing := estimate(joules)) is not None:
            words = next(one.energy.words for one in these if one.energy is not None and one.energy.joules is not None)
            served = [
                None if used is None or not (kept := _in_time(one)) else used / kept * 1000
                for one, used in zip(these, joules, strict=True)
            ]
            found.append(
                EnergyStanding(load=load, label=label, joules=standing, joules_per_1000=estimate(served), words=words)
            )
    return found


def energy_words(plays: Sequence[AnyPlayed]) -> str:
    """`joules were not measured: no meter here`, or in how many plays and by what."""
    told_by = [one.energy for one in plays if one.energy is not None]
    measured = [energy for energy in told_by if energy.joules is not None]
    if measured:
        return f"joules are the whole machine's, measured in {len(measured)} plays ({measured[0].words})"
    return f"{NOT_MEASURED}: {told_by[0].words}" if told_by else NOT_MEASURED


def energy_section(found: Sequence[EnergyStanding]) -> Iterator[str]:
    """A table in Markdown; nothing where nothing was measured."""
    if not found:
        return
    yield from ("## Energy", "", "| load | rival | J per play | J per 1000 requests in time |", "|---|---|---|---|")
    for one in found:
        per_1000 = told(one.joules_per_1000, as_ratio)
        yield f"| {one.load} | {one.label} | {told(one.joules, as_ratio)} | {per_1000} |"
    yield ""


def _in_time(one: AnyPlayed) -> int:
    if one.outcome is None:
        return 0
    return sum(part.in_slo for part in one.outcome.parts) if isinstance(one.outcome, Outcome) else one.outcome.in_slo
