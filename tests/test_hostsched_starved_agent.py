from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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
            hogs = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(60)]
        if events[-1]["event"] == "own":
            for hog in hogs:
                hog.kill()
            one.terminate()
print(json.dumps(events))
"""
"""An agent, then sixty that compute in its session and on its CPU, until it says that its own place is another one."""


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="CAP_SYS_NICE is missing: the agent could not take a better place")
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
