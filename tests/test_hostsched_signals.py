"""Looks at real processes of the test's own, on this kernel."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hostsched_readers import READERS, use
from npuops.clock import SystemClock
from npuops.eevdf.setting import SchedPolicy, Setting
from npuops.hostsched.features import RATES, Features
from npuops.hostsched.frame import INVOLUNTARY, RUN_NS, TURNS, VOLUNTARY, WAIT_NS, Frame, GroupId
from npuops.hostsched.grouping import AUTOGROUP_SWITCH, group_told, whole
from npuops.hostsched.hint import Hint, Kind
from npuops.hostsched.knobs import KnobError, write_setting
from npuops.hostsched.membership import RESCAN_US, Membership
from npuops.hostsched.selection import Selection
from npuops.hostsched.signals import SETTING_US, TASK_US, Signals, Turn
from npuops.hostsched.task_counters import STATE_US, wants_to_run
from npuops.testing import ManualClock

Start = Callable[..., subprocess.Popen[str]]
SPIN = "print(flush=True)\nwhile True: pass"
WAIT = "import sys\nprint(flush=True)\nsys.stdin.readline()"
CHAT = "import sys, time\nprint(flush=True)\nwhile True: time.sleep(0.001)"


@pytest.fixture(params=READERS, autouse=True)
def reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that is promised here is promised of both."""
    use(request.param, monkeypatch)


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts Python with a program that says a line when it is ready, in a session of its own."""
    with ExitStack() as stack:

        def begin(program: str) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                (sys.executable, "-c", program),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            assert process.stdout is not None
            process.stdout.readline()
            return process

        yield begin


def until(true: Callable[[], bool]) -> None:
    """What takes as long as the kernel takes; the limit of the test run is the limit."""
    pause = threading.Event()
    while not true():
        pause.wait(0.01)


def descriptors() -> int:
    """Open in this process."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def watching(*processes: subprocess.Popen[str], clock: ManualClock | None = None, **options: int) -> Signals:
    selection = Selection(pids=tuple(process.pid for process in processes))
    return Signals(Membership(selection), clock or SystemClock(), **options)


def test_a_frame_tells_who_is_there_and_what_each_did(start: Start) -> None:
    spinner, sleeper, chatter = start(SPIN), start(WAIT), start(CHAT)
    with watching(spinner, sleeper, chatter) as signals:
        first = signals.look({})
        assert [task.pid for task in first.tasks] == sorted([spinner.pid, sleeper.pid, chatter.pid])
        assert first.counters.shape == (3, 5)
        assert first.counters.dtype == np.int64
        assert first.settings == (Setting(),) * 3
        rows = {task.pid: row for row, task in enumerate(first.tasks)}
        assert all(task.cpus == len(os.sched_getaffinity(0)) for task in first.tasks)
        last = first

        def has_worked() -> bool:
            nonlocal last
            last = signals.look({})
            done = last.counters - first.counters
            return (
                done[rows[spinner.pid], RUN_NS] > 100_000_000
                and done[rows[chatter.pid], VOLUNTARY] >= 10
                and done[rows[chatter.pid], TURNS] >= 10
            )

        until(has_worked)
        done = last.counters - first.counters
        assert not done[rows[sleeper.pid], [RUN_NS, TURNS, VOLUNTARY, INVOLUNTARY]].any()
        assert done[rows[spinner.pid], VOLUNTARY] == 0
        assert last.at_us > first.at_us
        assert last.host.cpus == os.cpu_count()
        assert last.host.busy_us > first.host.busy_us


def test_counters_never_go_back(start: Start) -> None:
    with watching(start(SPIN), start(SPIN), start(CHAT)) as signals:
        before = signals.look({}).counters
        for _ in range(300):
            after = signals.look({}).counters
            assert (after >= before).all()
            before = after


_STARVED = """
import os
os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
starved = os.fork()
if starved == 0:
    while True: pass
os.sched_setscheduler(starved, os.SCHED_IDLE, os.sched_param(0))
print(flush=True)
print(starved, flush=True)
while True: pass
"""


def test_one_that_starves_is_seen_to_wait_before_it_runs(start: Start) -> None:
    """Beside a spinner on the same CPU and in the same session, an idle task gets next to nothing."""
    spinner = start(_STARVED)
    assert spinner.stdout is not None
    starved = int(spinner.stdout.readline())
    try:
        with Signals(Membership(Selection(pids=(starved,))), SystemClock()) as signals:
            stood = 0
            last = signals.look({}).counters[0]

            def waits_without_running() -> bool:
                nonlocal last, stood
                now = signals.look({}).counters[0]
                alone = now[RUN_NS] == last[RUN_NS] and now[TURNS] == last[TURNS]
                stood = stood + 1 if alone and now[WAIT_NS] > last[WAIT_NS] else 0
                last = now
                return stood >= 3

            until(waits_without_running)
    finally:
        os.kill(starved, 9)


def test_a_sleeper_is_not_seen_to_wait(start: Start) -> None:
    clock = ManualClock()
    sleeper = start(WAIT)
    until(lambda: not wants_to_run(Path(f"/proc/{sleeper.pid}/status").read_bytes()))
    with watching(sleeper, clock=clock) as signals:
        first = signals.look({}).counters
        for _ in range(10):
            clock.advance(STATE_US)
            np.testing.assert_array_equal(signals.look({}).counters, first)


def test_a_task_that_ended_is_gone_from_the_very_next_frame(start: Start) -> None:
    clock = ManualClock()
    gone, stays = start(WAIT), start(WAIT)
    with watching(gone, stays, clock=clock) as signals:
        assert len(signals.look({}).tasks) == 2
        gone.kill()
        gone.wait()
        frame = signals.look({})
        assert [task.pid for task in frame.tasks] == [stays.pid]
        assert frame.counters.shape == (1, 5)
        assert len(frame.settings) == len(frame.hints) == 1
        stays.kill()
        stays.wait()
        assert signals.look({}).tasks == ()
        assert Features().update(signals.look({})).tasks.shape[0] == 0


def test_a_thread_that_ended_takes_nothing_else_with_it(start: Start) -> None:
    program = (
        "import sys, threading\n"
        "thread = threading.Thread(target=sys.stdin.readline)\nthread.start()\n"
        "print(flush=True)\nthread.join()\nprint(flush=True)\nwhile True: pass"
    )
    process = start(program)
    with watching(process) as signals:
        assert len(signals.look({}).tasks) == 2
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n")
        process.stdin.flush()
        process.stdout.readline()
        until(lambda: len(signals.look({}).tasks) == 1)
        assert signals.look({}).tasks[0].id.tid == process.pid


def test_a_new_setting_is_seen_in_its_turn_and_at_once_when_it_is_told(start: Start) -> None:
    clock = ManualClock()
    process = start(WAIT)
    with watching(process, clock=clock) as signals:
        task = signals.look({}).tasks[0].id
        os.setpriority(os.PRIO_PROCESS, process.pid, 7)
        assert signals.look({}).settings == (Setting(),)
        clock.advance(SETTING_US)
        assert signals.look({}).settings == (Setting(nice=7),)
        write_setting(process.pid, Setting(SchedPolicy.BATCH, nice=9))
        signals.recheck([task])
        assert signals.look({}).settings == (Setting(SchedPolicy.BATCH, nice=9),)


def test_a_new_name_and_new_cpus_are_seen_in_their_turn(start: Start) -> None:
    clock = ManualClock()
    rename = "open('/proc/self/comm', 'w').write(sys.stdin.readline().strip())"
    process = start(f"import sys\nprint(flush=True)\n{rename}\nsys.stdin.read()")
    cpus = os.sched_getaffinity(0)
    with watching(process, clock=clock) as signals:
        before = signals.look({}).tasks[0]
        assert process.stdin is not None
        process.stdin.write("very nice\n")
        process.stdin.flush()
        os.sched_setaffinity(process.pid, {min(cpus)})
        until(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "very nice\n")
        assert signals.look({}).tasks[0] is before
        clock.advance(TASK_US)
        assert signals.look({}).tasks == (replace(before, command="very nice", cpus=1),)


def test_a_task_that_somebody_made_a_real_time_one_is_let_go(start: Start) -> None:
    clock = ManualClock()
    process = start(WAIT)
    with watching(process, clock=clock) as signals:
        assert len(signals.look({}).tasks) == 1
        try:
            os.sched_setscheduler(process.pid, os.SCHED_FIFO, os.sched_param(1))
        except PermissionError:
            pytest.skip("CAP_SYS_NICE is missing: no task can be made a real-time one")
        clock.advance(SETTING_US)
        assert signals.look({}).tasks == ()
        clock.advance(RESCAN_US)
        assert signals.look({}).tasks == ()


def test_a_reservation_that_came_later_stays_in_sight(start: Start) -> None:
    clock = ManualClock()
    process = start(WAIT)
    wanted = Setting(SchedPolicy.DEADLINE, runtime_us=1000, period_us=100_000)
    with watching(process, clock=clock) as signals:
        task = signals.look({}).tasks[0].id
        try:
            write_setting(process.pid, wanted)
        except KnobError as error:
            pytest.skip(f"no reservation can be had here: {error}")
        signals.recheck([task])
        found = signals.look({}).settings[0]
        assert (found.policy, found.runtime_us, found.period_us) == (SchedPolicy.DEADLINE, 1000, 100_000)


def test_hints_stand_beside_the_thread_they_are_about(start: Start) -> None:
    one, other = start(WAIT), start(WAIT)
    hint = Hint(at_us=1, kind=Kind.LATENCY)
    with watching(one, other) as signals:
        frame = signals.look({other.pid: hint, 999_999_999: hint})
        said = dict(zip([task.pid for task in frame.tasks], frame.hints, strict=True))
        assert said == {one.pid: None, other.pid: hint}


def autogroup(pid: int) -> GroupId:
    switch = Path(AUTOGROUP_SWITCH)
    if not switch.exists() or switch.read_text().strip() != "1":
        pytest.skip("this kernel makes no autogroups (CONFIG_SCHED_AUTOGROUP, sched_autogroup_enabled)")
    return GroupId("autogroup", Path(f"/proc/{pid}/autogroup").read_text().split()[0].removeprefix("/autogroup-"))


_TWO = (
    "import os, sys\nchild = os.fork()\n"
    "if child == 0:\n    sys.stdin.readline(); os._exit(0)\n"
    "print(flush=True)\nprint(child, flush=True)\nos.wait()"
)


def test_a_group_may_be_set_only_if_all_of_it_opted_in(start: Start) -> None:
    leader = start(_TWO)
    assert leader.stdout is not None
    child = int(leader.stdout.readline())
    group = autogroup(leader.pid)
    with Signals(Membership(Selection(children_of=(leader.pid,))), SystemClock()) as signals:
        frame = signals.look({})
        assert {task.group for task in frame.tasks} == {group}
        assert frame.group_nices == {group: 0}
    with Signals(Membership(Selection(pids=(leader.pid,))), SystemClock()) as signals:
        assert signals.look({}).group_nices == {}
    os.kill(child, 9)


def test_a_group_is_whole_also_while_some_of_it_have_just_ended(start: Start) -> None:
    process = start(WAIT)
    group, session = autogroup(process.pid), os.getsid(process.pid)
    gone = start("pass")
    gone.wait()
    for pids in ((process.pid, gone.pid), (process.pid, 1 << 30)):
        assert whole([group], pids, dict.fromkeys(pids, session)) == {group}
    assert whole([group], (gone.pid,), {gone.pid: session}) == set()


def test_a_group_is_read_from_what_the_kernel_writes_whatever_stands_there() -> None:
    assert group_told(b"", b"/autogroup-7", b"1\n") == GroupId("autogroup", "7")
    assert group_told(b"", b"/autogroup-7", b"0\n") is None
    assert group_told(b"", b"", b"1\n") is None, "one of the tasks that the kernel started with"
    assert group_told(b"4:memory:/a\x0b\xff\n0::/x", b"/autogroup-7", b"1\n") == GroupId("autogroup", "7")
    assert group_told(b"12:cut o", b"/autogroup-7", b"1\n") == GroupId("autogroup", "7")


def test_the_nice_value_of_a_group_is_told(start: Start) -> None:
    process = start(WAIT)
    group = autogroup(process.pid)
    with watching(process) as signals:
        signals.look({})
        Path(f"/proc/{process.pid}/autogroup").write_text("5")
        signals.recheck([group])
        assert signals.look({}).group_nices == {group: 5}


def test_a_cgroup_with_a_weight_comes_before_the_autogroup(start: Start) -> None:
    folder = Path("/sys/fs/cgroup/cpu") / f"npuops-test-{uuid.uuid4().hex[:8]}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup v1 of the cpu controller can be made here: {error}")
    one, other = start(WAIT), start(WAIT)
    group = GroupId("cgroup1", f"/{folder.name}")
    try:
        for process in (one, other):
            (folder / "cgroup.procs").write_text(str(process.pid))
        (folder / "cpu.shares").write_text("335")
        with watching(one, other) as signals:
            frame = signals.look({})
            assert [task.group for task in frame.tasks] == [group, group]
            assert frame.group_nices == {group: 5}
        with watching(one) as signals:
            assert signals.look({}).group_nices == {}
    finally:
        for process in (one, other):
            process.kill()
            process.wait()
        folder.rmdir()


def test_without_descriptors_to_keep_it_sees_the_same(start: Start) -> None:
    sleeper, chatter = start(WAIT), start(CHAT)
    with watching(sleeper, chatter, most_descriptors=0) as frugal:
        first = frugal.look({})
        count = descriptors()
        until(lambda: bool((frugal.look({}).counters - first.counters)[:, VOLUNTARY].max() >= 5))
        assert descriptors() == count
        with watching(sleeper, chatter) as keeping:
            assert keeping.look({}).tasks == first.tasks


_CRAMPED = """
import os, resource, sys
from npuops.clock import SystemClock
from npuops.hostsched.membership import Membership
from npuops.hostsched.selection import Selection
from npuops.hostsched.signals import Signals
signals = Signals(Membership(Selection(pids=(int(sys.argv[1]),))), SystemClock())
before = signals.look({})
kept = len(os.listdir("/proc/self/fd"))
taken = []
resource.setrlimit(resource.RLIMIT_NOFILE, (kept + 8, kept + 8))
try:
    while True:
        taken.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
os.close(taken.pop())
for _ in range(3):
    after = signals.look({})
print(len(before.tasks), before.tasks == after.tasks, flush=True)
"""


def test_it_goes_on_when_the_process_runs_out_of_descriptors(start: Start) -> None:
    threads = "for _ in range(20): threading.Thread(target=sys.stdin.readline).start()"
    program = f"import threading, sys\n{threads}\nprint(flush=True)"
    process = start(program)
    command = (sys.executable, "-c", _CRAMPED, str(process.pid))
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "21 True\n"


def test_closing_gives_every_descriptor_back(start: Start) -> None:
    process = start(WAIT)
    before = descriptors()
    signals = watching(process)
    frame = signals.look({})
    assert descriptors() > before
    signals.close()
    assert descriptors() == before
    assert signals.look({}).tasks == frame.tasks
    signals.close()


def test_what_is_looked_at_is_not_changed(start: Start) -> None:
    process = start(SPIN)
    before = (os.sched_getscheduler(process.pid), os.getpriority(os.PRIO_PROCESS, process.pid))
    with watching(process) as signals:
        frames: list[Frame] = [signals.look({}) for _ in range(20)]
    assert (os.sched_getscheduler(process.pid), os.getpriority(os.PRIO_PROCESS, process.pid)) == before
    assert frames[-1].group_nices == frames[0].group_nices


def test_a_spinner_and_a_chatter_are_told_apart_by_their_rates(start: Start) -> None:
    spinner, chatter = start(SPIN), start(CHAT)
    with watching(spinner, chatter) as signals:
        features, pause = Features(), threading.Event()
        features.update(signals.look({}))
        found: dict[str, float] = {}

        def are_apart() -> bool:
            pause.wait(0.05)
            state = features.update(signals.look({}))
            rows = {task.pid: row for row, task in enumerate(state.frame.tasks)}
            chatty, busy = state.rates[rows[chatter.pid]], state.rates[rows[spinner.pid]]
            found["voluntary"] = chatty[RATES.index("voluntary_per_s")]
            return bool(found["voluntary"] > 20 and busy[RATES.index("run_share")] > chatty[RATES.index("run_share")])

        until(are_apart)


def test_turns_reach_every_row_once_in_a_period_and_none_is_long() -> None:
    turn = Turn(250_000)
    looks = [turn.rows(64, 20_000) for _ in range(25)]
    seen = [row for rows in looks for row in rows]
    assert {seen.count(row) for row in range(64)} == {2}
    assert max(map(len, looks)) == 6
    assert turn.rows(0, 20_000) == []
    assert sorted(turn.rows(3, 10**9)) == [0, 1, 2]
