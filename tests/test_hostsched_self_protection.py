from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from npuops.eevdf.setting import SchedPolicy
from npuops.hostsched.knobs import read_attributes
from npuops.hostsched.own_need import FIRST_STAY_US
from npuops.hostsched.self_protection import AS_STARTED, protected

CLIMBS = """
import json, os, subprocess, sys
{before}
from npuops.hostsched.knobs import read_attributes
from npuops.hostsched.self_protection import protected
before, waited, places = read_attributes(0), [0], []

def child():
    code = "import os; print(os.sched_getscheduler(0), os.nice(0))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()

def stand(why):
    have = read_attributes(0)
    places.append([int(have.policy), have.nice, child(), protection.words, why])

with protected(20_000, lambda: waited[0]) as protection:
    stand("")
    for at_us, waits in {steps}:
        waited[0] += waits * 1_000_000
        stand(protection.follow(at_us))
assert read_attributes(0) == before, (before, read_attributes(0))
print(json.dumps(places))
"""
LONG = 100
"""A wait in ms that is more than it bears."""


def climb(*steps: tuple[int, int], before: str = "", prefix: tuple[str, ...] = ()) -> list[list[object]]:
    """Policy, nice, a child's, the words and why: at the start and after each step of (moment in us, wait in ms)."""
    code = CLIMBS.format(before=before, steps=repr(steps))
    done = subprocess.run(
        [*prefix, sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    found: list[list[object]] = json.loads(done.stdout)
    return found


needs_nice = pytest.mark.skipif(os.geteuid() != 0, reason="CAP_SYS_NICE is missing")


def test_it_keeps_the_place_it_was_started_in_while_it_waits_little() -> None:
    assert climb((0, 1), (100_000, 9), (200_000, 0)) == [[0, 0, "0 0", AS_STARTED, ""]] * 4


@needs_nice
def test_it_takes_more_while_it_waits_its_children_do_not_and_all_is_back_afterwards() -> None:
    start, nice, reserved, less, least = climb((0, LONG), (1, LONG), (1 + FIRST_STAY_US, 0), (1 + 2 * FIRST_STAY_US, 0))
    assert start == [0, 0, "0 0", AS_STARTED, ""]
    assert nice == [0, -20, "0 0", "nice -20", "it waited 100.0 ms for a CPU"]
    if "refused" in str(reserved[-1]):
        pytest.skip(f"other reservations leave no room now: {reserved[-1]}")
    assert reserved == [int(SchedPolicy.DEADLINE), 0, "0 0", "4000 of every 20000 us reserved", nice[-1]]
    assert less == [0, -20, "0 0", "nice -20", "it may do with less again"]
    assert least == [0, 0, "0 0", AS_STARTED, less[-1]]


@needs_nice
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="with one CPU nobody is pinned")
def test_one_that_is_pinned_gets_a_nice_value_and_is_told_once_that_there_is_no_more() -> None:
    one = f"os.sched_setaffinity(0, {{{min(os.sched_getaffinity(0))}}})"
    _, _, refused, again = climb((0, LONG), (1, LONG), (2, LONG), before=one)
    assert refused[:4] == again[:4] == [0, -20, "0 0", "nice -20"]
    assert "reserved was refused: " in str(refused[-1])
    assert again[-1] == ""


def test_without_the_right_it_goes_on_and_says_why() -> None:
    without = ("setpriv", "--bounding-set", "-sys_nice", "--inh-caps", "-sys_nice") if os.geteuid() == 0 else ()
    _, told, again = climb((0, LONG), (1, LONG), prefix=without)
    assert told[:4] == again[:4] == [0, 0, "0 0", AS_STARTED]
    assert "nice -20 was refused: " in str(told[-1])
    assert "not permitted" in str(told[-1])
    assert again[-1] == ""


@needs_nice
def test_whoever_has_a_policy_already_keeps_it() -> None:
    fifo = "os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))"
    assert {place[0] for place in climb((0, LONG), (1, LONG), before=fifo)} == {os.SCHED_FIFO}


def climb_and_fail() -> None:
    waited = iter(range(0, 10**12, 10**9))
    with protected(20_000, lambda: next(waited)) as protection:
        protection.follow(0)
        raise RuntimeError


def test_nothing_is_left_behind_when_the_work_fails() -> None:
    before = read_attributes(0)
    with pytest.raises(RuntimeError):
        climb_and_fail()
    assert read_attributes(0) == before


def test_what_it_waited_is_what_the_kernel_counts_of_it() -> None:
    waits = """
import os, subprocess, sys, time
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from npuops.hostsched.self_protection import protected
rivals = [subprocess.Popen(["sh", "-c", "ulimit -t 60; while :; do :; done"]) for _ in range(8)]
with protected(20_000) as protection:
    places, ends = [], time.process_time() + 0.5
    while time.process_time() < ends:
        pass
    for at_us in range(2):
        places.append(protection.follow(at_us))
for rival in rivals:
    rival.kill()
print(places)
"""
    told = subprocess.run([sys.executable, "-c", waits], capture_output=True, text=True, timeout=120, check=True).stdout
    first = told.split("'")[1]
    assert first.startswith("it waited ")
    assert float(first.split()[2]) > 100, "eight others and it share a CPU: it waits longer than it runs"


STARVED = """
import json, os, subprocess, sys
os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
agent = "from npuops.cli.main import main; main()"
words = [sys.executable, "-c", agent, "hostsched", "act", "--json", "--pid", str(os.getpid())]
hogs, events = [], []
with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as one:
    for line in one.stdout:
        events.append(json.loads(line))
        if events[-1]["event"] == "started":
            hogs = [subprocess.Popen(["sh", "-c", "ulimit -t 20; while :; do :; done"]) for _ in range(60)]
        if events[-1]["event"] == "own":
            for hog in hogs:
                hog.kill()
            one.terminate()
print(json.dumps(events))
"""
"""An agent, then sixty that compute in its session and on its CPU, until it says that its own place is another one."""


@pytest.mark.slow
@needs_nice
def test_an_agent_that_waits_for_its_cpu_takes_a_better_place(tmp_path: Path) -> None:
    place = {"NPUOPS_HINT_SOCKET": str(tmp_path / "hints.sock"), "NPUOPS_LEASES": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", STARVED],
        env=os.environ | place,
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
        start_new_session=True,
    )
    events = json.loads(done.stdout)
    assert next(event["own"] for event in events if event["event"] == "started") == "as it was started"
    own = next(event for event in events if event["event"] == "own")
    assert own["own"] == "nice -20"
    assert own["why"].startswith("it waited ")
    assert events[-1]["event"] == "ended"
