"""Records the changes of task of a real play: the kernel's own tracepoints, in a trace buffer of our own.

Nothing of the machine's tracing is touched: events go to an instance, which is removed in the end. Who is killed
meanwhile leaves an empty one that records nothing (the kernel empties it as our descriptor closes), and the next
recorder removes it.
"""

from __future__ import annotations

import itertools
import os
import platform
import re
import signal
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import numpy as np

from npuops.eevdf.mix import Doing
from npuops.eevdf.setting import DEFAULT
from npuops.errors import DataError, NpuopsError, ToolchainTimeoutError
from npuops.hostsched.knobs import KnobError, base_slice_ns
from npuops.schedlab.schedule_file import Calibration
from npuops.schedlab.stage import choose_cpus, open_stage
from npuops.schedlab.switch_onlooker import BOOKED, SWITCH, TICK, WAKE, Onlooker
from npuops.schedlab.switch_trace import COLUMNS, Actor, Event, Events, Play, SwitchTrace
from npuops.schedlab.trace_pages import RawRecord, RecordFormat, record_format, records
from npuops.schedlab.validate import set_players
from npuops.schedlab.validation_cells import Cell

TRACEFS: Final = Path("/sys/kernel/tracing")
BUFFER_KIB: Final = 16_384
"""Of each CPU: about 300 000 records."""
_PREFIX: Final = "npuops-switches"
_PAGE_BYTES: Final = 1 << 16
_SETTLE_S: Final = 20.0
_LOOK_S: Final = 0.001
_counts = itertools.count()


class NoTraceError(NpuopsError):
    """Changes of task cannot be recorded here; the message says why."""


class Watch:
    """A trace buffer that fills. Made by `watch`.

    Attributes:
        folder: the instance in tracefs.
    """

    def __init__(self, folder: Path, cpus: Sequence[int]) -> None:
        self.folder = folder
        self._cpus = cpus
        self._formats = {
            place: _format(folder, place, fields)
            for place, fields in (SWITCH, WAKE, TICK, BOOKED)
            if (folder / "events" / place).is_dir()
        }

    def stop(self) -> dict[int, list[RawRecord]]:
        """End the recording: by CPU, what was written there.

        Raises:
            DataError: the kernel lost something, or what it wrote cannot be read.
        """
        _tell(self.folder / "tracing_on", "0")
        formats = {known.number: known for known in self._formats.values()}
        found = {}
        for cpu in range(os.cpu_count() or 1):
            place = self.folder / f"per_cpu/cpu{cpu}"
            if not place.is_dir():
                continue
            lost = sum(map(int, re.findall(r"^(?:overrun|dropped events|commit overrun): (\d+)$", _words(place), re.M)))
            if lost:
                raise DataError(f"the kernel lost {lost} records of CPU {cpu}", advice="use a larger buffer")
            found[cpu] = [record for page in _pages(place / "trace_pipe_raw") for record in records(page, formats)]
        return found

    def events(self, pids: Mapping[str, int], begun_ns: int, end_ns: int) -> tuple[Events, int]:
        """End the recording: what happened between these moments (CLOCK_MONOTONIC), as a `SwitchTrace` has it.

        Returns:
            The events, and how many of them were hidden and are inferred.

        Raises:
            DataError: as `stop`.
        """
        numbers = {pid: number for number, pid in enumerate(pids.values())}
        place_of = {cpu: place for place, cpu in enumerate(self._cpus)}
        kinds = {known.number: place for place, known in self._formats.items()}
        rows: list[tuple[int, ...]] = []
        inferred = 0
        for cpu, found in self.stop().items():
            seen = Onlooker(numbers, place_of, cpu)
            within = [record for record in found if begun_ns <= record.moment_ns < end_ns]
            for record in within:
                rows += seen.look(kinds[record.number], record.moment_ns - begun_ns, record.values)
            inferred += seen.inferred
        rows.sort(key=lambda row: row[0])
        return np.array(rows, np.int64).reshape(-1, COLUMNS), inferred


@contextmanager
def watch(
    pids: Sequence[int], cpus: Sequence[int], *, root: Path = TRACEFS, buffer_kib: int = BUFFER_KIB
) -> Iterator[Watch]:
    """Record who runs on these CPUs, and when these tasks wake; whatever happens, the trace buffer is gone afterwards.

    Args:
        pids: tasks whose wake-ups count.
        cpus: where changes of task count, whoever runs.
        root: of tracefs.
        buffer_kib: of each CPU; when it is full, the kernel counts what it drops, and `Watch.stop` refuses.

    Raises:
        NoTraceError: no tracefs, no right to it, or a kernel without these tracepoints.
    """
    with ExitStack() as stack:
        with _refusals():
            watched = _open(stack, root, pids, cpus, buffer_kib)
        yield watched


def _open(stack: ExitStack, root: Path, pids: Sequence[int], cpus: Sequence[int], buffer_kib: int) -> Watch:
    _sweep(root)
    folder = root / "instances" / f"{_PREFIX}-{os.getpid()}-{next(_counts)}"
    folder.mkdir()
    stack.callback(_remove, folder)
    _tell(folder / "tracing_on", "0")
    _tell(folder / "options/disable_on_free", "1")
    ours = os.open(folder / "free_buffer", os.O_WRONLY | os.O_CLOEXEC)
    stack.callback(os.close, ours)
    _tell(folder / "options/overwrite", "0")
    _tell(folder / "trace_clock", "mono")
    _tell(folder / "buffer_size_kb", str(buffer_kib))
    where, who = "||".join(f"CPU=={cpu}" for cpu in cpus), "||".join(f"pid=={pid}" for pid in pids)
    for (place, _), filter_ in zip((SWITCH, WAKE, TICK, BOOKED), (where, who, where, who), strict=True):
        event = folder / "events" / place
        if place == TICK[0] and not event.is_dir():
            continue  # not an x86: then the simulator's ticks are where chance puts them
        _tell(event / "filter", filter_)
        _tell(event / "enable", "1")
    watched = Watch(folder, cpus)
    _tell(folder / "tracing_on", "1")
    return watched


@contextmanager
def _refusals() -> Iterator[None]:
    """What tracefs refuses, in our words."""
    try:
        yield
    except OSError as error:
        raise NoTraceError(
            f"changes of task cannot be recorded: {error.strerror} ({error.filename})",
            advice="be root, with tracefs mounted: mount -t tracefs tracefs /sys/kernel/tracing",
        ) from error


def _sweep(root: Path) -> None:
    """Remove what recorders left that were killed. One that lives holds a file open, so the kernel keeps its."""
    for left in (root / "instances").glob(f"{_PREFIX}-*"):
        pid = left.name.removeprefix(_PREFIX).strip("-").partition("-")[0]
        if pid.isdecimal() and not Path(f"/proc/{pid}").exists():
            with suppress(OSError):  # another recorder was faster, or its owner lives in another pid namespace
                left.rmdir()


def _remove(folder: Path) -> None:
    with _refusals():
        folder.rmdir()


def _tell(path: Path, words: str) -> None:
    with path.open("w") as file:
        file.write(words)


def _words(place: Path) -> str:
    return (place / "stats").read_text()


def _format(folder: Path, place: str, fields: tuple[str, ...]) -> RecordFormat:
    return record_format((folder / "events" / place / "format").read_text(), fields)


def _pages(path: Path) -> Iterator[bytes]:
    """One read gives one page."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        while page := os.read(descriptor, _PAGE_BYTES):
            yield page
    except BlockingIOError:
        return  # that was the last one
    finally:
        os.close(descriptor)


def record(
    cell: Cell,
    seed: int,
    calibration: Calibration,
    *,
    cpus: Sequence[int] | None = None,
    shield: bool = False,
    buffer_kib: int = BUFFER_KIB,
    program: Path | None = None,
) -> SwitchTrace:
    """Play a cell on this machine's kernel and record who ran when.

    Raises:
        NoTraceError: as `watch`.
        DataError: as `Watch.stop`; or no player was seen, or who left a CPU was not there before.
        As `play_kernel`.
    """
    chosen = choose_cpus(cell.mix, cpus)
    with open_stage(cell.mix, seed, cpus=chosen, calibration=calibration, program=program) as stage:
        niceness = set_players(cell, stage.pids, shield=shield)
        _settle(stage.pids.values())
        with watch(list(stage.pids.values()), chosen, buffer_kib=buffer_kib) as watched:
            begun = time.monotonic_ns()
            end = stage.go() + cell.mix.duration_us * 1000
            stage.finish()
            events, inferred = watched.events(stage.pids, begun, end)
    actors = tuple(
        Actor(
            name=player.name,
            session=player.session,
            setting=cell.treatment.setting(player) or DEFAULT,
            group_nice=niceness[player.name],
            naps=any(act.doing is Doing.CYCLE for act in player.acts),
        )
        for player in cell.mix.players
    )
    play = Play(
        mix=cell.mix.name,
        treatment=cell.treatment.name,
        seed=seed,
        actors=actors,
        cpus=cell.mix.cpus,
        duration_ns=end - begun,
        inferred=inferred,
        base_slice_ns=_base_slice_ns(),
        kernel=platform.release(),
        machine=f"{platform.machine()}, {os.cpu_count()} CPUs",
    )
    trace = SwitchTrace(play, events)
    _check(trace)
    return trace


def _settle(pids: Iterable[int]) -> None:
    """Wake them one by one before the play, so that none is owed anything from its preparation, nor owes.

    Who is alone in its session's queue leaves it without lag. Of a task that never sleeps again the lag that it begins
    with decides all along, and no trace tells it.
    """
    for pid in pids:
        for signal_, state in ((signal.SIGSTOP, "T"), (signal.SIGCONT, "S")):
            os.kill(pid, signal_)
            give_up = time.monotonic() + _SETTLE_S
            while _state(pid) != state:
                if time.monotonic() > give_up:
                    raise ToolchainTimeoutError(f"player {pid} does not come to rest within {_SETTLE_S:g} s")
                time.sleep(_LOOK_S)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _check(trace: SwitchTrace) -> None:
    for fault in trace.faults():
        raise DataError(f"the recording contradicts itself: {fault}", advice="records were lost: play it again")
    if not (trace.of_kind(Event.SWITCH)[:, 4] >= 0).any():
        raise DataError("no task of the play was seen", advice="record it in the machine's own pid namespace")


def _base_slice_ns() -> int:
    try:
        return base_slice_ns()
    except KnobError:  # a kernel that tells no slices
        return 0
