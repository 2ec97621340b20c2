"""What was last said of each thread, and for how long it counts. Knows no socket and no clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from npuops.hostsched.frame import TaskId
from npuops.hostsched.hint import Hint
from npuops.hostsched.hint_wire import Word

FRESH_US: Final = 1_000_000
"""Queue and slack count for so long. What a task is for and its SLO count while whoever said so is connected."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a word is about.

    Attributes:
        task: the thread; of a whole process, its first.
        whole: all threads of the process.
    """

    task: TaskId
    whole: bool


@dataclass(slots=True)
class _Said:
    by: int
    at_us: int
    word: Word
    hint: Hint | None = None
    """As it will stay, if time changes nothing about it any more."""


class HintBook:
    """The last word on each subject; `len()` counts subjects."""

    def __init__(self) -> None:
        """Nothing was said."""
        self._said: dict[Subject, _Said] = {}
        self._threads: dict[Subject, tuple[int, ...]] = {}

    def __len__(self) -> int:
        return len(self._said)

    def __contains__(self, subject: object) -> bool:
        return subject in self._said

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """Of whom something was said."""
        return tuple(self._said)

    def note(self, subject: Subject, word: Word, by: int, now_us: int) -> None:
        """A word was heard now.

        Args:
            subject: whom it is about.
            word: supersedes the one before, unless it was said earlier than that one.
            by: the connection that it came by.
            now_us: monotonic. A word that says it comes from the future, or from more than `FRESH_US` ago, was said by
                another clock (a time namespace); it counts as said now.
        """
        at_us = word.sent_us if now_us - FRESH_US <= word.sent_us <= now_us else now_us
        last = self._said.get(subject)
        if last is None or last.by != by or at_us >= last.at_us:
            self._said[subject] = _Said(by, at_us, word)

    def spread(self, subject: Subject, threads: tuple[int, ...]) -> None:
        """These are the threads of the subject's process now."""
        self._threads[subject] = threads

    def forget(self, subject: Subject) -> None:
        """It has ended, or its thread's number is somebody else's."""
        self._said.pop(subject, None)
        self._threads.pop(subject, None)

    def hung_up(self, by: int) -> None:
        """A connection ended: what it said counts no longer."""
        for subject in [subject for subject, said in self._said.items() if said.by == by]:
            self.forget(subject)

    def hints(self, now_us: int) -> dict[int, Hint]:
        """Of each thread: what was said of itself, or else of its process. Slack is what is left of it now."""
        found: dict[int, Hint] = {}
        for subject, said in self._said.items():
            if subject.whole:
                hint = _hint(said, now_us)
                found |= dict.fromkeys(self._threads.get(subject, (subject.task.tid,)), hint)
        for subject, said in self._said.items():
            if not subject.whole:
                found[subject.task.tid] = _hint(said, now_us)
        return found


def _hint(said: _Said, now_us: int) -> Hint:
    if said.hint is not None:
        return said.hint
    word, age_us = said.word, now_us - said.at_us
    is_fresh = age_us <= FRESH_US
    hint = Hint(
        at_us=said.at_us,
        kind=word.kind,
        slo_us=word.slo_us,
        slack_us=word.slack_us - age_us if is_fresh and word.slack_us is not None else None,
        queued=word.queued if is_fresh else None,
        served=word.served,
        missed=word.missed,
    )
    if not is_fresh or (word.slack_us is None and word.queued is None):
        said.hint = hint
    return hint
