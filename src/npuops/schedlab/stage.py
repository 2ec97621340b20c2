"""Plays a mix on the real kernel: one process per player, all let go at one instant, all gone in the end.

Schedule and results are memory files without a name: nothing stays behind, however anybody ends.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from npuops.artifacts.disk import storage_errors
from npuops.eevdf.mix import Mix
from npuops.errors import OptionError, ToolchainCrashError, ToolchainTimeoutError, nearest
from npuops.schedlab.cpu_account import clean_share, read_idle_us
from npuops.schedlab.load_program import calibrate, cannot_start, load_program
from npuops.schedlab.recording import Origin, Recording
from npuops.schedlab.schedule_file import BIN_US, START_AT, Calibration, PlayerResult, ScheduleFile

_LEAD_NS: Final = 100_000_000
"""From go to the first instant of the mix: everybody must have heard it."""
_READY_S: Final = 60.0
_OVERTIME_S: Final = 60.0
_END_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class _Wires:
    """The director and what leads to it: closing `control_fd` ends it and all players."""

    director: subprocess.Popen[bytes]
    control_fd: int
    report_fd: int
    words_fd: int


class Stage:
    """A mix on the kernel. Made by `open_stage`, which ends it too.

    Attributes:
        mix: what is played.
        seed: of its arrivals.
        pids: process of each player by name; each waits for `go`.
        start_ns: when the mix begins or began, CLOCK_MONOTONIC; None before `go`.
    """

    def __init__(
        self,
        mix: Mix,
        seed: int,
        script: ScheduleFile,
        results: mmap.mmap,
        wires: _Wires,
        cpus: Sequence[int],
    ) -> None:
        self.mix = mix
        self.seed = seed
        self.start_ns: int | None = None
        self._script = script
        self._results = results
        self._wires = wires
        self._director = wires.director
        self._cpus = tuple(cpus)
        self._idle_us = self._opened_ns = 0
        self._await_ready()
        self.pids: Mapping[str, int] = script.pids(bytes(results))

    def go(self) -> int:
        """Let the mix begin, a tenth of a second from now.

        Returns:
            `start_ns`.

        Raises:
            OptionError: it was let go before.
            ToolchainCrashError: it ended already.
        """
        if self.start_ns is not None:
            raise OptionError("a stage plays its mix once", advice="open another one")
        self._opened_ns, self._idle_us = time.monotonic_ns(), read_idle_us(self._cpus)
        start = time.monotonic_ns() + _LEAD_NS
        self._results[START_AT : START_AT + 8] = start.to_bytes(8, "little")
        try:
            os.write(self._wires.control_fd, b"g")
        except BrokenPipeError as error:
            raise self._crash() from error
        self.start_ns = start
        return start

    def peek(self) -> tuple[PlayerResult, ...]:
        """What the players did so far, in the order of the mix."""
        return self._script.read(bytes(self._results))

    def answers(self, name: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """When this player's requests arrived so far, and when each was answered; -1 if it is not. Both in ns.

        Cheap enough to ask a hundred times a second: for hints, as the application would send them.

        Raises:
            OptionError: there is no such player.
        """
        if name not in self.pids:
            raise OptionError(f"mix {self.mix.name} has no player {name!r}", advice=nearest(name, self.pids))
        number = list(self.pids).index(name)
        since_ns = 0 if self.start_ns is None else time.monotonic_ns() - self.start_ns
        arrivals = self._script.arrivals[number]
        count = int(np.searchsorted(arrivals, since_ns, side="right"))
        done = np.frombuffer(self._results[self._script.answers_at(number)], np.int64)
        return arrivals[:count], done[:count]

    def ended(self, timeout_s: float) -> bool:
        """Wait so long for the end of the mix, asleep; says whether it came."""
        ready = _readable(self._wires.report_fd, timeout_s)
        if ready:  # nobody is left who could write there
            self._director.wait()
        return ready

    def finish(self) -> Recording:
        """Wait for the end of the mix and collect.

        Raises:
            OptionError: it was never let go.
            ToolchainCrashError: a player or the director ended badly, or was killed.
            ToolchainTimeoutError: they do not end.
        """
        if self.start_ns is None:
            raise OptionError("a mix that was never let go does not end", advice="call go() first")
        left_s = (self.start_ns - time.monotonic_ns()) / 1e9 + self.mix.duration_us / 1e6 + _OVERTIME_S
        if not self.ended(max(left_s, _OVERTIME_S)):
            raise ToolchainTimeoutError(f"mix {self.mix.name} did not end within {_OVERTIME_S:g} s after its time")
        idle_us, window_us = read_idle_us(self._cpus) - self._idle_us, (time.monotonic_ns() - self._opened_ns) // 1000
        if self._director.returncode:
            raise self._crash()
        results = self.peek()
        ours_us = sum(int(one.record.cpu_ns.sum()) for one in results) // 1000
        return Recording(
            self.mix,
            self.seed,
            Origin.KERNEL,
            tuple(one.record for one in results),
            clean_share(idle_us, ours_us, window_us, len(self._cpus)),
            BIN_US,
            np.stack([one.bins for one in results]),
        )

    def _await_ready(self) -> None:
        report = self._wires.report_fd
        if not _readable(report, _READY_S):
            raise ToolchainTimeoutError(f"the players of mix {self.mix.name} were not ready within {_READY_S:g} s")
        if os.read(report, 1) != b"r":
            self.ended(_END_S)
            raise self._crash()

    def _crash(self) -> ToolchainCrashError:
        """What is known about a play that ended too early."""
        culprit = self._script.culprit(bytes(self._results))
        if culprit is not None:
            return _crashed(self.mix, f"{self.mix.players[culprit].name} {_end_of(self.peek()[culprit])}")
        words = os.pread(self._wires.words_fd, 4096, 0).decode(errors="replace").strip()
        return _crashed(self.mix, words or f"its director ended with {self._director.returncode}")


def _readable(fd: int, timeout_s: float) -> bool:
    """Whether bytes, or the end, came within this time; `select` would refuse a descriptor beyond 1023."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))


def _end_of(one: PlayerResult) -> str:
    if one.error:
        return f"failed: {os.strerror(one.error)}"
    code = os.waitstatus_to_exitcode(one.status or 0)
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"


def _crashed(mix: Mix, why: str) -> ToolchainCrashError:
    return ToolchainCrashError(
        f"mix {mix.name} was not played to its end: {why}",
        advice="play it again; what the other players did meanwhile means nothing",
    )


@contextmanager
def open_stage(
    mix: Mix,
    seed: int,
    *,
    cpus: Sequence[int] | None = None,
    calibration: Calibration | None = None,
    program: Path | None = None,
) -> Iterator[Stage]:
    """Start the players of `mix`, which wait for `Stage.go`; on leaving, whatever happened, none of them is left.

    Args:
        mix: what to play.
        seed: of its arrivals.
        cpus: which CPUs its tasks are pinned to, `mix.cpus` of them; by default the last ones that this process may
            use. All CPUs of the machine are no pinning: the kernel refuses reservations to a pinned task.
        calibration: measured now if not given; plays that are to be compared should share one.
        program: the load program; by default compiled into npuops' cache, or found there.

    Raises:
        OptionError: the machine has too few CPUs, or `cpus` are not as many as the mix wants.
        ToolchainCrashError: the players did not start.
        StorageError: memory is short.
        As `load_program`.
    """
    chosen = choose_cpus(mix, cpus)
    everywhere = set(chosen) == set(range(os.cpu_count() or 1))
    program = load_program() if program is None else program
    speed = calibrate(program) if calibration is None else calibration
    script = ScheduleFile(mix, seed, () if everywhere else chosen, speed)
    with ExitStack() as stack:
        schedule_fd, schedule = _memory_file(stack, "npuops-schedule", script.schedule)
        results_fd, results = _memory_file(stack, "npuops-results", script.blank)
        words_fd, _ = _memory_file(stack, "npuops-words", b"")
        schedule.close()
        wires = _start(stack, program, (schedule_fd, results_fd, words_fd))
        yield Stage(mix, seed, script, results, wires, chosen)


def play(
    mix: Mix,
    seed: int,
    *,
    on_start: Callable[[Mapping[str, int]], object] | None = None,
    cpus: Sequence[int] | None = None,
    calibration: Calibration | None = None,
    program: Path | None = None,
) -> Recording:
    """Play `mix` to its end; `on_start` gets name → pid before it begins, to set what it likes.

    Raises:
        As `open_stage` and `Stage.finish`; and whatever `on_start` raises.
    """
    with open_stage(mix, seed, cpus=cpus, calibration=calibration, program=program) as stage:
        if on_start is not None:
            on_start(stage.pids)
        stage.go()
        return stage.finish()


def choose_cpus(mix: Mix, cpus: Sequence[int] | None = None) -> tuple[int, ...]:
    """The CPUs that a mix is played on.

    Raises:
        OptionError: too few are there, or `cpus` are not as many as the mix wants.
    """
    allowed = sorted(os.sched_getaffinity(0))
    if cpus is not None:
        if len(set(cpus)) != mix.cpus or not set(cpus) <= set(allowed):
            raise OptionError(f"mix {mix.name} wants {mix.cpus} of the CPUs {allowed}, not {sorted(set(cpus))}")
        return tuple(sorted(cpus))
    if mix.cpus > len(allowed):
        raise OptionError(
            f"mix {mix.name} wants {mix.cpus} CPUs, this process may use {len(allowed)}",
            advice="play a mix for fewer CPUs",
        )
    return tuple(allowed[-mix.cpus :])


def _memory_file(stack: ExitStack, name: str, content: bytes) -> tuple[int, mmap.mmap]:
    """A file without a place, of this content, that nobody can make shorter."""
    with storage_errors("keep in memory", Path(name), need_bytes=len(content)):
        fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        stack.callback(os.close, fd)
        if content:
            os.posix_fallocate(fd, 0, len(content))
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        mapped = stack.enter_context(mmap.mmap(fd, len(content)) if content else mmap.mmap(-1, 1))
        if content:
            mapped[:] = content
    return fd, mapped


def _start(stack: ExitStack, program: Path, files: tuple[int, int, int]) -> _Wires:
    """The director, in a session of its own: Ctrl-C is for us, and we end it."""
    schedule_fd, results_fd, words_fd = files
    control_end, control_fd = os.pipe()
    report_fd, report_end = os.pipe()
    stack.callback(os.close, report_fd)
    try:
        director = subprocess.Popen(  # noqa: S603 - our own program
            [program, "play", str(schedule_fd), str(results_fd), "0", "1", str(os.getpid())],
            stdin=control_end,
            stdout=report_end,
            stderr=words_fd,
            pass_fds=(schedule_fd, results_fd),
            start_new_session=True,
        )
    except OSError as error:
        os.close(control_fd)
        raise cannot_start(program, error) from error
    finally:
        os.close(control_end)
        os.close(report_end)
    stack.callback(_end, director, control_fd)
    return _Wires(director, control_fd, report_fd, words_fd)


def _end(director: subprocess.Popen[bytes], control_fd: int) -> None:
    """Closing its pipe tells the director to end all players and itself."""
    os.close(control_fd)
    try:
        director.wait(_END_S)
    except subprocess.TimeoutExpired:  # somebody stopped it; its players die with it
        director.kill()
        director.wait()
