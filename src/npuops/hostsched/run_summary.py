"""A run in a page: what was changed and refused, how the applications fared by their own word, what the agent cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from npuops.events import Event
from npuops.hostsched.agent_facts import AgentEnded, NetworkClosed, NotPutBack, PeriodChanged, Stepped
from npuops.hostsched.applied import NOTHING
from npuops.hostsched.decision_words import level_changes
from npuops.hostsched.energy_meter import Energy
from npuops.hostsched.frame import RUN_NS, Frame, TaskId
from npuops.hostsched.hint import Hint
from npuops.hostsched.live_view import percent
from npuops.hostsched.plan import Plan
from npuops.hostsched.recently import MOST, Recently


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """How one task served, by its hints, while we looked.

    Attributes:
        task: which.
        command: its name.
        slo_us: what it said last; None if it said none.
        served: answers while we looked.
        missed: of these, those later than its SLO.
    """

    task: TaskId
    command: str
    slo_us: int | None
    served: int
    missed: int

    def __str__(self) -> str:
        """`redis-server 812: 99.2 % of 5000 answers within 2 ms`."""
        share = percent(1 - self.missed / self.served) if self.served else "-"
        slo = f" within {self.slo_us / 1000:g} ms" if self.slo_us is not None else ""
        return f"{self.command} {self.task.tid}: {share} of {self.served} answers{slo}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Of one run.

    Attributes:
        steps: looks taken.
        seconds: from first to last.
        tasks: different ones that were seen.
        run_s: CPU time that they took while we looked.
        levels: how often each task was given another level, `command: level` → count.
        changed: things that the kernel took.
        stuck: of these, those that it does not let us put back.
        lost: things that somebody else set meanwhile.
        revoked: steps in which everything was put back instead, because a heartbeat was late.
        refused: by the guard, rule → decisions.
        denied: by kernel or bounds, rule → different tasks and groups.
        services: those that told what they served, of the latest thousands of tasks.
        cpu_share: of one core, used by the agent; None if unknown.
        overruns: steps that took longer than their period.
        slowed: times that the agent made its period longer.
        energy: of the whole machine, from before the first look until after the last.
        modelled_mj: of a modelled NPU for the policy's inferences, above its idle power; None where none decided.
    """

    steps: int
    seconds: float
    tasks: int
    run_s: float
    levels: dict[str, int]
    changed: int
    stuck: int
    lost: int
    revoked: int
    refused: dict[str, int]
    denied: dict[str, int]
    services: tuple[Service, ...]
    cpu_share: float | None
    overruns: int
    slowed: int
    energy: Energy
    modelled_mj: float | None

    def lines(self) -> Iterator[str]:
        """For people; of what there was."""
        looks = f"{self.steps} looks in {self.seconds:.1f} s"
        if self.steps and not self.tasks:
            yield f"{looks}: nobody who opted in was there, or may be touched"
        else:
            yield f"{looks} at {self.tasks} tasks, which took {self.run_s:.1f} s of CPU"
        if self.levels:
            yield "levels: " + _counted(self.levels)
        if self.changed:
            back = f"{self.stuck} of them could NOT be put back" if self.stuck else "all put back"
            yield f"changed {self.changed} things, {back}"
        if self.refused:
            yield "refused by the guard: " + _counted(self.refused)
        if self.denied:
            yield "not done: " + _counted(self.denied)
        if self.lost:
            yield f"{self.lost} things were set by somebody else meanwhile, and left so"
        if self.revoked:
            yield f"{self.revoked} times everything was put back because a heartbeat was late"
        for service in self.services:
            yield str(service)
        slow = f"; slowed down {self.slowed} times" if self.slowed else ""
        share = "too short to tell" if self.cpu_share is None else f"{self.cpu_share * 100:.2f} % of one core"
        yield f"the agent itself: {share}, {self.overruns} steps too long{slow}"
        if self.modelled_mj is not None:
            yield f"its NPU: {self.modelled_mj:.3g} mJ for the policy's inferences (modelled)"
        yield f"the machine: {self.energy}"


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{rule} {count}×" for rule, count in sorted(counts.items(), key=lambda each: -each[1]))


def _who_tells(frame: Frame) -> list[bool]:
    return [hint is not None for hint in frame.hints]


@dataclass(slots=True)
class _Served:
    command: str
    slo_us: int | None
    first: tuple[int, int]
    last: tuple[int, int]


@dataclass(slots=True)
class _Seen:
    first_ns: int
    last_ns: int
    served: _Served | None = None

    def hear(self, command: str, hint: Hint) -> None:
        told = (hint.served, hint.missed)
        if self.served is None:
            self.served = _Served(command, hint.slo_us, told, told)
        else:
            self.served.slo_us, self.served.last = hint.slo_us, told


@dataclass(slots=True)
class Summing:
    """An observer that adds up. `summary` is complete after `AgentEnded`.

    Of thousands of tasks the ones that were seen last are kept, and of the others how many and their CPU time.
    """

    _frame: Frame | None = None
    """The latest; it is added up when others are in the next one, or at the end: only first and last count."""
    _seen: dict[TaskId, _Seen] = field(default_factory=dict)
    """Those looked at last come last; only so many are kept."""
    _forgotten: int = 0
    _forgotten_ns: int = 0
    """CPU time of tasks that are not kept."""
    _levels: Counter[str] = field(default_factory=Counter)
    _refused: Counter[str] = field(default_factory=Counter)
    _denied: Counter[str] = field(default_factory=Counter)
    _told: Recently[tuple[str, object]] = field(default_factory=Recently)
    _plan: Plan = field(default_factory=Plan)
    _changed: int = 0
    _stuck: int = 0
    _lost: int = 0
    _revoked: int = 0
    _slowed: int = 0
    _modelled_mj: float | None = None
    _ended: AgentEnded | None = None

    def __call__(self, event: Event) -> None:
        """Add a fact."""
        match event:
            case Stepped():
                self._add(event)
            case PeriodChanged(change=change) if change.trouble and change.after_us > change.before_us:
                self._slowed += 1
            case NotPutBack(denials=denials):
                self._stuck += len(denials)
            case NetworkClosed(modelled_mj=modelled_mj):
                self._modelled_mj = modelled_mj
            case AgentEnded():
                self._ended = event
            case _:
                pass

    def summary(self, energy: Energy) -> Summary:
        """Of everything until now, beside what was used meanwhile."""
        ended = self._ended
        if self._frame is not None:
            self._look(self._frame)
        run_ns = sum(one.last_ns - one.first_ns for one in self._seen.values()) + self._forgotten_ns
        services = [
            Service(
                task=task,
                command=one.command,
                slo_us=one.slo_us,
                served=max(one.last[0] - one.first[0], 0),
                missed=max(one.last[1] - one.first[1], 0),
            )
            for task, seen in self._seen.items()
            if (one := seen.served) is not None
        ]
        return Summary(
            steps=ended.steps if ended else 0,
            seconds=ended.seconds if ended else 0.0,
            tasks=len(self._seen) + self._forgotten,
            run_s=run_ns / 1e9,
            levels=dict(self._levels),
            changed=self._changed,
            stuck=self._stuck,
            lost=self._lost,
            revoked=self._revoked,
            refused=dict(self._refused),
            denied=dict(self._denied),
            services=tuple(service for service in services if service.served),
            cpu_share=ended.cpu_share if ended else None,
            overruns=ended.overruns if ended else 0,
            slowed=self._slowed,
            energy=energy,
            modelled_mj=self._modelled_mj,
        )

    def _add(self, step: Stepped) -> None:
        frame, before = step.state.frame, self._frame
        if before is None or before.tasks is not frame.tasks or _who_tells(before) != _who_tells(frame):
            if before is not None:
                self._look(before)
            self._look(frame)
        self._frame = frame
        if step.checked is None:
            return
        if self._plan.levels != step.plan.levels:
            for change in level_changes(self._plan, step.plan, frame):
                self._levels[f"{change.command}: {change.after}"] += 1
        self._plan = step.plan
        if step.checked.refusals:
            self._refused.update(refusal.rule for refusal in step.checked.refusals)
        if (applied := step.applied) is not None and applied != NOTHING:
            self._changed += sum(not change.back for change in applied.changed)
            self._lost += len(applied.lost)
            self._revoked += bool(applied.revoked)
            self._denied.update(each.rule for each in applied.denied if self._told.add((each.rule, each.what)))

    def _look(self, frame: Frame) -> None:
        for place, task in enumerate(frame.tasks):
            ran = int(frame.counters[place, RUN_NS])
            seen = self._seen.pop(task.id, None) or _Seen(ran, ran)
            seen.last_ns = max(ran, seen.last_ns)
            self._seen[task.id] = seen
            if (hint := frame.hints[place]) is not None:
                seen.hear(task.command, hint)
        while len(self._seen) > MOST:
            gone = self._seen.pop(next(iter(self._seen)))
            self._forgotten += 1
            self._forgotten_ns += gone.last_ns - gone.first_ns
