"""A host made by hand: tasks that do what a test says, and the frames and states that follow."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from npuops.eevdf.setting import DEFAULT, Setting
from npuops.hostsched.features import Features, State
from npuops.hostsched.frame import Frame, GroupId, Host, Task, TaskId
from npuops.hostsched.hint import Hint


@dataclass
class Actor:
    """One task: what it did so far, and what it is set to."""

    name: str
    cpus: int = 2
    group: GroupId | None = None
    start: int = 1
    counters: list[int] = field(default_factory=lambda: [0, 0, 0, 0, 0])
    hint: Hint | None = None
    setting: Setting = DEFAULT

    def does(self, *, run_us: int = 0, wait_us: int = 0, sleeps: int = 0, pushed: int = 0) -> None:
        news = (run_us * 1000, wait_us * 1000, max(sleeps + pushed, 1 if run_us else 0), sleeps, pushed)
        self.counters = [old + new for old, new in zip(self.counters, news, strict=True)]


class Stage:
    """A host with these tasks; every `look` is a frame later."""

    def __init__(self, *actors: Actor, cpus: int = 2, at_us: int = 1_000_000) -> None:
        self.actors = list(actors)
        self.cpus = cpus
        self.at_us = at_us
        self.group_nices: dict[GroupId, int] = {}
        self.runnable = 1
        self._features = Features()
        self._tids: dict[str, int] = {}

    def id(self, name: str) -> TaskId:
        actor = next(actor for actor in self.actors if actor.name == name)
        return TaskId(self._tids.setdefault(name, 100 + len(self._tids)), actor.start)

    def frame(self) -> Frame:
        tasks = tuple(
            Task(self.id(actor.name), self.id(actor.name).tid, actor.name, actor.group, actor.cpus)
            for actor in self.actors
        )
        return Frame(
            at_us=self.at_us,
            tasks=tasks,
            counters=np.array([actor.counters for actor in self.actors], np.int64).reshape(-1, 5),
            settings=tuple(actor.setting for actor in self.actors),
            hints=tuple(actor.hint for actor in self.actors),
            group_nices=dict(self.group_nices),
            host=Host(self.cpus, self.runnable, 0, 0, None),
        )

    def look(self, after_us: int = 20_000) -> State:
        self.at_us += after_us
        return self._features.update(self.frame())
