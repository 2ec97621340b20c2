"""What changed from one decision to the next, and why, for people: of advice, of actions, of a replay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from npuops.hostsched.frame import Frame, TaskId
from npuops.hostsched.live_view import group_words
from npuops.hostsched.orders import voids
from npuops.hostsched.plan import NORMAL, Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelChange:
    """A task's level is another one than before.

    Attributes:
        task: which.
        command: its name; "" if it is not there any more.
        before: name of the level.
        after: name of the level.
        setting: what the kernel is told for it, in words.
        why: the policy's words; "" if it gave none.
        void: why it cannot have all the effect that the level promises; "" if it can.
    """

    task: TaskId
    command: str
    before: str
    after: str
    setting: str
    why: str
    void: str = ""

    def __str__(self) -> str:
        """Such as `make 812: normal → demote (nice 19): a hog while redis waits`."""
        setting = f" ({self.setting})" if self.setting else ""
        why = f": {self.why}" if self.why else ""
        void = f"; but {self.void}" if self.void else ""
        return f"{self.command or 'task'} {self.task.tid}: {self.before} → {self.after}{setting}{why}{void}"


def level_changes(before: Plan, after: Plan, frame: Frame) -> Iterator[LevelChange]:
    """Of the tasks of the frame, in its order. One that ended is no change."""
    lost: Mapping[TaskId, str] | None = None
    for task in frame.tasks:
        old, new = before.levels.get(task.id, NORMAL), after.levels.get(task.id, NORMAL)
        if old == new:
            continue
        words = [] if new.setting is None else [str(new.setting)]
        nice = new.group_nice
        if nice is not None and task.group is not None and task.group in frame.group_nices:
            words.append(f"or {group_words(task.group)} as a whole to nice {nice}")
        if lost is None:
            lost = {one.task: one.why for one in voids(after, frame)}
        yield LevelChange(
            task=task.id,
            command=task.command,
            before=old.name,
            after=new.name,
            setting=", ".join(words),
            why=after.why.get(task.id, ""),
            void=lost.get(task.id, ""),
        )


def names_of(frame: Frame) -> Mapping[TaskId, str]:
    """`redis-server 1234` for each task of a frame."""
    return {task.id: f"{task.command} {task.id.tid}" for task in frame.tasks}


def task_words(task: TaskId | None, names: Mapping[TaskId, str]) -> str:
    """As `names_of`; of none, everybody."""
    return "everything" if task is None else names.get(task, f"task {task.tid}")
