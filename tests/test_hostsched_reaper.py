"""Whoever is killed, and whenever: what an agent changed is put back. Real processes, real signals.

That it takes less than 200 ms is measured in benchmarks/hostsched/reaper_latency.py; here we wait until it is done.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from hostsched_children import Child, child, eventually, need_privilege, task_id
from npuops.eevdf.setting import DEFAULT, Setting
from npuops.hostsched.actuate import Actuator
from npuops.hostsched.alarm import Alarm
from npuops.hostsched.attributes import Attributes
from npuops.hostsched.group_knobs import autogroup_of
from npuops.hostsched.heartbeat import Heartbeat
from npuops.hostsched.knobs import read_setting, write_setting
from npuops.hostsched.lease_file import Given, LeaseFile, TaskClaimed
from npuops.hostsched.leases import TaskLease
from npuops.hostsched.process_stat import alive
from npuops.hostsched.restore import restore_leftovers
from npuops.hostsched.task_id import TaskId

MINUTE_US = 60_000_000
STAGES = ["before the notes", "after the notes", "between two writes", "after the writes", "with everything back"]

AGENT = """
import os, signal, sys
from pathlib import Path
from npuops.eevdf.setting import SchedPolicy, Setting
from npuops.hostsched.actuate import Actuator
from npuops.hostsched.group_knobs import autogroup_of
from npuops.hostsched.process_stat import look_at
from hostsched_children import orders

folder, stage, number, timeout_ms, *pids = sys.argv[1:]

def now(point):
    if point == stage:
        os.kill(os.getpid(), getattr(signal, number))

class Agent(Actuator):
    writes = 0
    def _noted(self, orders, report):
        now("before the notes")
        noted = super()._noted(orders, report)
        now("after the notes")
        return noted
    def _write(self, write, report):
        super()._write(write, report)
        self.writes += 1
        if self.writes == 2:
            now("between two writes")

tasks = [look_at(int(pid)).id for pid in pids]
groups = [found[0] for pid in pids if (found := autogroup_of(int(pid))) is not None]
agent = Agent(Path(folder), timeout_ms=int(timeout_ms))
print(agent.reaper_pid, flush=True)
levels = [Setting(nice=19), Setting(SchedPolicy.IDLE), Setting(nice=-5), Setting(SchedPolicy.BATCH, 9)]
if stage == "on and on":
    step = 0
    while True:
        step += 1
        agent.apply(orders({task: levels[(step + place) % 5] if (step + place) % 5 < 4 else None
                            for place, task in enumerate(tasks)}, {group: step % 20 for group in groups}))
        if step == 3:
            print("going", flush=True)
told = agent.apply(orders({task: levels[place % 4] for place, task in enumerate(tasks)}, dict.fromkeys(groups, 19)))
now("after the writes")
print("set", flush=True)
if stage == "with everything back":
    agent.put_back()
    now(stage)
for line in sys.stdin:
    told = agent.apply(orders({task: levels[0] for task in tasks}))
    print(told.revoked or "applied", flush=True)
agent.close()
"""


class Agent:
    """An agent in a process of its own, to be killed."""

    def __init__(
        self, folder: Path, stage: str, number: str, timeout_ms: int, children: list[Child], stderr: int | None = None
    ) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", AGENT, str(folder), stage, number, str(timeout_ms), *(str(c.pid) for c in children)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        )
        self.reaper = task_id(int(self.told()))

    def told(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def step(self) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        return self.told()


@contextmanager
def agent(
    folder: Path,
    children: list[Child],
    stage: str = "",
    number: str = "SIGKILL",
    timeout_ms: int = 60_000,
    stderr: int | None = None,
) -> Iterator[Agent]:
    need_privilege()
    one = Agent(folder, stage, number, timeout_ms, children, stderr)
    try:
        yield one
    finally:
        one.process.kill()
        one.process.communicate()
        eventually(lambda: not alive(one.reaper), "a reaper ends soon after its agent")


@pytest.fixture
def children() -> Iterator[list[Child]]:
    with child() as one, child() as two, child() as three:
        yield [one, two, three]


def untouched(children: list[Child]) -> bool:
    groups = [autogroup_of(one.pid) for one in children]
    return all(one.setting == DEFAULT for one in children) and all(found is None or found[1] == 0 for found in groups)


@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_any_stage_the_agent_leaves_nothing_changed(
    tmp_path: Path, children: list[Child], stage: str
) -> None:
    with agent(tmp_path, children, stage) as one:
        assert one.process.wait() == -signal.SIGKILL
        eventually(lambda: not alive(one.reaper))
        assert untouched(children)
        assert list(tmp_path.glob("*.leases")) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_killed_at_a_moment_of_chance_the_agent_leaves_nothing_changed(
    tmp_path: Path, children: list[Child], seed: int
) -> None:
    with agent(tmp_path, children, "on and on") as one:
        assert one.told() == "going"
        for _ in range(seed * 150):
            read_setting(children[0].pid)
        one.process.kill()
        eventually(lambda: not alive(one.reaper))
        assert untouched(children)


def test_what_somebody_else_set_is_left_to_them_by_the_reaper(tmp_path: Path, children: list[Child]) -> None:
    with agent(tmp_path, children) as one:
        assert one.told() == "set"
        write_setting(children[0].pid, Setting(nice=3))
        one.process.kill()
        eventually(lambda: not alive(one.reaper))
        assert children[0].setting == Setting(nice=3)
        assert untouched(children[1:])


def test_children_of_a_demoted_task_are_put_back_by_the_reaper(tmp_path: Path, children: list[Child]) -> None:
    with agent(tmp_path, children[:1]) as one:
        assert one.told() == "set"
        born = [children[0].make(kind) for kind in ("thread", "child", "orphan")]
        assert {read_setting(task.tid).nice for task in born} == {19}
        one.process.kill()
        eventually(lambda: not alive(one.reaper))
        assert [read_setting(task.tid) for task in born] == [DEFAULT] * 3


def test_a_task_that_ended_is_no_trouble_for_the_reaper(tmp_path: Path, children: list[Child]) -> None:
    with child() as short, agent(tmp_path, [short, *children]) as one:
        assert one.told() == "set"
        short.process.kill()
        short.process.wait()
        one.process.kill()
        eventually(lambda: not alive(one.reaper))
        assert untouched(children)


def test_a_stopped_agent_loses_its_leases_and_learns_of_it(tmp_path: Path, children: list[Child]) -> None:
    with agent(tmp_path, children, timeout_ms=200) as one:
        assert one.told() == "set"
        one.process.send_signal(signal.SIGSTOP)
        eventually(lambda: untouched(children))
        one.process.send_signal(signal.SIGCONT)
        assert "heartbeat was late" in one.step()
        assert alive(one.reaper)


@pytest.mark.parametrize("stage", ["after the notes", "between two writes"])
def test_an_agent_stopped_in_the_middle_undoes_what_it_writes_afterwards(
    tmp_path: Path, children: list[Child], stage: str
) -> None:
    with agent(tmp_path, children, stage, "SIGSTOP", timeout_ms=200) as one:
        eventually(lambda: state(one.process.pid) == "T")
        if stage == "between two writes":
            eventually(lambda: untouched(children))
        eventually(lambda: revoked(one.process.pid))
        one.process.send_signal(signal.SIGCONT)
        assert one.told() == "set"  # its step is over: what it wrote after it woke is undone already
        assert untouched(children)


def shared(heartbeat: Heartbeat) -> str:
    """As a reaper is told."""
    page, timer = heartbeat.descriptors
    return f"--heartbeat={page}:{timer}"


def is_taken(timer: int) -> bool:
    """It rang, and somebody heard."""
    told = Path(f"/proc/self/fdinfo/{timer}").read_text()
    return "it_value: (0, 0)" in told and "ticks: 0" in told


def test_an_agent_that_beats_in_its_last_chance_keeps_what_it_has(tmp_path: Path) -> None:
    hasty = Heartbeat(3)  # rings after two microseconds; its reaper, told otherwise, gives it 20 seconds then
    words = [f"--agent={os.getpid()}:{task_id(os.getpid()).start_ticks}", f"--leases={tmp_path / 'none'}"]
    with subprocess.Popen(
        [sys.executable, "-m", "npuops.hostsched.reaper", *words, shared(hasty), "--timeout-ms=60000"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=hasty.descriptors,
        start_new_session=True,
    ) as reaper:
        assert reaper.stdout is not None
        assert reaper.stdout.readline() == b"ready\n"
        for _ in range(5):
            hasty.beat()
            eventually(lambda: is_taken(hasty.alarm.descriptor))
            assert hasty.held
        assert reaper.communicate(b"goodbye\n", timeout=60) == (b"", None)
    assert (reaper.returncode, hasty.held) == (0, True)
    hasty.close()


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def revoked(agent_pid: int) -> bool:
    """By the page that it shares with its reaper."""
    for descriptor in Path(f"/proc/{agent_pid}/fd").iterdir():
        if "npuops-heartbeat" in str(descriptor.readlink()):
            own = Alarm(1)  # a timer cannot be opened by its link, and the page tells enough
            page = Heartbeat(MINUTE_US, (os.open(descriptor, os.O_RDWR), own.descriptor))
            try:
                return not page.held
            finally:
                page.close()
    return False


def test_an_agent_and_its_reaper_killed_together_are_cleaned_up_after(tmp_path: Path, children: list[Child]) -> None:
    with agent(tmp_path, children) as one:
        assert one.told() == "set"
        os.kill(one.reaper.tid, signal.SIGKILL)
        one.process.kill()
        one.process.wait()
        assert not untouched(children)
        [leftover] = restore_leftovers(tmp_path)
        assert untouched(children)
        assert {back for back in leftover.back if isinstance(back, TaskId)} == {c.id for c in children}
        assert restore_leftovers(tmp_path) == ()


def test_the_next_agent_cleans_up_after_the_last(tmp_path: Path, children: list[Child]) -> None:
    with agent(tmp_path, children) as one:
        assert one.told() == "set"
        os.kill(one.reaper.tid, signal.SIGKILL)
        one.process.kill()
        one.process.wait()
    with Actuator(tmp_path, timeout_ms=60_000) as actuator:
        assert len(actuator.leftovers) == 1
        assert untouched(children)


def test_the_reaper_takes_no_orders_to_end(tmp_path: Path, children: list[Child]) -> None:
    with agent(tmp_path, children) as one:
        assert one.told() == "set"
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(one.reaper.tid, number)
        assert one.step() == "applied"
        assert alive(one.reaper)
        one.process.kill()
        eventually(lambda: not alive(one.reaper))
        assert untouched(children)


def test_the_reaper_is_first_in_line_and_carries_no_numpy(tmp_path: Path) -> None:
    need_privilege()
    with Actuator(tmp_path, timeout_ms=60_000) as actuator:
        assert read_setting(actuator.reaper_pid).nice == -20
        found = autogroup_of(actuator.reaper_pid)
        assert found is None or found[1] == -20
        assert "numpy" not in Path(f"/proc/{actuator.reaper_pid}/maps").read_text()


def test_a_reaper_whose_agent_died_before_it_was_ready_puts_back_all_the_same(tmp_path: Path) -> None:
    need_privilege()
    with child() as one:
        dead = TaskId(1, 4_000_000_000)
        file = LeaseFile(tmp_path, dead)
        lease = TaskLease(one.id, one.id, one.pid, 0, Attributes())
        file.note([TaskClaimed(lease), Given(one.id, Attributes(nice=19))])
        file.close()
        write_setting(one.pid, Setting(nice=19))
        heartbeat = Heartbeat(MINUTE_US)
        words = [f"--agent={dead.tid}:{dead.start_ticks}", f"--leases={file.path}", "--timeout-ms=300"]
        reader, writer = os.pipe()
        os.close(reader)  # as when nobody waits for its first words any more
        ended = subprocess.run(
            [sys.executable, "-m", "npuops.hostsched.reaper", *words, shared(heartbeat)],
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=subprocess.PIPE,
            pass_fds=heartbeat.descriptors,
            start_new_session=True,
            text=True,
            timeout=60,
            check=False,
        )
        os.close(writer)
        heartbeat.close()
        assert "Traceback" not in ended.stderr
        assert (ended.returncode, one.setting, file.path.exists()) == (0, DEFAULT, False)


def test_a_reaper_that_nobody_reads_is_not_held_up(tmp_path: Path, children: list[Child]) -> None:
    """Its words go where the agent's go: a terminal that is stopped, a pipe that is full."""
    reader, writer = os.pipe2(os.O_NONBLOCK)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    with agent(tmp_path, children, stderr=writer) as one:
        assert one.told() == "set"
        one.process.kill()
        eventually(lambda: not alive(one.reaper))
        assert untouched(children)
    os.close(reader)
    os.close(writer)


def test_a_reaper_in_a_session_of_others_leaves_their_group_alone(tmp_path: Path) -> None:
    need_privilege()
    heartbeat = Heartbeat(MINUTE_US)
    words = ["--agent=1:4000000000", f"--leases={tmp_path / 'none'}", "--timeout-ms=300"]
    inner = [sys.executable, "-m", "npuops.hostsched.reaper", *words, shared(heartbeat)]
    code = (
        "import subprocess, sys\n"
        "from npuops.hostsched.group_knobs import autogroup_of\n"
        "import os\n"
        f"subprocess.run({inner}, stdin=subprocess.DEVNULL, pass_fds={heartbeat.descriptors}, check=True)\n"
        "print(autogroup_of(os.getpid()))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        pass_fds=heartbeat.descriptors,
        start_new_session=True,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    heartbeat.close()
    assert "-20" not in ended.stdout
