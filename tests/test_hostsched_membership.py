"""Who opted in, on this kernel, among processes that the test starts."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from hostsched_children import eventually
from npuops.errors import OptionError
from npuops.hostsched.membership import MOST_TASKS, RECHECK_US, RESCAN_US, Membership, has_capability
from npuops.hostsched.process_stat import look_at
from npuops.hostsched.selection import Selection

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a program; the program, and what its session left behind, ends with the test."""
    with ExitStack() as stack:

        def begin(*words: str, **options: object) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True, **options
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield begin


def python(program: str) -> tuple[str, str, str]:
    return sys.executable, "-c", program


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


class Scans:
    """Looks again and again; time is ours."""

    def __init__(self, selection: Selection, **options: object) -> None:
        self.membership = Membership(selection, **options)
        self._now_us = 0

    def pids(self) -> set[int]:
        return {member.pid for member in self.members()}

    def members(self, favoured: tuple[int, ...] = ()) -> list:
        self._now_us += RESCAN_US
        return list(self.membership.look(self._now_us, favoured))

    def until(self, true: Callable[[], bool]) -> None:
        """What takes as long as the kernel takes; the limit of the test run is the limit."""
        pause = threading.Event()
        while not true():
            pause.wait(0.005)


_TREE = """
import os, sys
child = os.fork()
if child == 0:
    grandchild = os.fork()
    if grandchild == 0:
        sys.stdin.readline(); os._exit(0)
    print(os.getpid(), grandchild, flush=True)
    os.waitpid(grandchild, 0); os._exit(0)
os.waitpid(child, 0)
"""


def test_a_process_opts_in_with_all_that_descends_from_it(start: Start) -> None:
    root = start(*python(_TREE))
    family = {root.pid, *map(int, said(root).split())}
    other = start("sleep", "600")
    scans = Scans(Selection(children_of=(root.pid,)))
    assert scans.pids() == family
    assert other.pid not in scans.membership.opted_in()
    assert Scans(Selection(pids=(root.pid,))).pids() == {root.pid}


_ORPHAN = """
import os, sys
if os.fork() == 0:
    os.setsid() if "setsid" in sys.argv else None
    if os.fork() == 0:
        print(os.getpid(), flush=True)
        sys.stdin.readline()
        os._exit(0)
    if "stay" in sys.argv:
        sys.stdin.readline()
    os._exit(0)
os.wait()
sys.stdin.readline()
"""


def test_an_orphan_stays_in_by_the_session_of_its_forebears_though_nobody_saw_its_parent(start: Start) -> None:
    root = start(*python(_ORPHAN))
    orphan = int(said(root))
    scans = Scans(Selection(children_of=(root.pid,)))
    scans.until(lambda: (stat := look_at(orphan)) is not None and stat.parent not in (root.pid, orphan - 1))
    assert scans.pids() == {root.pid, orphan}
    assert root.stdin is not None
    root.stdin.write("\n\n")


def test_an_orphan_that_was_seen_before_stays_in(start: Start) -> None:
    root = start(*python(_TREE))
    child, grandchild = map(int, said(root).split())
    scans = Scans(Selection(children_of=(root.pid,)))
    assert grandchild in scans.pids()
    os.kill(child, 9)
    scans.until(lambda: (stat := look_at(grandchild)) is not None and stat.parent != child)
    root.wait()
    assert scans.pids() == {grandchild}
    os.kill(grandchild, 9)


def test_what_an_adopter_gets_is_its_own_and_what_is_spared_is_not(start: Start) -> None:
    """The agent names itself: its children are members, it is not, and its reaper is not."""
    child, reaper = start("sleep", "600"), start("sleep", "600")
    scans = Scans(Selection(children_of=(os.getpid(),)), spared=(reaper.pid,))
    found = scans.pids()
    assert child.pid in found
    assert not found & {os.getpid(), reaper.pid, 1}


def test_who_is_spared_may_become_more_while_it_runs(start: Start) -> None:
    """A reaper that died is replaced, and the new one is no task of anybody's either."""
    reapers = {start("sleep", "600").pid}
    scans = Scans(Selection(children_of=(os.getpid(),)), spared=reapers)
    assert not scans.pids() & reapers
    child, second = start("sleep", "600"), start("sleep", "600")
    reapers.add(second.pid)
    scans.until(lambda: child.pid in scans.pids())
    assert not scans.pids() & reapers


def test_a_command_opts_in_by_what_it_is_called_now_not_by_what_it_was_forked_from(start: Start) -> None:
    name = f"npuops-{uuid.uuid4().hex[:6]}"
    program = f"import os, sys; sys.stdin.readline(); os.execv('/bin/sleep', ['/opt/{name}', '600'])"
    process = start(*python(program))
    scans = Scans(Selection(commands=(f"{name[:-2]}*",)))
    assert scans.pids() == set()
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    scans.until(lambda: scans.pids() == {process.pid})
    assert Scans(Selection(commands=(f"/opt/{name}",))).pids() == {process.pid}
    assert process.pid in Scans(Selection(commands=("sleep",))).pids()


def test_threads_are_members_one_by_one_and_leave_when_they_end(start: Start) -> None:
    program = (
        "import sys, threading\n"
        "gates = [threading.Event() for _ in range(3)]\n"
        "threads = [threading.Thread(target=gate.wait) for gate in gates]\n"
        "[thread.start() for thread in threads]\n"
        "print(flush=True)\n"
        "sys.stdin.readline(); gates[0].set(); threads[0].join(); print(threads[0].native_id, flush=True)\n"
        "sys.stdin.readline(); [gate.set() for gate in gates]\n"
    )
    process = start(*python(program))
    said(process)
    scans = Scans(Selection(pids=(process.pid,)))
    before = scans.members()
    assert len(before) == 4
    assert {member.pid for member in before} == {process.pid}
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    ended = int(said(process))
    scans.until(lambda: look_at(ended) is None)
    assert scans.members() == [member for member in before if member.id.tid != ended]


def test_a_process_that_ended_leaves_and_the_others_keep_their_order(start: Start) -> None:
    sleepers = [start("sleep", "600") for _ in range(3)]
    scans = Scans(Selection(pids=tuple(each.pid for each in sleepers)))
    before = scans.members()
    assert scans.membership.look(0) is scans.membership.look(0)
    sleepers[1].kill()
    sleepers[1].wait()
    assert scans.members() == [before[0], before[2]]


def test_no_thread_of_the_kernel_no_init_and_not_this_process_whatever_is_selected() -> None:
    scans = Scans(Selection(commands=("kworker*", "kthreadd"), pids=(1, os.getpid())))
    assert scans.pids() == set()
    assert scans.membership.refused[1] == "the first process, on which all others depend"
    if (kthread := look_at(2)) is None or not kthread.kernels:
        pytest.skip("no thread of the kernel is visible here")
    assert scans.membership.refused[2] == "a thread of the kernel"


def test_a_task_with_real_time_priority_is_left_alone_and_comes_in_when_it_is_back(start: Start) -> None:
    process = start("sleep", "600")
    try:
        os.sched_setscheduler(process.pid, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        pytest.skip("CAP_SYS_NICE is missing: no task can be made a real-time one")
    scans = Scans(Selection(pids=(process.pid,)))
    assert scans.pids() == set()
    assert scans.membership.refused == {process.pid: "found with policy rr"}
    os.sched_setscheduler(process.pid, os.SCHED_OTHER, os.sched_param(0))
    scans.until(lambda: scans.pids() == {process.pid})
    assert scans.membership.refused == {}


_AS_NOBODY = """
import os, sys
from npuops.hostsched.membership import Membership
from npuops.hostsched.selection import Selection
os.setgroups([]); os.setgid(65534); os.setuid(65534)
own = os.posix_spawn("/bin/sleep", ["sleep", "600"], {})
seen = Membership(Selection(pids=(int(sys.argv[1]), own)))
print([member.pid for member in seen.look(0)] == [own], seen.refused, flush=True)
os.kill(own, 9)
"""


def test_without_privilege_other_users_tasks_are_left_alone(start: Start) -> None:
    if os.geteuid() != 0:
        pytest.skip("root is needed to become another user")
    sleeper = start("sleep", "600")
    other = start(sys.executable, "-c", _AS_NOBODY, str(sleeper.pid))
    assert said(other) == f'True {{{sleeper.pid}: "another user\'s, and we lack CAP_SYS_NICE"}}'


def test_of_too_many_threads_the_busiest_and_those_that_spoke_are_watched(start: Start) -> None:
    program = (
        "import sys, threading\n"
        "gate, ready = threading.Event(), threading.Barrier(71)\n"
        "def idle():\n    ready.wait(); gate.wait()\n"
        "threads = [threading.Thread(target=idle, daemon=True) for _ in range(70)]\n"
        "[thread.start() for thread in threads]\n"
        "ready.wait(); print(threads[-1].native_id, flush=True)\n"
        "while True: sum(range(10000))\n"
    )
    process = start(*python(program))
    quiet = int(said(process))
    scans = Scans(Selection(pids=(process.pid,)))
    members = scans.members(favoured=(quiet,))
    assert len(members) == MOST_TASKS
    assert scans.membership.left_out == 71 - MOST_TASKS
    assert {quiet, process.pid} <= {member.id.tid for member in members}
    assert scans.members(favoured=(quiet,)) == members, "who is in stays in"
    assert scans.membership.opted_in() == {process.pid}


def test_a_cgroup_opts_in_with_what_is_below_it(start: Start) -> None:
    top = Path("/sys/fs/cgroup/cpu") / f"npuops-test-{uuid.uuid4().hex[:8]}"
    try:
        (top / "below").mkdir(parents=True)
    except OSError as error:
        pytest.skip(f"no cgroup v1 of the cpu controller can be made here: {error}")
    inside, below, outside = (start("sleep", "600") for _ in range(3))
    try:
        (top / "cgroup.procs").write_text(str(inside.pid))
        (top / "below" / "cgroup.procs").write_text(str(below.pid))
        scans = Scans(Selection(cgroups=(f"/{top.name}",)))
        assert scans.pids() == {inside.pid, below.pid}
        assert Scans(Selection(cgroups=(f"/{top.name}/below/",))).pids() == {below.pid}
        assert Scans(Selection(cgroups=(f"/{top.name}/belo",))).pids() == set()
        assert outside.pid not in scans.pids()
    finally:
        for process in (inside, below):
            process.kill()
            process.wait()
        (top / "below").rmdir()
        top.rmdir()


def test_a_process_that_is_not_there_or_is_a_thread_is_told() -> None:
    with pytest.raises(OptionError, match="there is no process 4194305"):
        Membership(Selection(pids=(4_194_305,)))
    gate = threading.Event()
    thread = threading.Thread(target=gate.wait)
    thread.start()
    try:
        with pytest.raises(OptionError, match=f"is a thread of process {os.getpid()}"):
            Membership(Selection(children_of=(thread.native_id or 0,)))
    finally:
        gate.set()
        thread.join()


def test_capabilities_are_read_bit_by_bit() -> None:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff"))
    assert sum(has_capability(number) << number for number in range(64)) == int(line.split()[1], 16)


def test_while_nobody_was_made_nobody_is_looked_for(start: Start) -> None:
    """Who is made moves the kernel's newest number; what else may have changed is looked at once a second."""
    parent = start(*python("import sys, subprocess\nfor _ in sys.stdin: print(subprocess.Popen(['sleep', '9']).pid)"))
    membership, newest = Membership(Selection(children_of=(parent.pid,))), parent.pid
    assert {member.pid for member in membership.look(0, newest=lambda: newest)} == {parent.pid}
    assert parent.stdin is not None
    parent.stdin.write("\n")
    parent.stdin.close()
    child = int(said(parent))
    assert {member.pid for member in membership.look(RESCAN_US, newest=lambda: newest)} == {parent.pid}
    newest = child
    assert child in {member.pid for member in membership.look(2 * RESCAN_US, newest=lambda: newest)}
    os.kill(child, 9)
    parent.wait()
    eventually(lambda: (stat := look_at(child)) is None or stat.over, "the child is dead")
    assert membership.look(3 * RESCAN_US, newest=lambda: newest) != ()
    assert membership.look(2 * RESCAN_US + RECHECK_US, newest=lambda: newest) == ()


@pytest.mark.parametrize("since", [1, 1000])
def test_whoever_was_made_is_found_by_number_or_in_the_list_of_all(start: Start, since: int) -> None:
    """One question for each number where these are few, and a list of everybody where they are many."""
    code = (
        "import subprocess, sys, threading\nfor line in sys.stdin:\n"
        "  if line == 'thread\\n':\n"
        "    one = threading.Thread(target=threading.Event().wait, daemon=True); one.start(); print(one.native_id)\n"
        "  else: print(subprocess.Popen(['sleep', '9']).pid)"
    )
    parent = start(*python(code))
    assert parent.stdin is not None
    for word in ("thread", "process"):
        membership = Membership(Selection(children_of=(parent.pid,)))
        before = membership.look(0, newest=lambda: 1)
        parent.stdin.write(f"{word}\n")
        parent.stdin.flush()
        made = int(said(parent))
        membership.look(RESCAN_US, newest=lambda: made - since)  # noqa: B023 - called at once
        after = membership.look(2 * RESCAN_US, newest=lambda: made)  # noqa: B023 - as above
        assert {member.id.tid for member in after} == {made, *(member.id.tid for member in before)}
        if word == "process":
            os.kill(made, 9)
