"""The load program: compiled from our own C once per source, and how fast this machine runs its loops."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import threading
from importlib.resources import files
from pathlib import Path
from typing import Final

from npuops.artifacts.disk import storage_errors
from npuops.artifacts.store import default_root
from npuops.errors import CompileError, MissingToolchainError, StorageError, ToolchainCrashError, ToolchainTimeoutError
from npuops.private_folder import private_folder
from npuops.schedlab.schedule_file import Calibration

SOURCES: Final = ("load.h", "load.c", "load_player.c")
_FLAGS: Final = ("-O2", "-std=gnu11", "-Wall", "-Wextra")
_LIMIT_S: Final = 120
_TRIES: Final = 3


def load_program(folder: Path | None = None) -> Path:
    """Path of the program in `folder`, by default in npuops' cache; compiled now if it is not there yet.

    Any number of processes may ask at once: each compiles for itself, the last one's (equal) file stays.

    Raises:
        MissingToolchainError: no C compiler here.
        CompileError: it refused; its words are in the message.
        ToolchainTimeoutError: it did not end.
        StorageError: the folder cannot be written.
    """
    sources = {name: (files("npuops.schedlab") / name).read_bytes() for name in SOURCES}
    digest = hashlib.sha256(platform.machine().encode() + repr((_FLAGS, sources)).encode()).hexdigest()[:16]
    place = (default_root() if folder is None else folder) / "schedlab"
    program = place / f"load-{digest}"
    if program.is_file():
        return program
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise MissingToolchainError("no C compiler was found: the loads are a C program", advice="apt install gcc")
    with storage_errors("compile the load program in", place):
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        with private_folder() as scratch:
            for name, text in sources.items():
                (scratch / name).write_bytes(text)
            _compile(compiler, scratch)
            _publish(scratch / "load", program)
    return program


def _publish(made: Path, program: Path) -> None:
    """Whole or not at all: the scratch folder may be of another file system."""
    beside = program.with_name(f".{program.name}-{os.getpid()}-{threading.get_ident()}")
    try:
        shutil.copy(made, beside)
        beside.replace(program)
    finally:
        beside.unlink(missing_ok=True)


def _compile(compiler: str, scratch: Path) -> None:
    command = [compiler, *_FLAGS, "-o", "load", *(name for name in SOURCES if name.endswith(".c"))]
    try:
        ended = subprocess.run(  # noqa: S603 - our own list of words
            command, cwd=scratch, capture_output=True, text=True, timeout=_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ToolchainTimeoutError(f"{compiler} did not compile the load program within {_LIMIT_S} s") from error
    if ended.returncode:
        raise CompileError(
            f"{compiler} refused the load program: {ended.stderr.strip()[-2000:]}",
            advice="the disk may be full, or the C library's headers missing: apt install gcc libc6-dev",
        )


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
