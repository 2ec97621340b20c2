"""Looks at the host: who opted in, what each did so far, what each is set to, and how the machine is.

What changes at every look is read at every look; what seldom changes is read in turn, some at a time, so that no look
is much longer than the others. `recheck` brings forward what is known to have changed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Final, Self

from npuops.clock import Clock
from npuops.eevdf.setting import FAIR, SchedPolicy, Setting
from npuops.errors import OptionError
from npuops.hostsched.counter_rows import Counted, counter_rows
from npuops.hostsched.descriptions import Descriptions, Place, place_of
from npuops.hostsched.frame import Frame, Task
from npuops.hostsched.group_knobs import read_group_nice
from npuops.hostsched.grouping import whole
from npuops.hostsched.hint import Hint
from npuops.hostsched.host_files import HostFiles
from npuops.hostsched.knobs import KnobError, TaskGoneError, Watch, read_setting
from npuops.hostsched.look_library import Reader, usual_reader
from npuops.hostsched.membership import Member, Membership
from npuops.hostsched.proc_files import Descriptors
from npuops.hostsched.task_id import GroupId, TaskId

SETTING_US: Final = 1_000_000
"""Settings are read at least so often: npuops' own changes come by `recheck`, this finds what others do."""
TASK_US: Final = 4_000_000
"""As are names, groups and CPUs."""
GROUP_US: Final = 1_000_000
"""As are the nice values of groups, and who is in them."""


_MAY_BE: Final = FAIR | {SchedPolicy.DEADLINE}
"""A task that somebody made FIFO or RR meanwhile is left alone from then on."""


@dataclass(slots=True)
class _Watched:
    member: Member
    task: Task
    setting: Setting
    files: Counted
    place: Place
    raw: bytes = b""


class Signals:
    """Makes frames. It keeps descriptors: close it, or use it in `with`."""

    def __init__(
        self,
        membership: Membership,
        clock: Clock,
        *,
        most_descriptors: int | None = None,
        reader: Reader | None = None,
    ) -> None:
        """Nothing is looked at yet.

        Args:
            membership: who opted in.
            clock: of `Frame.at_us` and of `Hint.at_us`: the same for both.
            most_descriptors: to keep open; what more would be useful is opened at each look.
            reader: who reads what changes at every look; None: the usual one.
        """
        self._membership = membership
        self._clock = clock
        self._descriptors = Descriptors(most_descriptors)
        library = (reader or usual_reader()).library
        self._host = HostFiles(self._descriptors, library)
        self._rows = counter_rows(self._descriptors, library)
        self._descriptions = Descriptions()
        self._members: tuple[Member, ...] = ()
        self._watched: list[_Watched] = []
        self._tids: tuple[int, ...] = ()
        self._tasks: tuple[Task, ...] = ()
        self._settings: tuple[Setting, ...] = ()
        self._groups: dict[GroupId, int] = {}
        self._groups_at_us: int | None = None
        self._looked_us: int | None = None
        self._recheck: set[TaskId | GroupId] = set()
        self._watch_settings = Watch()
        self._setting_turn = Turn(SETTING_US)
        self._task_turn = Turn(TASK_US)

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Give back all descriptors; a later look opens them again."""
        self._descriptors.close()

    @property
    def left_out(self) -> int:
        """Threads that opted in and are not watched, because there are too many."""
        return self._membership.left_out

    @property
    def refused(self) -> dict[int, str]:
        """Processes and threads that opted in and are left alone all the same, and why."""
        return self._membership.refused

    def recheck(self, changed: Iterable[TaskId | GroupId]) -> None:
        """Somebody set these just now: the next frame tells it."""
        self._recheck.update(changed)

    def look(self, hints: Mapping[int, Hint]) -> Frame:
        """One look, now.

        Args:
            hints: by thread, as applications said last.

        Raises:
            KnobError: /proc cannot be read, or no descriptor is left.
        """
        now_us = self._clock.now_us()
        window_us = now_us - self._looked_us if self._looked_us is not None else 0
        self._looked_us = now_us
        self._follow(self._membership.look(now_us, hints.keys(), self._host.newest), now_us)
        gone = self._rows.look(now_us)
        gone += self._read_in_turn(window_us, now_us)
        if gone:
            self._lose(gone, now_us)
        self._read_groups(now_us)
        self._recheck.clear()
        return Frame(
            at_us=now_us,
            tasks=self._tasks,
            counters=self._rows.counters.copy(),
            settings=self._settings,
            hints=tuple(map(hints.get, self._tids)),
            group_nices=self._groups,  # replaced when it changes, never written to
            host=self._host.read(now_us),
        )

    def _follow(self, members: tuple[Member, ...], now_us: int) -> None:
        """Open the files of those who came, close those of the ones that left."""
        if members is self._members:
            return
        before = {watched.member: watched for watched in self._watched}
        staying = [before.pop(member, None) or self._watch(member, now_us) for member in members]
        for left in before.values():
            left.files.close()
        self._watched = [watched for watched in staying if watched is not None]
        self._members = members
        self._settle()
        ended = {member for member, watched in zip(members, staying, strict=True) if watched is None}
        if ended:
            self._membership.forget(ended)

    def _watch(self, member: Member, now_us: int) -> _Watched | None:
        """None when it ended."""
        files = self._rows.open(f"/proc/{member.pid}/task/{member.id.tid}", now_us)
        if files is None:
            return None
        place = place_of(member)
        # These two last: after them, since the files are open, what they say is of this very thread.
        task = self._descriptions.describe(member, place, now_us)
        setting = None if task is None else setting_of(member)
        if task is None or setting is None:
            files.close()
            return None
        return _Watched(member, task, setting, files, place)

    def _settle(self) -> None:
        """Bring what frames are made of in line with who is watched."""
        self._tasks = tuple(watched.task for watched in self._watched)
        self._settings = tuple(watched.setting for watched in self._watched)
        self._tids = tuple(watched.member.id.tid for watched in self._watched)
        self._rows.arrange([watched.files for watched in self._watched])
        self._groups_at_us = None

    def _lose(self, gone: Collection[int], now_us: int) -> None:
        """They ended, or are no longer ours to look at."""
        self._membership.forget({self._watched[row].member for row in gone})
        self._follow(self._membership.look(now_us), now_us)

    def _read_in_turn(self, window_us: int, now_us: int) -> list[int]:
        """What seldom changes, of some; rows of those that ended or that others took over."""
        gone: list[int] = []
        count = len(self._watched)
        named = [row for row in range(count) if self._watched[row].task.id in self._recheck] if self._recheck else []
        due = self._setting_turn.rows(count, window_us)
        for row in {*due, *named} if named else due:
            watched = self._watched[row]
            raw = self._watch_settings.raw(watched.member.id.tid)
            if raw and raw == watched.raw:
                continue
            # Of what was read after it, it may be the elder: then the next turn finds that it differs, and reads again.
            watched.raw, setting = raw, setting_of(watched.member)
            if setting is None:
                gone.append(row)
            elif setting != watched.setting:
                watched.setting = setting
                self._settings = tuple(watched.setting for watched in self._watched)
        gone.extend(row for row in self._task_turn.rows(count, window_us) if not self._describe_again(row, now_us))
        return gone

    def _describe_again(self, row: int, now_us: int) -> bool:
        """False when it ended."""
        watched = self._watched[row]
        place = place_of(watched.member)
        if place == watched.place:
            return True
        task = self._descriptions.describe(watched.member, place, now_us)
        if task is None:
            return False
        self._watched[row] = replace(watched, task=task, place=place)
        self._tasks = tuple(each.task for each in self._watched)
        self._groups_at_us = None
        return True

    def _read_groups(self, now_us: int) -> None:
        due = self._groups_at_us is None or now_us - self._groups_at_us >= GROUP_US
        if not due and not any(isinstance(each, GroupId) for each in self._recheck):
            return
        self._groups_at_us = now_us
        opted_in, sessions = self._membership.opted_in(), self._membership.sessions()
        likely: dict[GroupId, int] = {}
        for task in self._tasks:  # the eldest of each: of a build, the others come and go
            if task.group is not None:
                likely.setdefault(task.group, task.pid)
        settable = whole(likely, opted_in, sessions)
        told = {group: nice_of_group(group, pid) for group, pid in likely.items() if group in settable}
        found = {group: nice for group, nice in told.items() if nice is not None}
        if found != self._groups:
            self._groups = found


class Turn:
    """Which rows are due, so that each is once in a period and no look has many more than another."""

    def __init__(self, period_us: int) -> None:
        """Begins with the first row."""
        self._period_us = period_us
        self._owed = 0.0
        self._next = 0

    def rows(self, count: int, window_us: int) -> list[int]:
        """Of so many, after so long a time; at most all of them, once."""
        self._owed = min(self._owed + count * window_us / self._period_us, count)
        due = int(self._owed)
        self._owed -= due
        first, self._next = self._next, self._next + due
        return [row % count for row in range(first, first + due)]


def setting_of(member: Member) -> Setting | None:
    """None when it ended, or has a policy that is not ours to touch."""
    try:
        setting = read_setting(member.id.tid)
    except (TaskGoneError, OptionError):
        return None
    return setting if setting.policy in _MAY_BE else None


def nice_of_group(group: GroupId, member: int) -> int | None:
    """None where it cannot be told, and so not be set."""
    try:
        return read_group_nice(group, member)
    except KnobError:
        return None
