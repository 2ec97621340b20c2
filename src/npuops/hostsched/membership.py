"""Who opted in: found among all processes, cheaply, again and again.

Covered as a descendant of a process: whoever has a chain of parents to it, whoever was once seen to have one, and
whoever is in a session that such a one leads. So an orphan stays in, and a daemon too, if it or its parent was seen
once. Not covered: one whose parent ended before the next scan and that left the session; to have these as well,
the agent adopts orphans (`command.py`) and names itself in `children_of`, or its user takes a cgroup.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Final

from npuops.eevdf.setting import FAIR
from npuops.errors import OptionError
from npuops.hostsched.grouping import cgroup_lines
from npuops.hostsched.knobs import KnobError, TaskGoneError, read_setting
from npuops.hostsched.process_stat import TaskStat, look_at, now_ticks, process_of, processes, threads
from npuops.hostsched.selection import Selection
from npuops.hostsched.task_id import TaskId

MOST_TASKS: Final = 64
RESCAN_US: Final = 200_000
RECHECK_US: Final = 1_000_000
"""How often all are looked at though no process or thread was made: some may have become another program, or moved."""
_YOUNG_TICKS: Final = 100
"""A second (of USER_HZ). So young, a process may be about to become another program (fork, then exec): it is looked at
again in each scan."""
_AGAIN: Final = 8
"""So many of the others are looked at again in each scan, in turn, and their threads are listed again."""
_LIST_US: Final = 2_000_000
"""How often all processes are listed though few were made meanwhile: these are asked for by their numbers, since to
list costs as much as twenty questions. Whoever was just being made, and had its number, but was not there yet, is found
then."""
_FEW: Final = 16
_MEMBERS_US: Final = 2_000_000
"""Where numbers and descent say who opted in, a look again tells little: that a number is somebody else's now, a
session or a user. So long the turn of those that opted in takes, with their threads,"""
_OTHERS_US: Final = 20_000_000
"""and that of all others."""
_RANK_US: Final = 1_000_000
_INCUMBENT: Final = 1.5
"""Who is in stays in unless somebody else used that much more: counters must run on to be of use."""
_SYS_NICE: Final = 23
"""CAP_SYS_NICE (include/uapi/linux/capability.h)."""


@dataclass(frozen=True, slots=True)
class Member:
    """A thread that opted in."""

    id: TaskId
    pid: int


@dataclass(slots=True)
class _Thread:
    member: Member
    used_ns: int = 0
    lately_ns: int = 0


@dataclass(slots=True)
class _Process:
    stat: TaskStat
    opted_in: bool = False
    descends: bool = False
    refused: str = ""
    listed: int = 0
    threads: dict[int, _Thread] = field(default_factory=dict)
    refused_threads: dict[int, str] = field(default_factory=dict)

    @property
    def watched(self) -> bool:
        return self.opted_in and not self.refused


class Membership:
    """Keeps the list of members.

    Never in it: PID 1, threads of the kernel, tasks with real-time priority or a reservation when they were found,
    other users' tasks where we lack CAP_SYS_NICE, and this very process.
    """

    def __init__(self, selection: Selection, *, spared: Collection[int] = (), most: int = MOST_TASKS) -> None:
        """Nothing is looked at yet but the processes that are named.

        Args:
            selection: who opts in.
            spared: processes that never do, nor what descends from them: the reaper. Looked at anew with each process.
            most: threads that may be members at a time.

        Raises:
            OptionError: a process that is named does not exist.
        """
        self._selection = selection
        self._spared = spared
        self._named = {pid: _existing(pid) for pid in (*selection.pids, *selection.children_of)}
        self._me = os.getpid()
        self._user = os.geteuid()
        self._may_touch_others = has_capability(_SYS_NICE)
        self._most = most
        self._processes: dict[int, _Process] = {}
        self._sessions: set[int] = set()
        self._turn = 0
        self._scanned_us: int | None = None
        self._asked_us: int | None = None
        self._newest: int | None = None
        self._listed_us: int | None = None
        self._has_young = False
        self._ranked_us: int | None = None
        self._members: tuple[Member, ...] = ()
        self._left_out = 0
        self._refused: dict[int, str] = {}

    @property
    def left_out(self) -> int:
        """Threads that opted in beyond the most that are watched."""
        return self._left_out

    @property
    def refused(self) -> dict[int, str]:
        """Processes and threads that fit the selection and are left alone all the same, and why."""
        return self._refused

    def look(
        self, now_us: int, favoured: Collection[int] = (), newest: Callable[[], int] | None = None
    ) -> tuple[Member, ...]:
        """The members, in an order that lasts while they do; the same object if nothing changed.

        Args:
            now_us: monotonic.
            favoured: threads that come first when there are too many: their application spoke of them.
            newest: tells what changes whenever somebody was made (`HostFiles.newest`); None: look each time.
        """
        if self._asked_us is None or now_us - self._asked_us >= RESCAN_US:
            self._asked_us = now_us
            self._scan_if_due(now_us, None if newest is None else newest(), favoured)
        return self._members

    def _scan_if_due(self, now_us: int, newest: int | None, favoured: Collection[int]) -> None:
        """Nobody new, and nobody who may just become another program: then there is nothing to see."""
        before, self._newest = self._newest, newest
        same = newest is not None and newest == before and not self._has_young
        gone_us = RESCAN_US if self._scanned_us is None else now_us - self._scanned_us
        if same and self._scanned_us is not None and gone_us < RECHECK_US:
            return
        self._scanned_us = now_us
        again = self._again(gone_us)
        made = range(0) if newest is None or before is None else range(before + 1, newest + 1)
        if newest is not None and before is not None:
            # After the last number the first are given again: a known one may be somebody else's.
            begun_anew = newest < before
            again |= {pid for pid in self._processes if pid in made or (begun_anew and not newest < pid <= before)}
        is_recent = self._listed_us is not None and now_us - self._listed_us < _LIST_US
        if is_recent and len(made) <= _FEW and (made or newest == before is not None):
            self._scan(again, made)
        else:
            self._listed_us = now_us
            self._scan(again, None)
        self._choose(now_us, favoured)

    def forget(self, gone: Collection[Member]) -> None:
        """They ended; their numbers may be others' from now on."""
        for member in gone:
            process = self._processes.get(member.pid)
            found = None if process is None else process.threads.get(member.id.tid)
            if process is not None and found is not None and found.member == member:
                del process.threads[member.id.tid]
        self._members = tuple(member for member in self._members if member not in gone)

    def opted_in(self) -> set[int]:
        """Processes that did and may be touched, also those of threads that are left out."""
        return {pid for pid, process in self._processes.items() if process.watched}

    def sessions(self) -> dict[int, int]:
        """Process → session, of everybody."""
        return {pid: process.stat.session for pid, process in self._processes.items()}

    def _scan(self, again: set[int], made: Collection[int] | None) -> None:
        """Look at those of `again`, and at who came: whoever has a number of `made`, None: whoever is not known yet."""
        if made is None:
            present = processes()
            for pid in self._processes.keys() - set(present):
                del self._processes[pid]
            grown = {pid for pid, each in self._processes.items() if each.watched and thread_count(pid) != each.listed}
            came = [pid for pid in present if pid not in self._processes]
        else:
            of = {number: process_of(number) for number in made}
            grown = {pid for number, pid in of.items() if pid is not None and pid != number}
            came = [number for number, pid in of.items() if pid == number]
        seen = sorted(pid for pid in {*came, *again} if self._enter(pid))
        self._follow_descent(seen)
        for pid in seen:
            self._judge(pid, self._processes[pid])
        born = now_ticks() - _YOUNG_TICKS
        by_looks = bool(self._selection.commands or self._selection.cgroups)
        self._has_young = by_looks and any(self._processes[pid].stat.start_ticks >= born for pid in seen)
        self._sessions &= {process.stat.session for process in self._processes.values()}
        looked = set(seen)
        for pid, process in self._processes.items():
            if process.watched and (pid in looked or pid in grown or not process.listed):
                self._scan_threads(pid, process, pid in looked)
        self._refused = {
            tid: why
            for pid, process in self._processes.items()
            if process.opted_in
            for tid, why in (*process.refused_threads.items(), *(((pid, process.refused),) if process.refused else ()))
        }

    def _again(self, gone_us: int) -> set[int]:
        """Known ones that are looked at again: the young, and some others in turn, more after a longer time."""
        self._turn += 1
        known = [pid for pid, process in self._processes.items() if not process.stat.kernels]
        born = now_ticks() - _YOUNG_TICKS
        # Descent and numbers are known at the first look; what it runs, and in which cgroup, may be to come.
        by_looks = bool(self._selection.commands or self._selection.cgroups)
        again = {
            pid
            for pid in known
            if self._processes[pid].stat.start_ticks >= born and (by_looks or self._processes[pid].watched)
        }
        if by_looks:
            rounds = max(-(-len(known) // (_AGAIN * max(gone_us // RESCAN_US, 1))), 1)
            return again | set(known[self._turn % rounds :: rounds])
        for turn_us, opted_in in ((_MEMBERS_US, True), (_OTHERS_US, False)):
            those = [pid for pid in known if self._processes[pid].opted_in == opted_in]
            rounds = max(turn_us // max(gone_us, 1), 1)
            again.update(those[self._turn % rounds :: rounds])
        return again

    def _enter(self, pid: int) -> bool:
        stat = look_at(pid)
        if stat is None or stat.over:
            self._processes.pop(pid, None)
            return False
        known = self._processes.get(pid)
        if known is not None and known.stat.id == stat.id:
            known.stat = stat
        else:
            self._processes[pid] = _Process(stat)
        return True

    def _follow_descent(self, looked: Collection[int]) -> None:
        """Until nobody new is found: a child may have a lower number than its parent."""
        found = bool(self._selection.children_of)
        while found:
            found = False
            for pid in looked:
                process = self._processes[pid]
                if not process.descends and self._descends(pid, process.stat):
                    process.descends = found = True
                    if process.stat.session == pid:
                        self._sessions.add(pid)

    def _descends(self, pid: int, stat: TaskStat) -> bool:
        if self._is_spared(pid):
            return False
        if pid in self._selection.children_of and self._named[pid] == stat.id:
            return True
        parent = self._processes.get(stat.parent)
        return stat.session in self._sessions or (parent is not None and parent.descends)

    def _is_spared(self, pid: int) -> bool:
        return pid == 1 or pid in self._spared

    def _judge(self, pid: int, process: _Process) -> None:
        ours = pid == self._me or pid in self._spared
        process.opted_in = not ours and (process.descends or self._fits(pid, process.stat.id))
        process.refused = ""
        if process.opted_in and pid == 1:
            process.refused = "the first process, on which all others depend"
        elif process.opted_in and process.stat.kernels:
            process.refused = "a thread of the kernel"
        elif process.opted_in and not self._may_touch_others and owner_of(pid) not in (self._user, None):
            process.refused = "another user's, and we lack CAP_SYS_NICE"
        if not process.watched:
            process.threads.clear()
            process.refused_threads.clear()

    def _fits(self, pid: int, process: TaskId) -> bool:
        selection = self._selection
        if pid in selection.pids and self._named[pid] == process:
            return True
        if selection.cgroups and selection.has_cgroup(tuple(path for _, path in cgroup_lines(f"/proc/{pid}/cgroup"))):
            return True
        return bool(selection.commands) and selection.has_command(*command_of(pid))

    def _scan_threads(self, pid: int, process: _Process, looked: bool) -> None:
        present = set(threads(pid))
        process.listed = len(present)
        for known in (process.threads, process.refused_threads):
            for tid in known.keys() - present:
                del known[tid]
        for tid in sorted(present - process.threads.keys()):
            if looked or tid not in process.refused_threads:
                self._admit(tid, process, process.stat if looked and tid == pid else look_at(tid))

    def _admit(self, tid: int, process: _Process, stat: TaskStat | None) -> None:
        if stat is None or stat.over:
            return
        try:
            policy = read_setting(tid).policy
        except TaskGoneError:
            return
        except (KnobError, OptionError) as error:
            process.refused_threads[tid] = error.message
            return
        if policy not in FAIR:
            process.refused_threads[tid] = f"found with policy {policy.name.lower()}"
            return
        process.refused_threads.pop(tid, None)
        process.threads[tid] = _Thread(Member(stat.id, process.stat.tid))

    def _choose(self, now_us: int, favoured: Collection[int]) -> None:
        """Keep the order of those who stay; the newcomers go to the end."""
        found = {thread.member: thread for process in self._processes.values() for thread in process.threads.values()}
        chosen = set(found)
        self._left_out = max(len(found) - self._most, 0)
        if self._left_out:
            held = chosen.intersection(self._members)
            ranked_us = self._ranked_us
            if ranked_us is not None and now_us - ranked_us < _RANK_US and len(held) == self._most:
                return
            self._ranked_us = now_us
            chosen = self._busiest(found, held, favoured)
        stay = [member for member in self._members if member in chosen]
        come = sorted(chosen.difference(stay), key=lambda member: member.id)
        if come or len(stay) != len(self._members):
            self._members = (*stay, *come)

    def _busiest(
        self, found: dict[Member, _Thread], held: Collection[Member], favoured: Collection[int]
    ) -> set[Member]:
        for member, thread in found.items():
            used_ns = used_so_far_ns(member.pid, member.id.tid)
            thread.lately_ns, thread.used_ns = max(used_ns - thread.used_ns, 0), used_ns

        def rank(member: Member) -> tuple[bool, float, bool, TaskId]:
            lately = found[member].lately_ns * (_INCUMBENT if member in held else 1.0)
            return member.id.tid not in favoured, -lately, member not in held, member.id

        return set(sorted(found, key=rank)[: self._most])


def _existing(pid: int) -> TaskId:
    stat, process = look_at(pid), process_of(pid)
    if stat is None or stat.over:
        raise OptionError(f"there is no process {pid}", advice="it ended, or the number is wrong: look with `ps`")
    if process not in (pid, None):
        raise OptionError(f"{pid} is a thread of process {process}", advice=f"name the process: {process}")
    return stat.id


def command_of(pid: int) -> tuple[str, str]:
    """The kernel's name of a process, and the first word of its command line; empty when it ended."""
    words = []
    for name, size in (("comm", 64), ("cmdline", 4096)):
        try:
            with open(f"/proc/{pid}/{name}", "rb") as file:  # noqa: PTH123 - many, and often
                words.append(os.fsdecode(file.read(size).rstrip(b"\n").partition(b"\0")[0]))
        except (FileNotFoundError, ProcessLookupError):
            words.append("")
    return words[0], words[1]


def thread_count(pid: int) -> int:
    """Threads of a process; 0 when it ended. Cheaper than listing them: its folder has a link for each."""
    try:
        return os.stat(f"/proc/{pid}/task").st_nlink - 2  # noqa: PTH116 - many, and often
    except FileNotFoundError:
        return 0


def owner_of(pid: int) -> int | None:
    """The user of a process; None when it ended. Of one that may not be dumped: root, so that it is left alone."""
    try:
        return os.stat(f"/proc/{pid}").st_uid  # noqa: PTH116 - as above
    except FileNotFoundError:
        return None


def used_so_far_ns(pid: int, tid: int) -> int:
    """CPU time and waiting for it; 0 when the thread ended."""
    try:
        with open(f"/proc/{pid}/task/{tid}/schedstat", "rb") as file:  # noqa: PTH123 - as above
            return sum(map(int, file.read(96).split()[:2]))
    except (FileNotFoundError, ProcessLookupError):
        return 0


def has_capability(number: int) -> bool:
    """Whether this process has it, effective."""
    with open("/proc/self/status", "rb") as file:  # noqa: PTH123 - as above
        line = next(line for line in file if line.startswith(b"CapEff:"))
    return bool(int(line.split()[1], 16) >> number & 1)
