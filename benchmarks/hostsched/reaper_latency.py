"""How long an agent's changes outlive it: from its SIGKILL (or SIGSTOP) until the last task is back, a distribution.

    python benchmarks/hostsched/reaper_latency.py [--rounds 50] [--tasks 16] [--hogs 0] [--how kill|stop] [--json]

`--hogs N` puts N spinning processes beside it, each in a session of its own, as on a loaded host. For `stop` the
heartbeat's timeout (`--timeout-ms`, 300) is part of the time. The promise is 200 ms after the death or the timeout.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from npuops.eevdf.setting import DEFAULT, Setting
from npuops.hostsched.actuate import Actuator
from npuops.hostsched.attributes import wanted
from npuops.hostsched.knobs import read_setting, write_attributes
from npuops.hostsched.plan import Orders
from npuops.hostsched.process_stat import look_at
from npuops.hostsched.task_id import TaskId


def act(folder: str, timeout_ms: str, *pids: str) -> None:
    """The agent's process: everything demoted, then beats until it dies."""
    tasks: dict[TaskId, Setting | None] = {}
    for pid in pids:
        stat = look_at(int(pid))
        if stat is not None:
            tasks[stat.id] = Setting(nice=19)
    actuator = Actuator(Path(folder), timeout_ms=int(timeout_ms))
    actuator.apply(Orders(tasks, {}))
    print("set", flush=True)
    while True:
        actuator.beat()
        time.sleep(0.02)


def one_round(folder: str, pids: list[int], how: str, timeout_ms: int) -> float:
    """Milliseconds."""
    command = [sys.executable, __file__, "--act", folder, str(timeout_ms), *map(str, pids)]
    agent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert agent.stdout is not None  # noqa: S101 - it was asked for
    if agent.stdout.readline() != "set\n":
        raise SystemExit("the agent did not act")
    began = time.perf_counter_ns()
    agent.send_signal(signal.SIGKILL if how == "kill" else signal.SIGSTOP)
    while any(read_setting(pid) != DEFAULT for pid in pids):
        time.sleep(0.0005)
    took = (time.perf_counter_ns() - began) / 1e6
    agent.kill()
    agent.communicate()
    return took


def main() -> None:
    if sys.argv[1:2] == ["--act"]:
        act(*sys.argv[2:])
        return
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=50)
    options.add_argument("--tasks", type=int, default=16)
    options.add_argument("--hogs", type=int, default=0)
    options.add_argument("--how", choices=["kill", "stop"], default="kill")
    options.add_argument("--timeout-ms", type=int, default=300)
    options.add_argument("--json", action="store_true")
    given = options.parse_args()
    if os.geteuid() == 0:  # the one who measures must not be late itself
        write_attributes(0, wanted(Setting(nice=-20)))
    quiet = {"start_new_session": True, "preexec_fn": lambda: os.setpriority(os.PRIO_PROCESS, 0, 0)}
    tasks = [subprocess.Popen(["sleep", "3600"], **quiet) for _ in range(given.tasks)]  # type: ignore[call-overload]
    hogs = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"], **quiet)  # type: ignore[call-overload]
        for _ in range(given.hogs)
    ]
    try:
        with tempfile.TemporaryDirectory() as folder:
            pids = [task.pid for task in tasks]
            took = sorted(one_round(folder, pids, given.how, given.timeout_ms) for _ in range(given.rounds))
    finally:
        for process in [*tasks, *hogs]:
            process.kill()
            process.wait()
    result = {
        "how": given.how,
        "tasks": given.tasks,
        "hogs": given.hogs,
        "rounds": given.rounds,
        "median_ms": statistics.median(took),
        "p90_ms": took[int(0.9 * (len(took) - 1))],
        "max_ms": took[-1],
        "timeout_ms": given.timeout_ms if given.how == "stop" else 0,
    }
    print(json.dumps(result) if given.json else "\n".join(f"{name:12} {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
