"""What a look says to people: a row for each task, over the time since the last row that was shown.

Rates are taken over the whole time between two views (about a second), not between two frames: the kernel books a
wait only when it ends, so a share of 20 ms is mostly chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from npuops.hostsched.frame import INVOLUNTARY, RUN_NS, VOLUNTARY, WAIT_NS, Frame, GroupId, Task, TaskId
from npuops.hostsched.hint import Hint
from npuops.hostsched.plan import NORMAL, Plan

COLUMNS: Final = ("task", "command", "group", "run", "wait", "switches/s", "setting", "hint", "level")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One task. Shares and rates are None in the first view, which has nothing to compare with.

    Attributes:
        task: whom.
        command: its thread's name.
        group: with whom it shares, in words; "" where the kernel makes no groups.
        run_share: CPUs used, 0 to 1.
        wait_share: CPU time waited for, in CPUs.
        voluntary_per_s: it slept or waited for something.
        involuntary_per_s: it was made to leave.
        setting: what the kernel is told, in words.
        hint: what its application says, in words; "" if nothing.
        level: what the policy wants; `normal` without one.
        why: the policy's words for it.
    """

    task: TaskId
    command: str
    group: str
    run_share: float | None
    wait_share: float | None
    voluntary_per_s: float | None
    involuntary_per_s: float | None
    setting: str
    hint: str
    level: str
    why: str

    def cells(self) -> tuple[str, ...]:
        """As `COLUMNS`."""
        known = self.voluntary_per_s is not None and self.involuntary_per_s is not None
        switches = (self.voluntary_per_s or 0.0) + (self.involuntary_per_s or 0.0)
        return (
            str(self.task.tid),
            self.command,
            self.group or "-",
            percent(self.run_share),
            percent(self.wait_share),
            f"{switches:.0f}" if known else "-",
            self.setting,
            self.hint or "-",
            self.level,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What is shown at one moment.

    Attributes:
        at_us: of the frame.
        rows: the busiest first.
        busy_share: of all CPUs; None in the first view.
        steal_share: of all CPUs, taken by the hypervisor; None in the first view.
        pressure_share: of the time, in which somebody waited for a CPU; None in the first view, and without PSI.
        cpus: online.
        runnable: tasks that run or want to.
    """

    at_us: int
    rows: tuple[Row, ...]
    busy_share: float | None
    steal_share: float | None
    pressure_share: float | None
    cpus: int
    runnable: int

    def headline(self) -> str:
        """The host in one line."""
        words = [f"{self.cpus} CPUs", f"busy {percent(self.busy_share)}", f"{self.runnable} runnable"]
        if self.pressure_share is not None:
            words.append(f"somebody waits {percent(self.pressure_share)} of the time")
        if self.steal_share is not None and self.steal_share >= 0.005:
            words.append(f"stolen by the hypervisor {percent(self.steal_share)}")
        return ", ".join(words)


class LiveView:
    """Remembers the last frame that was shown."""

    def __init__(self) -> None:
        self._before: Frame | None = None

    def view(self, frame: Frame, plan: Plan) -> View:
        """The rows since the last call."""
        before, self._before = self._before, frame
        window_us = frame.at_us - before.at_us if before is not None else 0
        if window_us <= 0:
            before = None
        rows = sorted(rows_of(frame, before, plan), key=lambda row: (-(row.run_share or 0.0), row.task))
        host, old = frame.host, before.host if before is not None else None
        room_us = window_us * max(host.cpus, 1)
        pressed = old is not None and host.pressure_us is not None and old.pressure_us is not None
        return View(
            at_us=frame.at_us,
            rows=tuple(rows),
            busy_share=None if old is None else _share(host.busy_us - old.busy_us, room_us),
            steal_share=None if old is None else _share(host.steal_us - old.steal_us, room_us),
            pressure_share=_share((host.pressure_us or 0) - (old.pressure_us or 0), window_us)
            if pressed and old is not None
            else None,
            cpus=host.cpus,
            runnable=host.runnable,
        )


def rows_of(frame: Frame, before: Frame | None, plan: Plan) -> list[Row]:
    """A row for each task, in the frame's order; rates since `before`, an earlier frame."""
    places = {} if before is None else {task.id: place for place, task in enumerate(before.tasks)}
    return [_row(frame, place, before, places.get(task.id), plan) for place, task in enumerate(frame.tasks)]


def _row(frame: Frame, place: int, before: Frame | None, place_before: int | None, plan: Plan) -> Row:
    task = frame.tasks[place]
    rates: list[float | None] = [None] * frame.counters.shape[1]
    if before is not None and place_before is not None:
        window_s = (frame.at_us - before.at_us) / 1e6
        risen = frame.counters[place] - before.counters[place_before]
        rates = [max(float(rise), 0.0) / window_s for rise in risen]  # a counter that fell is a task that began anew
    run, wait = rates[RUN_NS], rates[WAIT_NS]
    return Row(
        task=task.id,
        command=task.command,
        group=group_words(task.group),
        run_share=None if run is None else min(run / 1e9, 1.0),
        wait_share=None if wait is None else wait / 1e9,
        voluntary_per_s=rates[VOLUNTARY],
        involuntary_per_s=rates[INVOLUNTARY],
        setting=_setting_words(frame, place, task),
        hint=hint_words(frame.hints[place], frame.at_us),
        level=plan.levels.get(task.id, NORMAL).name,
        why=plan.why.get(task.id, ""),
    )


def _setting_words(frame: Frame, place: int, task: Task) -> str:
    nice = frame.group_nices.get(task.group, 0) if task.group is not None else 0
    words = str(frame.settings[place])
    return f"{words}, group {nice:+d}" if nice else words


def _share(part_us: int, whole_us: int) -> float:
    return min(max(part_us / whole_us, 0.0), 1.0)


def group_words(group: GroupId | None) -> str:
    """`autogroup 12`, `cgroup /a/b`; "" where there is none."""
    if group is None:
        return ""
    return f"{'autogroup' if group.kind == 'autogroup' else 'cgroup'} {group.name}"


def hint_words(hint: Hint | None, now_us: int) -> str:
    """What matters of a hint: kind, SLO, what waits, what is late."""
    if hint is None:
        return ""
    words = [hint.kind.value if hint.kind is not None else "hint"]
    if hint.slo_us is not None:
        words.append(f"slo {hint.slo_us / 1000:g} ms")
    if hint.queued is not None:
        words.append(f"{hint.queued} queued")
    if hint.served:
        words.append(f"{hint.missed}/{hint.served} late")
    age_us = now_us - hint.at_us
    if age_us >= 1_000_000:
        words.append(f"{age_us / 1e6:.0f} s old")
    return ", ".join(words)


def percent(share: float | None) -> str:
    """`43 %`, `3.1 %`; `-` if unknown."""
    if share is None:
        return "-"
    return f"{share * 100:.0f} %" if share >= 0.0995 else f"{share * 100:.1f} %"
