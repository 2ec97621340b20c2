"""The load program: compiled from our own C once per source, and how fast this machine runs its loops."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

from npuops.errors import StorageError, ToolchainCrashError, ToolchainTimeoutError
from npuops.hostsched.c_source import CSource
from npuops.schedlab.schedule_file import Calibration

SOURCES: Final = ("load.h", "load.c", "load_player.c")
_PROGRAM: Final = CSource("npuops.schedlab", "load", SOURCES)
_LIMIT_S: Final = 120
_TRIES: Final = 3


def load_program(folder: Path | None = None) -> Path:
    """Path of the program in `folder`, by default in npuops' cache; compiled now if it is not there yet.

    Raises:
        MissingToolchainError: no C compiler here.
        CompileError: it refused; its words are in the message.
        ToolchainTimeoutError: it did not end.
        StorageError: the folder cannot be written.
    """
    return _PROGRAM.compiled(folder)


def calibrate(program: Path | None = None) -> Calibration:
    """Measure this machine's speed, in about a quarter of a second of CPU time.

    Measure once and hand it to every play that is to be compared: it says how much work a microsecond is.

    Raises:
        ToolchainCrashError: the program ended badly, every time.
        As `load_program`.
    """
    program = load_program() if program is None else program
    found = [_measure(program) for _ in range(_TRIES)]
    return Calibration(
        compute_per_ms=sorted(one.compute_per_ms for one in found)[_TRIES // 2],
        scan_per_ms=sorted(one.scan_per_ms for one in found)[_TRIES // 2],
    )


def _measure(program: Path) -> Calibration:
    try:
        ended = subprocess.run(  # noqa: S603 - our own program
            [program, "calibrate"], capture_output=True, text=True, timeout=_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ToolchainTimeoutError(f"{program} did not calibrate within {_LIMIT_S} s") from error
    except OSError as error:
        raise cannot_start(program, error) from error
    words = ended.stdout.split()
    if ended.returncode or len(words) != 2 or not all(word.isdecimal() and int(word) for word in words):
        raise ToolchainCrashError(f"{program} did not calibrate (exit {ended.returncode}): {ended.stderr.strip()}")
    return Calibration(compute_per_ms=int(words[0]), scan_per_ms=int(words[1]))


def cannot_start(program: Path, error: OSError) -> StorageError:
    """Why a program in the cache does not start."""
    return StorageError(
        f"{program} cannot be started: {error.strerror}",
        advice="the cache's file system may be mounted noexec, or the file be damaged: remove it, "
        "or name another folder in $NPUOPS_CACHE",
    )
