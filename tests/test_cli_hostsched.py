from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from npuops.hostsched.knobs import read_attributes
from npuops.hostsched.trace_file import read_trace

LIMIT_S = 60.0
WORKS = """
import time
open('/proc/self/comm', 'w').write('hs-works')
print('ready', flush=True)
while True:
    sum(range(2000))
    time.sleep(0.003)
"""
POLICY = "static:nice=7@hs-works*"
needs_nice = pytest.mark.skipif(os.geteuid() != 0, reason="CAP_SYS_NICE is missing: nice could not be taken back")


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NPUOPS_HINT_SOCKET", str(tmp_path / "hints.sock"))
    monkeypatch.setenv("NPUOPS_LEASES", str(tmp_path))


def words(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "npuops.cli.main", "hostsched", *arguments]


def done(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words(*arguments), capture_output=True, text=True, timeout=LIMIT_S * 2, check=False)


@contextmanager
def started(*command: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def worker() -> Iterator[int]:
    with started(sys.executable, "-c", WORKS) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process.pid


def nice(pid: int) -> int:
    return os.getpriority(os.PRIO_PROCESS, pid)


def wait_until(holds: Callable[[], bool], agent: subprocess.Popen[str] | None = None) -> None:
    until = time.monotonic() + LIMIT_S
    while not holds():
        if agent is not None and agent.poll() is not None:
            pytest.fail(f"it ended: {agent.communicate()}")
        assert time.monotonic() < until, "it never came to that"
        time.sleep(0.01)


@needs_nice
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_act_lowers_and_all_is_back_after(number: signal.Signals, worker: int) -> None:
    before = read_attributes(worker)
    with started(*words("act", "--policy", POLICY, "--pid", str(worker))) as agent:
        wait_until(lambda: nice(worker) == 7, agent)
        agent.send_signal(number)
        out, err = agent.communicate(timeout=LIMIT_S)
        assert agent.returncode == (-number if number is signal.SIGKILL else 0), err
        assert number is signal.SIGKILL or "all put back" in out
    wait_until(lambda: read_attributes(worker) == before)


@needs_nice
@pytest.mark.slow
def test_a_task_of_another_name_is_left_alone(worker: int) -> None:
    other = WORKS.replace("hs-works", "hs-other")
    with started(sys.executable, "-c", other) as bystander:
        assert bystander.stdout is not None
        bystander.stdout.readline()
        before = read_attributes(bystander.pid)
        with started(*words("act", "--policy", POLICY, "--pid", str(worker), "--pid", str(bystander.pid))) as agent:
            wait_until(lambda: nice(worker) == 7, agent)
            assert read_attributes(bystander.pid) == before
            agent.send_signal(signal.SIGTERM)
            agent.communicate(timeout=LIMIT_S)
    assert nice(worker) == 0


@pytest.mark.slow
def test_advise_says_what_and_why_and_changes_nothing(worker: int) -> None:
    before = read_attributes(worker)
    ended = done("advise", "--policy", POLICY, "--pid", str(worker), "--for", "1")
    assert ended.returncode == 0, ended.stderr
    assert f"hs-works {worker}: normal → nice=7 (nice 7)" in ended.stdout, ended.stdout
    assert read_attributes(worker) == before


@pytest.mark.slow
def test_the_tuned_rule_decides_with_the_thresholds_that_ship(worker: int, tmp_path: Path) -> None:
    """They are in the package, so nobody has to know where; --thresholds would be others, and are refused."""
    trace, few = tmp_path / "t.trace", ("advise", "--policy", "tuned-reactive", "--pid", str(worker), "--for", "1")
    ended = done(*few, "--record", str(trace))
    assert ended.returncode == 0, ended.stderr
    assert read_trace(trace).header.policy == "tuned-reactive"
    refused = done(*few, "--thresholds", "x")
    assert refused.returncode == 2
    assert "add --policy reactive" in refused.stderr


@pytest.mark.slow
def test_observe_shows_tasks_as_lines_and_as_json_and_changes_nothing(worker: int) -> None:
    before = read_attributes(worker)
    plain = done("observe", "--pid", str(worker), "--for", "0.6", "--interval", "0.2")
    assert plain.returncode == 0, plain.stderr
    assert any("hs-works" in line and "nice 0" in line for line in plain.stdout.splitlines())
    told = done("observe", "--pid", str(worker), "--for", "0.6", "--interval", "0.2", "--json")
    events = [json.loads(line) for line in told.stdout.splitlines()]
    assert {event["schema"] for event in events} == {"npuops.hostsched.event/1"}
    kinds = [event["event"] for event in events]
    assert kinds[0] == "started"
    assert kinds[-1] == "ended"
    row = next(event for event in events if event["event"] == "view")["view"]["rows"][0]
    assert (row["task"]["tid"], row["level"]) == (worker, "normal")
    assert 0 <= row["run_share"] <= 1
    assert read_attributes(worker) == before


@pytest.mark.slow
def test_a_trace_is_recorded_drawn_and_replayed_with_reasons(worker: int, tmp_path: Path) -> None:
    trace, plot = tmp_path / "run.trace", tmp_path / "run.svg"
    made = done(
        *("advise", "--policy", POLICY, "--pid", str(worker), "--for", "1"),
        *("--record", str(trace), "--plot", str(plot)),
    )
    assert made.returncode == 0, made.stderr
    assert "hs-works" in made.stdout
    ET.parse(plot)  # noqa: S314 - we wrote it
    told = done("replay", str(trace))
    assert told.returncode == 0, told.stderr
    assert f"hs-works {worker}: normal → nice=7 (nice 7)" in told.stdout
    lines = [json.loads(line) for line in done("replay", str(trace), "--json", "--task", "hs-*").stdout.splitlines()]
    assert any(change["after"].startswith("nice=7") for line in lines for change in line.get("changes", []))
    assert all(line["schema"] == "npuops.hostsched.decision/1" for line in lines)
    none = done("replay", str(trace), "--task", "nobody")
    assert f"hs-works {worker}" not in none.stdout


@pytest.mark.slow
def test_run_ends_as_the_command_ends_and_leaves_it_the_streams() -> None:
    code = "import sys; print(sys.stdin.read(), end=''); print('to err', file=sys.stderr); sys.exit(7)"
    ended = subprocess.run(
        words("run", "--policy", "default", "--", sys.executable, "-c", code),
        input="from stdin",
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (7, "from stdin"), ended.stderr
    assert "to err" in ended.stderr
    assert "npuops: the agent itself" in ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 5), (signal.SIGUSR1, 128 + signal.SIGUSR1)])
def test_run_hands_signals_on(number: signal.Signals, code: int) -> None:
    script = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n"
        "print('ready', flush=True)\n"
        "time.sleep(120)\n"
    )
    with started(*words("run", "--policy", "default", "--", sys.executable, "-c", script)) as agent:
        assert agent.stdout is not None
        assert agent.stdout.readline() == "ready\n"
        agent.send_signal(number)
        agent.communicate(timeout=LIMIT_S)
        assert agent.returncode == code


@needs_nice
@pytest.mark.slow
def test_run_sets_the_command_and_what_descends_from_it() -> None:
    inner = WORKS.replace("print('ready', flush=True)", "import os; print(os.getpid(), flush=True)")
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}], check=False)"
    with started(*words("run", "--policy", POLICY, "--", sys.executable, "-c", outer)) as agent:
        assert agent.stdout is not None
        grandchild = int(agent.stdout.readline())
        wait_until(lambda: nice(grandchild) == 7, agent)
        agent.kill()  # the command must survive it, with everything as it was
        wait_until(lambda: nice(grandchild) == 0)
        os.kill(grandchild, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize(("command", "code"), [(["no-such-command-here"], 127), (["/"], 126)])
def test_run_of_nothing_ends_as_in_a_shell(command: list[str], code: int) -> None:
    ended = done("run", "--policy", "default", "--", *command)
    assert ended.returncode == code
    assert "error: " in ended.stderr


@pytest.mark.slow
def test_the_json_flag_of_a_command_is_its_own() -> None:
    ended = done("run", "--policy", "default", "--", "no-such-command-here", "--json")
    assert ended.returncode == 127
    assert ended.stdout == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("act", "--policy", "default"), "nobody opted in"),
        (("act", "--pid", "0"), "no process"),
        (("act", "--match", "*"), "every command"),
        (("act", "--policy", "reactiv", "--match", "x"), "reactive"),
        (("act", "--match", "x", "--allow", "demot"), "demote"),
        (("observe", "--period", "1"), "period"),
        (("observe", "--period", "nan"), "period"),
        (("act", "--match", "x", "--period", "inf"), "period"),
        (("run", "--mode", "observe", "--policy", "tuned-reactive", "--", "true"), "--mode advise"),
        (("run", "--mode", "observe", "--allow", "boost", "--", "true"), "--mode advise"),
        (("observe", "--plot", "x.gif"), ".svg"),
        (("observe", "--record", "/nowhere/there/x"), "/nowhere"),
        (("run", "--mode", "ackt", "--", "true"), "act"),
        (("observe", "--for", "inf"), "--for"),
        (("observe", "--interval", "inf"), "--interval"),
        (("advise", "--policy-folder", "x"), "add --policy learned"),
        (("advise", "--placement", "numpy"), "add --policy learned"),
        (("advise", "--policy", "default", "--thresholds", "x"), "reactive"),
        (("act", "--match", "x", "--leases", "/nowhere/there"), "mkdir -m 700 /nowhere/there"),
        (("restore", "--leases", "/etc/passwd"), "/etc/passwd is no folder"),
        (("replay", "/nowhere/x"), "/nowhere/x"),
    ],
)
def test_wrong_use_ends_with_two_and_says_what_to_do(arguments: tuple[str, ...], said: str) -> None:
    ended = done(*arguments)
    assert ended.returncode == 2, ended
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.slow
def test_a_plot_makes_its_folder_and_one_without_room_does_not_cost_the_summary(worker: int, tmp_path: Path) -> None:
    few = ("observe", "--pid", str(worker), "--for", "0.3")
    made = done(*few, "--plot", str(tmp_path / "new" / "run.svg"))
    assert made.returncode == 0, made.stderr
    ET.parse(tmp_path / "new" / "run.svg")  # noqa: S314 - we wrote it
    limit = ["prlimit", "--fsize=100"]
    refused = subprocess.run(
        [*limit, *words(*few, "--plot", str(tmp_path / "run.svg"))],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert refused.returncode == 2
    assert "cannot write" in refused.stderr
    assert "the agent itself" in refused.stdout
    assert not (tmp_path / "run.svg").exists()


@pytest.mark.slow
def test_nobody_there_is_told() -> None:
    ended = done("observe", "--cgroup", "/nowhere", "--for", "0.2")
    assert ended.returncode == 0, ended.stderr
    assert "nobody who opted in was there" in ended.stdout


@pytest.mark.slow
def test_restore_says_that_the_folder_it_was_told_is_not_there(tmp_path: Path) -> None:
    told = done("restore", "--leases", str(tmp_path / "other"))
    assert told.returncode == 0, told.stderr
    assert f"there is no folder {tmp_path / 'other'}" in told.stdout


@pytest.mark.slow
def test_probe_tells_what_is_usable_and_why_not() -> None:
    plain, told = done("probe"), done("probe", "--json")
    assert plain.returncode == told.returncode == 0, plain.stderr
    assert json.loads(told.stdout)["schema"] == "npuops.hostsched.probe/1"
    assert "nice" in plain.stdout


@pytest.mark.slow
def test_restore_with_nothing_left_says_so_or_names_those_alive() -> None:
    told = json.loads(done("restore", "--json").stdout)
    assert told["schema"] == "npuops.hostsched.restore/1"
    assert all(leftover["problem"] or leftover["agent"] for leftover in told["leftovers"])


def test_policies_are_completed() -> None:
    environment = {
        **os.environ,
        "_NPUOPS_COMPLETE": "complete_zsh",
        "_TYPER_COMPLETE_ARGS": "npuops hostsched act --policy tun",
    }
    code = "from npuops.cli.main import app; app(prog_name='npuops')"
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert "tuned-reactive" in ended.stdout, ended.stderr


@needs_nice
@pytest.mark.slow
def test_an_agent_that_was_stopped_finds_all_put_back_and_begins_anew(worker: int) -> None:
    with started(*words("act", "--policy", POLICY, "--pid", str(worker))) as agent:
        wait_until(lambda: nice(worker) == 7, agent)
        agent.send_signal(signal.SIGSTOP)
        wait_until(lambda: nice(worker) == 0)
        agent.send_signal(signal.SIGCONT)
        wait_until(lambda: nice(worker) == 7, agent)
        agent.send_signal(signal.SIGTERM)
        out, _ = agent.communicate(timeout=LIMIT_S)
        assert "everything was put back: the heartbeat was late" in out
    assert nice(worker) == 0


@needs_nice
@pytest.mark.slow
def test_a_second_agent_is_refused_and_the_first_goes_on(worker: int) -> None:
    with started(*words("act", "--policy", POLICY, "--pid", str(worker))) as agent:
        wait_until(lambda: nice(worker) == 7, agent)
        second = done("act", "--policy", POLICY, "--pid", str(worker), "--for", "1")
        assert second.returncode == 2
        assert f"acts already: process {agent.pid}" in second.stderr
        assert nice(worker) == 7
        alive = json.loads(done("restore", "--json").stdout)["leftovers"]
        assert [leftover["alive"] for leftover in alive] == [True]
        agent.send_signal(signal.SIGTERM)
        agent.communicate(timeout=LIMIT_S)


@needs_nice
@pytest.mark.slow
def test_what_a_killed_agent_and_a_killed_reaper_left_is_restored_by_hand(worker: int) -> None:
    with started(*words("act", "--policy", POLICY, "--pid", str(worker))) as agent:
        wait_until(lambda: nice(worker) == 7, agent)
        children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text(encoding="ascii").split()
        for number in (signal.SIGSTOP, signal.SIGKILL):  # stopped first, so that the reaper never sees its agent die
            for child in children:
                os.kill(int(child), number)
            agent.kill()
            agent.wait(LIMIT_S)
        assert nice(worker) == 7, "nobody was left to put it back"
    told = done("restore")
    assert told.returncode == 0, told.stdout
    assert "have again what they had" in told.stdout
    assert nice(worker) == 0


@pytest.mark.slow
def test_without_privilege_it_observes_and_acts_as_far_as_it_may(tmp_path: Path) -> None:
    if os.geteuid() != 0 or subprocess.run(["which", "setpriv"], capture_output=True, check=False).returncode:
        pytest.skip("privilege cannot be given up here: setpriv or root is missing")
    without = ["setpriv", "--bounding-set", "-sys_nice", "--inh-caps", "-sys_nice"]
    place = tmp_path / "leases"
    place.mkdir(mode=0o700)
    with started(*without, sys.executable, "-c", WORKS) as process:
        assert process.stdout is not None
        process.stdout.readline()
        ended = subprocess.run(
            [
                *without,
                *words("act", "--policy", POLICY, "--pid", str(process.pid), "--for", "1", "--leases", str(place)),
            ],
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        assert "no way back" in ended.stdout
        assert nice(process.pid) == 0


@needs_nice
@pytest.mark.slow
def test_run_sets_orphans_too_and_all_is_back_when_the_command_ends() -> None:
    orphan = WORKS.replace("print('ready', flush=True)", "import os; print(os.getpid(), flush=True)")
    parent = f"import os, subprocess, sys; subprocess.Popen([sys.executable, '-c', {orphan!r}]); os._exit(0)"
    script = (
        "import subprocess, sys\n"
        f"subprocess.run([sys.executable, '-c', {parent!r}], check=True, start_new_session=True)\n"
        "sys.stdin.read()\n"
    )
    run = words("run", "--policy", POLICY, "--", sys.executable, "-c", script)
    pipe = subprocess.PIPE
    with subprocess.Popen(run, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as agent:
        assert agent.stdin is not None
        assert agent.stdout is not None
        left = int(agent.stdout.readline())
        try:
            wait_until(lambda: group_or_own_nice(left) == 7, agent)
            agent.stdin.close()
            assert agent.wait(LIMIT_S) == 0
            assert group_or_own_nice(left) == 0
        finally:
            os.kill(left, signal.SIGKILL)


def group_or_own_nice(pid: int) -> int:
    """A session of which all tasks opted in is set as a whole, by its autogroup."""
    try:
        group = Path(f"/proc/{pid}/autogroup").read_text(encoding="ascii").split()
    except OSError:
        group = []
    return nice(pid) or (int(group[-1]) if group else 0)


@pytest.mark.slow
def test_systemd_is_told_that_it_is_up_alive_and_ending(worker: int, tmp_path: Path) -> None:
    place = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(str(place))
        ear.settimeout(LIMIT_S)
        environment = {**os.environ, "NOTIFY_SOCKET": str(place), "WATCHDOG_USEC": "3000000"}
        with subprocess.Popen(
            words("observe", "--pid", str(worker)), env=environment, stdout=subprocess.DEVNULL
        ) as agent:
            heard = [ear.recv(100), ear.recv(100)]
            agent.send_signal(signal.SIGTERM)
            while heard[-1] != b"STOPPING=1":
                heard.append(ear.recv(100))
            assert agent.wait(LIMIT_S) == 0
    assert heard[:2] == [b"READY=1", b"WATCHDOG=1"]


@needs_nice
@pytest.mark.slow
def test_when_nobody_reads_any_more_it_ends_and_all_is_back(worker: int) -> None:
    before = read_attributes(worker)
    with started(*words("act", "--policy", POLICY, "--pid", str(worker), "--json")) as agent:
        assert agent.stdout is not None
        agent.stdout.readline()
        agent.stdout.close()  # what it says next, of its first change, goes nowhere
        assert agent.wait(LIMIT_S) == 141
    wait_until(lambda: read_attributes(worker) == before)


@needs_nice
@pytest.mark.slow
@pytest.mark.parametrize("how", [(), ("--json",)])
def test_when_the_reader_stalls_what_is_set_stays_set_and_the_end_comes(
    how: tuple[str, ...], worker: int, tmp_path: Path
) -> None:
    """A full pipe once held the agent in a write for good: the reaper put all back, and SIGTERM was not heard."""
    trace = tmp_path / "run.trace"
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(4096))
    os.set_blocking(writer, True)
    command = words("act", "--policy", POLICY, "--pid", str(worker), "--record", str(trace), *how)
    with subprocess.Popen(command, stdout=writer, stderr=subprocess.PIPE, text=True) as agent:
        try:
            wait_until(lambda: nice(worker) == 7, agent)
            first = sleeps(agent.pid)
            wait_until(lambda: sleeps(agent.pid) > first + 50, agent)  # it goes on; on a loud machine it may be late
            wait_until(lambda: nice(worker) == 7, agent)
            agent.send_signal(signal.SIGTERM)
            _, err = agent.communicate(timeout=LIMIT_S)
        finally:
            agent.kill()
            os.close(reader)
            os.close(writer)
    assert agent.returncode == 0, err
    assert "lines were not written: nobody reads them" in err
    assert nice(worker) == 0
    found = [entry.applied for entry in read_trace(trace).entries if entry.applied is not None]
    assert len(found) > 50


def sleeps(pid: int) -> int:
    """Of a process until now: its loop has one a step."""
    told = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(told.partition("\nvoluntary_ctxt_switches:")[2].split()[0])


@pytest.mark.slow
def test_run_ends_as_the_command_ends_though_nobody_hears_npuops_any_more() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    code = "import sys; sys.stdin.read(); sys.exit(7)"
    command = words("run", "--policy", "default", "--", sys.executable, "-c", code)
    ended = subprocess.run(
        command, input="", text=True, stdout=subprocess.DEVNULL, stderr=writer, timeout=LIMIT_S, check=False
    )
    os.close(writer)
    assert ended.returncode == 7


@pytest.mark.slow
def test_who_may_not_be_touched_is_told_and_the_rest_goes_on(worker: int) -> None:
    if os.geteuid() != 0:
        pytest.skip("CAP_SYS_NICE is missing: no task can be given a real-time priority")
    with started(sys.executable, "-c", WORKS) as other:
        assert other.stdout is not None
        other.stdout.readline()
        os.sched_setscheduler(other.pid, os.SCHED_RR, os.sched_param(1))
        pids = ["--pid", str(worker), "--pid", str(other.pid)]
        ended = done("advise", "--policy", POLICY, *pids, "--for", "1")
    assert ended.returncode == 0, ended.stderr
    assert "left alone: 1: found with policy rr" in ended.stdout
    assert f"hs-works {worker}: normal → nice=7" in ended.stdout
