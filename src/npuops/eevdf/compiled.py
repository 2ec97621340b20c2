"""Functions on arrays that numba compiles where it is installed, and that run as plain Python where it is not.

One source for both: whole numbers only, so that both give the same future bit for bit.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

COMPILES: Final = importlib.util.find_spec("numba") is not None and os.environ.get("NUMBA_DISABLE_JIT", "0") == "0"
"""False: the simulator runs some hundred times slower."""
KEPT: Final = 4
"""Folders of compiled code that stay, besides those used within `_IN_USE_S`: of other versions, or other checkouts."""
_IN_USE_S: Final = 3600.0
_NAME: Final = re.compile(r"[0-9a-f]{16}")


def _digest() -> str:
    """Of all sources here: numba looks at one file only, and would keep what it once inlined from another."""
    found = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.stem not in ("mix", "simulation"):
            found.update(path.read_bytes())
    return found.hexdigest()[:16]


def _folder() -> Path | None:
    """Where compiled code is kept between runs; None where nothing can be kept."""
    root = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        folder = (root if root.is_absolute() else Path.home() / ".cache") / "npuops" / "numba" / _digest()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.utime(folder)  # whoever clears up sees that it is in use
    except (OSError, RuntimeError):  # a read-only or missing home; Path.home() raises the second
        return None
    return folder if os.access(folder, os.W_OK) else None


_FOLDER: Final = _folder() if COMPILES else None


def outlook() -> str | None:
    """What whoever is about to simulate should be told first; None if it starts at once and runs fast."""
    if not COMPILES:
        return "the simulator runs some hundred times slower without numba; npuops[hostsched] installs it"
    if _FOLDER is None:
        return "compiling the simulator: about half a minute, at each start, since no cache folder can be written"
    if not any(_FOLDER.iterdir()):
        return "compiling the simulator: about half a minute, once"
    return None


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile at the first call, and keep the result on disk; the function itself without numba.

    Compiled functions allocate nothing and keep no array, so references are not counted (`_nrt`, a private
    option of numba). A division by zero is the caller's fault, and checked by nobody.
    """
    if not COMPILES:
        return function
    import numba  # noqa: PLC0415 - an extra, and slow to import

    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(_FOLDER or "")
    try:
        compiler = numba.njit(cache=_FOLDER is not None, error_model="numpy", _nrt=False)
        found: Callable[P, R] = compiler(function)
    finally:
        numba.config.CACHE_DIR = before
    return found


def compile_all(calls: Sequence[tuple[Callable[..., object], tuple[object, ...]]]) -> None:
    """Compile these functions for arguments like these, now. Nothing without numba.

    Processes that come at the same time do it one after the other: the first one works half a minute, the others find
    on disk what it kept.
    """
    if not COMPILES:
        return
    import numba  # noqa: PLC0415 - an extra, and slow to import

    with _alone(_FOLDER):
        for function, arguments in calls:
            dispatcher: Any = function
            dispatcher.compile(tuple(numba.typeof(argument) for argument in arguments))


@contextmanager
def _alone(folder: Path | None) -> Iterator[None]:
    """One process at a time; the kernel frees the lock of one that was killed. Old folders go meanwhile."""
    if folder is None:
        yield
        return
    try:
        lock = os.open(folder.parent / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:  # a full disk, or somebody else's file: then several may compile at once
        yield
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        clear_up(folder.parent, folder)
        yield
    finally:
        os.close(lock)


def clear_up(root: Path, ours: Path) -> None:
    """Remove compiled code that nobody used of late; the `KEPT` last used folders, and ours, stay."""
    ages: list[tuple[float, Path]] = []
    for each in root.iterdir():
        if _NAME.fullmatch(each.name) and each != ours:
            try:
                ages.append((time.time() - each.stat().st_mtime, each))
            except FileNotFoundError:  # somebody without our lock was faster
                continue
    for age, each in sorted(ages)[KEPT - 1 :]:
        if age > _IN_USE_S:
            shutil.rmtree(each, ignore_errors=True)
