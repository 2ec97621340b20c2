"""How near the replay of a recorded play comes to it: who got how much and when, who waited, who was interrupted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from npuops.eevdf.rules import Rules
from npuops.schedlab.switch_demand import shares_of
from npuops.schedlab.switch_picks import Picks, Tally, can_follow, picks_of
from npuops.schedlab.switch_replay import replay
from npuops.schedlab.switch_trace import KIND, ONE, OTHERS, STAYS, Event, SwitchTrace

SCHEMA: Final = "npuops.hostsched.replayed/1"
WINDOW_NS: Final = 100_000_000
"""Within a tick or two, chance decides who is first; over so much, the rules do."""
_QUANTILES: Final = (0.5, 0.9, 0.99)


class Had(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One task on one side.

    Attributes:
        cpu_ms: CPU time.
        waits_ms: median, 90th and 99th percentile of its waits for a CPU; None if it never waited.
        voluntary: changes of task because it slept.
        involuntary: because another one's turn came.
    """

    cpu_ms: float
    waits_ms: tuple[float, float, float] | None
    voluntary: int
    involuntary: int


class TaskRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One task.

    Attributes:
        name: as in the mix.
        kernel: what it had there.
        simulator: what it had in the replay.
    """

    name: str
    kernel: Had
    simulator: Had


class Agreement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One recorded play and its replay.

    Attributes:
        mix: its name.
        treatment: name of the setting.
        kernel: release.
        machine: in words.
        events: of the trace.
        inferred: of these, hidden by the kernel.
        others_share: of the CPUs' time, had by tasks that are none of the play's.
        moved_share: of the play's CPU time, what the simulator gave to another task in windows of `WINDOW_NS`.
        rows: the tasks.
        picks: decision by decision; None with more CPUs or sessions than one.
        schema: of this document.
    """

    mix: str
    treatment: str
    kernel: str
    machine: str
    events: int
    inferred: int
    others_share: float
    moved_share: float
    rows: tuple[TaskRow, ...]
    picks: Picks | None
    schema: str = SCHEMA


def agreement_of(trace: SwitchTrace, rules: Rules | None = None) -> Agreement:
    """Replay a trace of a kernel under these rules, and compare.

    Raises:
        OptionError: a setting that is not modelled.
    """
    again, play = replay(trace, rules), trace.play
    return Agreement(
        mix=play.mix,
        treatment=play.treatment,
        kernel=play.kernel,
        machine=play.machine,
        events=len(trace.events),
        inferred=play.inferred,
        others_share=shares_of(trace)[OTHERS] / (play.cpus * play.duration_ns),
        moved_share=moved_share(trace, again),
        rows=tuple(
            TaskRow(name=actor.name, kernel=_had(trace, number), simulator=_had(again, number))
            for number, actor in enumerate(play.actors)
        ),
        picks=picks_of(trace, rules) if can_follow(trace) else None,
    )


def moved_share(one: SwitchTrace, other: SwitchTrace) -> float:
    """Of the play's CPU time, what the other side gave to another task, window by window."""
    mine, theirs = windows(one), windows(other)
    return float(np.abs(mine - theirs).sum() / 2 / max(1.0, mine.sum()))


def windows(trace: SwitchTrace) -> NDArray[np.float64]:
    """CPU time in ns of each player in each window: shape (players, windows)."""
    edges = np.arange(0, trace.play.duration_ns + WINDOW_NS, WINDOW_NS)
    found = np.zeros((len(trace.play.actors), len(edges) - 1))
    stretches = trace.stretches()
    for player in range(len(found)):
        mine = stretches[stretches[:, 3] == player]
        for cpu in range(trace.play.cpus):
            here = mine[mine[:, 2] == cpu]
            spans = here[:, 1] - here[:, 0]
            had = np.concatenate([[0], np.cumsum(spans)])
            place = np.searchsorted(here[:, 0], edges, side="right")
            past = had[place]
            last = np.maximum(place - 1, 0)
            if len(here):
                past = past - np.where(place > 0, np.maximum(0, here[last, 1] - edges), 0)
            found[player] += np.diff(past)
    return found


def _had(trace: SwitchTrace, player: int) -> Had:
    waits = trace.waits(player)
    left = trace.events[(trace.events[:, KIND] == Event.SWITCH) & (trace.events[:, ONE] == player)]
    spans = (waits[:, 1] - waits[:, 0]) / 1e6
    middle, late, worst = np.quantile(spans, _QUANTILES).tolist() if len(spans) else (0.0, 0.0, 0.0)
    return Had(
        cpu_ms=shares_of(trace)[player] / 1e6,
        waits_ms=(middle, late, worst) if len(spans) else None,
        voluntary=int((left[:, STAYS] == 0).sum()),
        involuntary=int((left[:, STAYS] == 1).sum()),
    )


def agreement_lines(found: Agreement) -> Iterator[str]:
    """As text: a table of the tasks, then the figures."""
    width = max(8, *(len(row.name) for row in found.rows))
    yield (
        f"{found.mix}, {found.treatment}: kernel {found.kernel}, {found.events} events"
        + (f", {found.inferred} hidden by the kernel and inferred" if found.inferred else "")
        + f"; others had {100 * found.others_share:.0f} % of the CPUs, in the replay too"
    )
    yield (
        f"{'':{width}}  CPU ms: kernel    sim   waits ms (50, 90, 99 %): kernel{'sim':>20}"
        "   slept: kernel   sim   interrupted: kernel   sim"
    )
    for row in found.rows:
        kernel, sim = row.kernel, row.simulator
        yield (
            f"{row.name:{width}}{kernel.cpu_ms:16.1f}{sim.cpu_ms:7.1f}{_waits(kernel):>34}{_waits(sim):>20}"
            f"{kernel.voluntary:16}{sim.voluntary:6}{kernel.involuntary:22}{sim.involuntary:6}"
        )
    moved = f"{100 * found.moved_share:.1f} % of their CPU time went to another task"
    yield f"{moved}, in windows of {WINDOW_NS // 10**6} ms"
    if found.picks is None:
        yield "decisions are compared one by one for mixes on one CPU, in one session, without reservations"
        return
    told = (
        ("who is next", found.picks.next),
        ("whether a wake-up preempts", found.picks.wakes),
        ("whether a tick ends a turn", found.picks.ticks),
    )
    yield "decision by decision, after all that the kernel did before: " + "; ".join(
        f"{what} {_tally(tally)}" for what, tally in told
    )


def _waits(had: Had) -> str:
    return "-" if had.waits_ms is None else " ".join(f"{span:5.2f}" for span in had.waits_ms)


def _tally(tally: Tally) -> str:
    if tally.share is None:
        return "never came up"
    unsure = f", {tally.unsure} too near to tell" if tally.unsure else ""
    return f"{100 * tally.share:.1f} % of {tally.decided} as the rules say{unsure}"
