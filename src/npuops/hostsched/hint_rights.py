"""Who may speak of whom: a process of its own threads and of those of its descendants, root of any."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from npuops.hostsched.hint_book import Subject
from npuops.hostsched.hint_wire import Word
from npuops.hostsched.process_stat import look_at
from npuops.hostsched.task_id import TaskId

GENERATIONS: Final = 16
"""How far up a descendant is looked for."""
_Status = tuple[int, int, int]


class No(StrEnum):
    """Why a word is not taken."""

    FOREIGN = "it is about somebody else's thread"
    GONE = "there is no such thread"


@dataclass(frozen=True, slots=True)
class Speaker:
    """Who said it, by the kernel's word (SCM_CREDENTIALS).

    Attributes:
        pid: process.
        uid: real user.
    """

    pid: int
    uid: int


def subject_of(speaker: Speaker, word: Word) -> Subject | No:
    """Whom the word is about, if the speaker may say it.

    A speaker whose number was given to another user's process meanwhile is nobody: real users must be the same.
    """
    tid = word.tid or speaker.pid
    status = _status(tid)
    if status is None:
        return No.GONE
    process, parent, uid = status
    if speaker.uid not in {0, uid}:
        return No.FOREIGN
    if speaker.uid != 0 and process != speaker.pid and not _descends(parent, speaker.pid):
        return No.FOREIGN
    whole = word.whole or word.tid == 0
    start_ticks = start_of(process if whole else tid)
    if start_ticks is None:
        return No.GONE
    return Subject(TaskId(process if whole else tid, start_ticks), whole)


def lasts(speaker: Speaker, subject: Subject) -> bool:
    """As long as the subject is there, the speaker may speak of it: root, and a process of its own threads.

    A process that became another user's says so by the kernel's word, and is another speaker then. Descent may end.
    """
    return speaker.uid == 0 or os.path.exists(f"/proc/{speaker.pid}/task/{subject.task.tid}")  # noqa: PTH110 - often


def start_of(tid: int) -> int | None:
    """When a thread began, in ticks since boot; None where there is none."""
    stat = look_at(tid)
    return None if stat is None else stat.start_ticks


def _descends(parent: int, ancestor: int) -> bool:
    for _ in range(GENERATIONS):
        if parent == ancestor:
            return True
        if parent <= 1:
            return False
        status = _status(parent)
        if status is None:
            return False
        parent = status[1]
    return False


def _status(tid: int) -> _Status | None:
    """Process, parent process, and real user."""
    text = _read(f"/proc/{tid}/status")
    if text is None:
        return None
    found = {key: rest for key, _, rest in (line.partition(b":") for line in text.split(b"\n"))}
    try:
        return int(found[b"Tgid"]), int(found[b"PPid"]), int(found[b"Uid"].split()[0])
    except (KeyError, ValueError, IndexError):
        return None


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - a Path for each look would cost as much as the read
            return file.read()
    except OSError:  # it has ended, or /proc hides it from us
        return None
