"""What a report says of real programs, in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from npuops.schedlab.estimate_words import as_count, as_ratio, in_fine_percent, in_ms, in_percent, told
from npuops.schedlab.harms import FLOOR
from npuops.schedlab.played import ProgramPlayed
from npuops.schedlab.program_figures import ProgramFigures, ProgramStanding
from npuops.schedlab.rival_names import DEFAULT, HEARING
from npuops.schedlab.trouble_words import troubles

_COLUMNS = (
    "rival",
    "requests in time %",
    "p50 ms",
    "p99 ms",
    "max ms",
    "batch %",
    "batch/s",
    "switches/s",
    "agent % of a core",
    "plays (unclean)",
)


def program_section(found: ProgramFigures, plays: Sequence[ProgramPlayed]) -> Iterator[str]:
    """All of it; nothing if no programs were asked for."""
    if not (found.standings or found.left_out):
        return
    yield "## Real programs"
    yield ""
    lengths = sorted({one.outcome.seconds for one in plays if one.outcome is not None})
    yield f"- {len(plays)} plays{f' of {lengths[0]:g} s' if lengths else ''}"
    yield "- *switches*: of the whole machine; each load has one batch job, whose progress is *batch*"
    yield "- *batch*: what the batch side did, relative to the default's play with the same arrivals, and in a second"
    yield f"- *{HEARING.strip()}*: the program told the agent what waits; where there is no such row it tells nobody"
    yield "- *best static*: the static setting with the most requests in time, in hindsight; *best fair*: of those that"
    yield f"  leave the batch side {100 * FLOOR:.0f} %"
    yield from (f"- **{name} was left out**: {why}" for name, why in found.left_out.items())
    yield ""
    for load in dict.fromkeys(one.load for one in found.standings):
        these = [one for one in found.standings if one.load == load]
        yield from _table(load, found.loads.get(load, ""), these)
    yield from (f"- **{name}**: {note}" for name, note in found.rivals.items())
    yield ""
    yield from _troubles(found.standings)


def program_lines(found: ProgramFigures) -> Iterator[str]:
    """For a screen: each agent and the best static setting beside the default."""
    defaults = {one.load: one.slo_share for one in found.standings if one.label == DEFAULT}
    harmed = {(harm.mix, harm.label) for harm in found.harms if harm.harmed}
    for one in found.standings:
        if one.slo_share is None or not (one.best or one.agent_share is not None):
            continue
        beside = defaults.get(one.load)
        than = "" if beside is None else f" (default {in_percent(beside.median)} %)"
        batch = "" if one.batch_share is None else f", batch at {in_percent(one.batch_share.median)} %"
        worse = "; worse than the default" if (one.load, one.label) in harmed else ""
        yield f"{one.load}: {_name(one)}: {in_percent(one.slo_share.median)} % in time{than}{batch}{worse}"
    yield from (f"left out {name}: {why}" for name, why in found.left_out.items())


def _table(load: str, words: str, found: Sequence[ProgramStanding]) -> Iterator[str]:
    yield f"### {load}"
    yield ""
    if words:
        yield from (f"{words}.", "")
    yield f"| {' | '.join(_COLUMNS)} |"
    yield "|---" * len(_COLUMNS) + "|"
    yield from map(_row, found)
    yield ""


def _row(one: ProgramStanding) -> str:
    if not one.plays:
        why = "left out" if one.skipped else "broke off"
        return f"| {one.label} | {why} " + "|" * (len(_COLUMNS) - 1)
    per_s = told(one.batch_per_s, as_count if one.batch_per_s and one.batch_per_s.median >= 100 else as_ratio)
    cells = [
        told(one.slo_share, in_percent),
        told(one.p50_us, in_ms),
        told(one.p99_us, in_ms),
        told(one.max_us, in_ms),
        told(one.batch_share, in_percent),
        f"{per_s} {one.batch_unit}",
        told(one.switches_per_s, as_count),
        told(one.agent_share, in_fine_percent),
        f"{one.plays} ({one.unclean})",
    ]
    return f"| {_name(one)} | {' | '.join(cells)} |"


def _name(one: ProgramStanding) -> str:
    words = {"static": "best static", "fair-static": "best fair"}
    return f"{one.label} ({', '.join(words[mark] for mark in one.best)})" if one.best else one.label


def _troubles(found: Sequence[ProgramStanding]) -> Iterator[str]:
    lines = [
        *troubles([(one.load, one) for one in found]),
        *(
            f"- {one.label} on {one.load}: plays whose client could not run before all others: {one.behind}"
            for one in found
            if one.behind
        ),
    ]
    if lines:
        yield from ("### What did not work with programs", "", *lines, "")
