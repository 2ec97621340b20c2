"""What became of orders: what was changed, what was not and why, and what somebody else changed meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from npuops.eevdf.setting import Setting
from npuops.hostsched.task_id import GroupId, TaskId


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that the kernel took.

    Attributes:
        what: the task or group.
        before: what it had: a setting, or the nice value of a group.
        after: what it has now.
        back: this is what it had before npuops came.
    """

    what: TaskId | GroupId
    before: Setting | int
    after: Setting | int
    back: bool

    def __str__(self) -> str:
        """`task 812: nice 0 → nice 19`."""
        return f"{_name(self.what)}: {_words(self.before)} → {_words(self.after)}"


@dataclass(frozen=True, slots=True)
class Denial:
    """One thing that was ordered and not done.

    Attributes:
        what: the task or group.
        rule: in a few words: `bounds`, `the kernel`, `no way back`, `somebody else's`, `not now`, `not ours`.
        found: what was found.
        advice: what to do about it; may be empty.
    """

    what: TaskId | GroupId
    rule: str
    found: str
    advice: str = ""

    def __str__(self) -> str:
        """`task 812: no way back: nice 0 cannot be given back`."""
        return f"{_name(self.what)}: {self.rule}: {self.found}"


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of orders.

    Attributes:
        changed: in the order of writing.
        denied: each with its reason; told at every step for as long as it is ordered.
        lost: somebody else set these meanwhile: theirs stays, and npuops keeps its hands off; told once.
        gone: ended before they could be set or put back.
        revoked: why nothing was done and everything was put back instead: the heartbeat was late, or the reaper
            died; empty in a normal step.
    """

    changed: tuple[Change, ...] = ()
    denied: tuple[Denial, ...] = ()
    lost: tuple[Denial, ...] = ()
    gone: tuple[TaskId, ...] = ()
    revoked: str = ""


NOTHING: Final = Applied()
"""All was as ordered already."""


class Report:
    """Collects what becomes of orders while they are carried out."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.changed: list[Change] = []
        self.denied: list[Denial] = []
        self.lost: list[Denial] = []
        self.gone: list[TaskId] = []

    def applied(self, revoked: str = "") -> Applied:
        """As far as it goes."""
        return Applied(tuple(self.changed), tuple(self.denied), tuple(self.lost), tuple(self.gone), revoked)


def _name(what: TaskId | GroupId) -> str:
    return f"task {what.tid}" if isinstance(what, TaskId) else f"{what.kind} {what.name}"


def _words(value: Setting | int) -> str:
    return str(value) if isinstance(value, Setting) else f"nice {value}"
