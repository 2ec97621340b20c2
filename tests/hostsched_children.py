"""Children to be scheduled, and patience with the kernel: for the tests of knobs, actuator and reaper."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import pytest

from npuops.eevdf.setting import SchedPolicy, Setting
from npuops.hostsched.knobs import KnobError, NotPermittedError, read_setting, write_setting
from npuops.hostsched.plan import Orders
from npuops.hostsched.process_stat import alive, look_at
from npuops.hostsched.task_id import GroupId, TaskId

LIMIT_S = 60.0
RESERVED = Setting(SchedPolicy.DEADLINE, runtime_us=1000, period_us=10_000, reset_on_fork=True)

FAMILY = """
import subprocess, sys, threading
release = threading.Event()
children = []
for line in sys.stdin:
    word = line.strip()
    if word == "thread":
        thread = threading.Thread(target=release.wait, daemon=True)
        thread.start()
        print(thread.native_id, flush=True)
    elif word == "child":
        children.append(subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE))
        print(children[-1].pid, flush=True)
    elif word == "orphan":
        made = "import subprocess; print(subprocess.Popen(['sleep', '120'], stdout=subprocess.DEVNULL).pid)"
        told = subprocess.run([sys.executable, "-c", made], stdout=subprocess.PIPE, text=True)
        print(told.stdout.strip(), flush=True)
release.set()
for child in children:
    child.kill()
    child.wait()
"""


class Child:
    """A process that waits for orders: `thread`, `child`, `orphan` make one and tell its number."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.pid = process.pid
        self.id = task_id(process.pid)
        self.orphans: list[TaskId] = []

    def make(self, kind: str) -> TaskId:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{kind}\n")
        self.process.stdin.flush()
        made = task_id(int(self.process.stdout.readline()))
        self.orphans += [made] if kind == "orphan" else []
        return made

    @property
    def setting(self) -> Setting:
        return read_setting(self.pid)


@contextmanager
def child(prefix: tuple[str, ...] = ()) -> Iterator[Child]:
    process = subprocess.Popen(
        [*prefix, sys.executable, "-c", FAMILY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    one = Child(process)
    try:
        yield one
    finally:
        for orphan in one.orphans:
            if alive(orphan):
                os.kill(orphan.tid, signal.SIGKILL)
        process.communicate(timeout=LIMIT_S)


def task_id(tid: int) -> TaskId:
    stat = look_at(tid)
    assert stat is not None
    return stat.id


def orders(
    tasks: Mapping[TaskId, Setting | None] | None = None, groups: Mapping[GroupId, int | None] | None = None
) -> Orders:
    return Orders(tasks or {}, groups or {})


def eventually(holds: Callable[[], bool], what: str = "") -> None:
    """Wait for what another process brings about."""
    until = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < until, what or "it did not happen"
        time.sleep(0.005)


def is_readable(descriptor: int) -> bool:
    """Now, without waiting for it."""
    return bool(select.select([descriptor], [], [], 0)[0])


def may_raise() -> bool:
    with child() as one:
        try:
            write_setting(one.pid, Setting(nice=-1))
        except NotPermittedError:
            return False
        return True


def need_privilege() -> None:
    if not may_raise():
        pytest.skip("CAP_SYS_NICE is missing: a nice value that was raised could not be lowered again")


def need_reservations() -> None:
    with child() as one:
        try:
            write_setting(one.pid, RESERVED)
        except KnobError as refused:
            pytest.skip(f"no reservations here: {refused.message}")


def without_privilege() -> tuple[str, ...]:
    """What to put before a command so that it runs without any capability, and with no RLIMIT_NICE of its own."""
    if os.geteuid() != 0:
        return ()
    path = "/usr/bin/setpriv"
    if not os.path.exists(path):  # noqa: PTH110
        pytest.skip("setpriv is missing: cannot drop CAP_SYS_NICE")
    return ("/usr/bin/prlimit", "--nice=0:0", path, "--bounding-set=-all", "--inh-caps=-all")
