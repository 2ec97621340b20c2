"""A small process that outlives an agent by moments and puts back what it changed: `python -m npuops.hostsched.reaper`.

It is started before the first change. It sleeps until the agent dies (pidfd, and the end of a pipe that only the
agent holds) or its heartbeat stands still. Then it puts everything back by the lease file:

- the agent died: it puts back, removes the file, ends;
- the heartbeat stands still: it revokes the agent's term first, puts back, says so, and goes on watching;
- the agent says goodbye: it ends.

It takes no other orders: not even to terminate, since whoever stops a service stops the agent too, which then says
goodbye or dies.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import gc
import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from npuops.errors import IntegrityError
from npuops.hostsched.attributes import Attributes
from npuops.hostsched.group_knobs import autogroup_of, write_native
from npuops.hostsched.heartbeat import Heartbeat
from npuops.hostsched.knobs import KnobError, base_slice_ns, write_attributes
from npuops.hostsched.lease_file import read_lease_file
from npuops.hostsched.process_stat import alive
from npuops.hostsched.restoration import put_back, words
from npuops.hostsched.task_id import TaskId

READY: Final = b"ready\n"
GOODBYE: Final = b"goodbye\n"
_MOST_NICE: Final = -20
_LOCK_ON_TOUCH: Final = 1 | 4
"""MCL_CURRENT | MCL_ONFAULT: pages stay once they are there, and none is fetched for it. Not MCL_FUTURE: under a limit
(RLIMIT_MEMLOCK) it would refuse memory when it counts."""


def main(arguments: list[str]) -> int:
    """Watch one agent; 1 if something could not be put back."""
    options = argparse.ArgumentParser(prog="npuops.hostsched.reaper")
    options.add_argument("--agent", required=True, help="PID:START")
    options.add_argument("--leases", required=True, type=Path)
    options.add_argument("--heartbeat", required=True, help="descriptors of the shared page and alarm: PAGE:ALARM")
    options.add_argument("--timeout-ms", required=True, type=int)
    given = options.parse_args(arguments)
    tid, start = (int(word) for word in given.agent.split(":"))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.chdir("/")
    protect()
    page, timer = (int(word) for word in given.heartbeat.split(":"))
    reaper = Reaper(TaskId(tid, start), given.leases, Heartbeat(given.timeout_ms * 1000, (page, timer)))
    with suppress(BrokenPipeError):  # the agent died while we began; its file is still to be looked at
        os.write(1, READY)
    return reaper.watch()


class Reaper:
    """Watches one agent; standard input is the pipe."""

    def __init__(self, agent: TaskId, leases: Path, heartbeat: Heartbeat) -> None:
        """Prepare everything that may fail, before anybody relies on it."""
        self._agent = agent
        self._leases = leases
        self._heartbeat = heartbeat
        self._doubted: int | None = None
        """The count at which the alarm rang, while the agent has its last chance."""
        self._poll = select.poll()
        self._poll.register(0, select.POLLIN | select.POLLHUP)
        self._poll.register(heartbeat.alarm.descriptor, select.POLLIN)
        self._wakes_us: int | None = None
        """How often to ask whether the agent lives; None: we are told."""
        try:
            self._poll.register(os.pidfd_open(agent.tid), select.POLLIN)
        except OSError:  # no pidfd here, or the agent is dead already: the pipe tells the same
            self._wakes_us = heartbeat.grace_us

    def watch(self) -> int:
        """Until the agent died or says goodbye."""
        if not alive(self._agent):  # and the pidfd is another's
            return self._bury()
        while True:
            limit_us = self._wakes_us if self._doubted is None else self._heartbeat.grace_us
            ready = dict(self._poll.poll(None if limit_us is None else limit_us / 1000))
            rang = ready.pop(self._heartbeat.alarm.descriptor, None) is not None
            if ready.get(0) and os.read(0, len(GOODBYE)) == GOODBYE:
                return 0
            if ready or (self._wakes_us is not None and not alive(self._agent)):
                return self._bury()
            if rang:
                self._heartbeat.alarm.quiet()
                self._doubted = self._heartbeat.count
            elif self._doubted is not None:
                self._judge(self._doubted)

    def _judge(self, doubted: int) -> None:
        """The agent had its last chance."""
        self._doubted = None
        if self._heartbeat.count != doubted:
            self._heartbeat.alarm.put_off()  # it may have rung for a beat whose second half came only now
        elif self._heartbeat.held:
            self._revoke()

    def _revoke(self) -> None:
        self._heartbeat.revoke()
        said: tuple[str, ...] = ()
        with suppress(FileNotFoundError, IntegrityError):  # nothing was changed yet; a torn header is never written
            result = put_back(read_lease_file(self._leases).leases)
            if result.back or result.failed:
                said = (f"the agent {self._agent.tid} does not answer: its leases are over", *words(result))
        self._heartbeat.done()
        say(*said)

    def _bury(self) -> int:
        """The agent is dead: nobody writes its file any more."""
        self._heartbeat.revoke()
        with locked(self._leases) as mine:
            if not mine:
                return 0
            try:
                result = put_back(read_lease_file(self._leases).leases)
            except IntegrityError as error:
                say(error.message)
                return 1
            self._heartbeat.done()
            if result.back or result.failed:
                say(f"the agent {self._agent.tid} died", *words(result))
            if result.failed:
                return 1  # the file stays for `npuops hostsched restore`
            self._leases.unlink(missing_ok=True)
            return 0


@contextmanager
def locked(leases: Path) -> Iterator[bool]:
    """Hold a dead agent's file while it is worked off; False when somebody has done that already."""
    try:
        descriptor = os.open(leases, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            same = os.path.samestat(os.fstat(descriptor), leases.lstat())
        except FileNotFoundError:
            same = False
        yield same
    finally:
        os.close(descriptor)


def protect() -> None:
    """Be there when it counts, as far as this process may: first in line, in memory, not the one to be killed."""
    base_slice_ns()  # asked for now: it starts a thread
    libc = ctypes.CDLL(None, use_errno=True)
    with suppress(KnobError):  # without privilege it stays at what it has
        write_attributes(0, Attributes(nice=_MOST_NICE))
    group = autogroup_of(os.getpid())  # only its group's nice value counts against others
    if group is not None and os.getsid(0) == os.getpid():  # so nobody else is in it
        with suppress(KnobError):
            write_native(group[0], _MOST_NICE, os.getpid())
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("-900", encoding="ascii")
    libc.mlockall(_LOCK_ON_TOUCH)  # as far as RLIMIT_MEMLOCK goes; a refusal costs only speed
    gc.collect()
    gc.disable()


def say(*lines: str) -> None:
    """To whoever still listens where the agent wrote its own; a terminal or pipe that is stopped must not stop us."""
    with suppress(OSError):
        for line in lines:
            if select.select([], [2], [], 0)[1]:
                os.write(2, f"npuops hostsched reaper: {line}\n".encode(errors="replace"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
