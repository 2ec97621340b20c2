"""Functions on arrays that numba compiles where it is installed, and that run as plain Python where it is not.

One source for both: whole numbers only, so that both give the same future bit for bit.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

COMPILES: Final = importlib.util.find_spec("numba") is not None and os.environ.get("NUMBA_DISABLE_JIT", "0") == "0"
"""False: the simulator runs some hundred times slower."""


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
