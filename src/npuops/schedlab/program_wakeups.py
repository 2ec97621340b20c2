"""Programs that measure how late they wake: cyclictest beside hackbench, and one like schbench beside hogs."""

from __future__ import annotations

import re
import signal
from functools import cache
from subprocess import TimeoutExpired, run
from typing import Final

import numpy as np

from npuops.errors import ToolchainCrashError, ToolchainTimeoutError
from npuops.hostsched.hint import Kind
from npuops.schedlab.attendant import STAGE, Attended
from npuops.schedlab.batch_programs import HACKBENCH_NEEDS, hackbench, hogs
from npuops.schedlab.open_loop import played_by, poisson_ns
from npuops.schedlab.program_load import Cast, Need, ProgramLoad, Scene
from npuops.schedlab.program_outcome import Answers
from npuops.schedlab.program_roles import ProgramRole

_INTERVAL_US: Final = 1000
_THREADS: Final = 2
_END_S: Final = 30.0
_CALIBRATION_S: Final = 60.0
_SAMPLE: Final = re.compile(r"^ *(\d+): *(\d+): *(\d+)$", re.MULTILINE)

_MESSENGERS: Final = 2
_WORKERS: Final = 8
_WORK_US: Final = 300
_RATE_PER_S: Final = 1200.0


class Cyclictest:
    """Threads that ask to be woken each millisecond, and print how late they were."""

    def __init__(self, program: Attended) -> None:
        """As it runs."""
        self._program = program
        self._from = 0

    def go(self, start_ns: int) -> None:  # noqa: ARG002 - it runs since it was started
        """What it printed until now does not count."""
        self._from = len(_SAMPLE.findall(self._program.log()))

    def finish(self) -> Answers:
        """End it, and read what it printed in the window.

        A wake-up that it slept through it leaves out: these are misses, each as late as it was when it woke.

        Raises:
            ToolchainCrashError: it ended before, or printed nothing.
        """
        self._program.demand_alive()
        self._program.signal(signal.SIGINT)  # then it prints the rest
        self._program.wait(_END_S)
        samples = _SAMPLE.findall(self._program.log())[self._from :]
        if not samples:
            raise ToolchainCrashError("cyclictest printed no wake-up in this window", advice="play for 1 s at least")
        return with_skipped(np.array([float(late) for _, _, late in samples]))


def with_skipped(late_us: np.ndarray[tuple[int], np.dtype[np.float64]], interval_us: int = _INTERVAL_US) -> Answers:
    """Wake-ups, and behind them those that lay in the time that each was late.

    Args:
        late_us: of each wake-up that happened.
        interval_us: between the instants at which one should.
    """
    skipped = np.maximum(np.ceil(late_us / interval_us) - 1, 0).astype(np.int64)
    steps = np.concatenate([np.arange(1, count + 1) for count in skipped]) if skipped.any() else np.empty(0)
    lost_us = np.repeat(late_us, skipped) - steps * interval_us
    answered = np.concatenate([np.ones(len(late_us), bool), np.zeros(len(lost_us), bool)])
    return Answers(np.concatenate([late_us, lost_us]), answered)


def _set_up_cyclictest(scene: Scene) -> Cast:
    batch, meter = hackbench(scene)
    words = ["cyclictest", "--policy=other", "--default-system", "-v", "-q"]
    program = scene.start("cyclictest", [*words, f"-t{_THREADS}", f"-i{_INTERVAL_US}", "-d0"])
    scene.people.remove(program)  # those must live on; this one is ended to make it print the rest
    program.await_said(f"(?m){_SAMPLE.pattern}")
    role = ProgramRole("cyclictest", Kind.LATENCY, program.pid, ("cyclictest*",))
    return Cast(scene.cast(role, batch), Cyclictest(program), meter, None)


def _set_up_messengers(scene: Scene) -> Cast:
    batch, meter = hogs(scene)
    arrivals = poisson_ns(scene.seed, _RATE_PER_S, scene.window_ns)
    iterations = _iterations_per_ms() * _WORK_US // 1000
    words = ["wake", str(_MESSENGERS), str(_WORKERS), str(iterations)]
    app = scene.stack.enter_context(played_by(words, "messengers", arrivals, scene.window_ns, scene.folder))
    role = ProgramRole("messengers", Kind.LATENCY, app.program.pid, ("messenger*", "waked"))
    return Cast(scene.cast(role, batch), app, meter, None)


@cache
def _iterations_per_ms() -> int:
    """How fast this machine is: measured once for all plays of a process, so that they do the same work."""
    words = [str(STAGE.compiled()), "calibrate"]
    try:
        done = run(words, capture_output=True, text=True, timeout=_CALIBRATION_S, check=False)  # noqa: S603 - ours
    except TimeoutExpired as error:
        raise ToolchainTimeoutError(f"the calibration did not end within {_CALIBRATION_S:g} s") from error
    if done.returncode or not done.stdout.strip().isdecimal():
        raise ToolchainCrashError(f"the calibration ended with {done.returncode}: {done.stderr.strip()}")
    return int(done.stdout)


CYCLICTEST: Final = ProgramLoad(
    "cyclictest-hackbench",
    f"{_THREADS} threads of cyclictest --policy=other, each {_INTERVAL_US} us, beside hackbench",
    _INTERVAL_US,
    (Need("cyclictest", "rt-tests"), *HACKBENCH_NEEDS),
    _set_up_cyclictest,
)
MESSENGERS: Final = ProgramLoad(
    "messengers-hogs",
    f"{_MESSENGERS} messengers that wake {_WORKERS} workers for {_WORK_US} us, {_RATE_PER_S:g} times a second, "
    "beside hogs",
    2000,
    (Need("cc", "gcc"),),
    _set_up_messengers,
)
