"""Policies that never change their mind: the default, and settings by name or kind of task.

::

    static:nice=-10@redis*,idle@make*
    static:boost@latency,demote@batch,slice=3ms@postgres*

Each term is SETTING@WHOM; the first that fits a task counts. Settings, joined by `+`: `nice=N`, `slice=500us`,
`slice=3ms`, `idle`, `batch`, `reserve=1000/2000` (microseconds of CPU time in each period), or the name of a level
(`demote`, `boost`). WHOM is a pattern for the command, or one of `latency`, `batch` and `background`: those of which
the application said so. A command with such a name is matched by a pattern such as `[b]atch`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import ClassVar, Final

from npuops.eevdf.setting import SchedPolicy, Setting
from npuops.errors import OptionError, nearest
from npuops.hostsched.features import State
from npuops.hostsched.frame import Task
from npuops.hostsched.hint import Hint, Kind
from npuops.hostsched.levels import BOOST, DEMOTE, IDLE
from npuops.hostsched.plan import Level, Plan

PREFIX: Final = "static:"
EXAMPLE: Final = "for example: static:nice=-10@redis*,idle@make*"
_BY_NAME: Final = {level.name: level for level in (DEMOTE, IDLE, BOOST)}
_WORDS: Final = (*_BY_NAME, "nice=", "slice=", "batch", "reserve=")
_SLICE: Final = re.compile(r"(\d{1,9})(us|ms)")
_RESERVE: Final = re.compile(r"(\d{1,9})/(\d{1,9})")


@dataclass(frozen=True, slots=True)
class Term:
    """One setting for some tasks.

    Attributes:
        level: what they get.
        kind: whose application said so; None for a pattern.
        pattern: of commands; empty for a kind.
    """

    level: Level
    kind: Kind | None
    pattern: str

    def fits(self, task: Task, hint: Hint | None) -> bool:
        """Whether this task is meant."""
        if self.kind is not None:
            return hint is not None and hint.kind is self.kind
        return fnmatchcase(task.command, self.pattern)

    def __str__(self) -> str:
        """Whom it means."""
        return f"is said to be {self.kind.value}" if self.kind is not None else f"fits {self.pattern}"


class Default:
    """Leaves everything as it is."""

    frames_alone: ClassVar = True

    @property
    def name(self) -> str:
        """As on the command line."""
        return "default"

    def decide(self, state: State) -> Plan:  # noqa: ARG002 - whatever it sees
        """Nothing."""
        return Plan()


class Static:
    """The same settings for the same tasks, always."""

    frames_alone: ClassVar = True

    def __init__(self, text: str) -> None:
        """Read them.

        Args:
            text: as on the command line, from `static:` on.

        Raises:
            OptionError: a term that cannot be read, or a setting that the kernel would refuse.
        """
        self._text = text
        self._terms = parse_terms(text.removeprefix(PREFIX))

    @property
    def name(self) -> str:
        """As on the command line."""
        return self._text

    def decide(self, state: State) -> Plan:
        """The first term that fits, for each task."""
        levels, why = {}, {}
        for task, hint in zip(state.frame.tasks, state.frame.hints, strict=True):
            term = next((term for term in self._terms if term.fits(task, hint)), None)
            if term is not None and term.level.setting is not None:
                levels[task.id], why[task.id] = term.level, f"it {term}"
        return Plan(levels, why)


def parse_terms(text: str) -> tuple[Term, ...]:
    """The terms of a static policy, in their order.

    Raises:
        OptionError: one that cannot be read; the message names it.
    """
    if not text.strip():
        raise OptionError("a static policy needs at least one setting", advice=EXAMPLE)
    return tuple(_term(part.strip()) for part in text.split(","))


def _term(text: str) -> Term:
    setting, at, whom = text.partition("@")
    if not at or not whom or not setting:
        raise OptionError(f"{text!r} of the static policy is not SETTING@WHOM", advice=EXAMPLE)
    if whom.startswith("@"):
        raise OptionError(f"{text!r} of the static policy has two @", advice=EXAMPLE)
    kind = Kind(whom) if whom in tuple(Kind) else None
    return Term(_level(setting), kind, "" if kind is not None else whom)


def _level(text: str) -> Level:
    if text in _BY_NAME:
        return _BY_NAME[text]
    setting = Setting()
    words = text.split("+")
    keys = [word.partition("=")[0] for word in words]
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice is not None:
        raise OptionError(f"{text!r} of the static policy has {twice} twice")
    for word in words:
        setting = _with(setting, word)
    if setting.policy is SchedPolicy.DEADLINE and len(words) > 1:
        raise OptionError(f"{text!r} of the static policy: a reservation has no nice, slice or policy beside it")
    if setting.policy is SchedPolicy.IDLE and setting.nice:
        raise OptionError(f"{text!r} of the static policy: nice means nothing to an idle task")
    return Level(text, setting, _group_nice(setting))


def _with(setting: Setting, word: str) -> Setting:
    key, equals, value = word.partition("=")
    try:
        if word in ("idle", "batch"):
            return replace(setting, policy=SchedPolicy[word.upper()])
        if key == "nice" and equals:
            return replace(setting, nice=int(value))
        if key == "slice" and (found := _SLICE.fullmatch(value)):
            return replace(setting, slice_us=int(found[1]) * (1000 if found[2] == "ms" else 1))
        if key == "reserve" and (found := _RESERVE.fullmatch(value)):
            return replace(setting, policy=SchedPolicy.DEADLINE, runtime_us=int(found[1]), period_us=int(found[2]))
    except OptionError as error:
        raise OptionError(f"{word!r} of the static policy: {error.message}") from error
    except ValueError as error:
        raise OptionError(f"{word!r} of the static policy is no whole number", advice=EXAMPLE) from error
    if equals and f"{key}=" in _WORDS:
        shape = {"slice": "slice=500us or slice=3ms", "reserve": "reserve=RUNTIME/PERIOD in microseconds"}[key]
        raise OptionError(f"{word!r} of the static policy cannot be read", advice=f"write {shape}")
    raise OptionError(f"{word!r} is no setting of a static policy", advice=nearest(key, _WORDS))


def _group_nice(setting: Setting) -> int | None:
    if setting.policy is SchedPolicy.DEADLINE:
        return None
    if setting.policy is SchedPolicy.IDLE:
        return IDLE.group_nice
    return setting.nice or None
