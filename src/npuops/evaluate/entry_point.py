"""`package.module:function` as users write it, into the function."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from npuops.errors import OptionError, nearest


def is_entry_point(text: str) -> bool:
    """`package.module:function`, and no existing path."""
    module, _, function = text.partition(":")
    parts = module.split(".")
    return function.isidentifier() and all(part.isidentifier() for part in parts) and not Path(text).exists()


def load_function(text: str) -> Callable[..., Any]:
    """Import the function; modules in the current folder are found too.

    Raises:
        OptionError: no such module or function, or the module fails to import.
    """
    if not is_entry_point(text):
        raise OptionError(f"{text!r} is not `package.module:function`")
    module_name, _, name = text.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise OptionError(
            f"cannot import {module_name!r}: {type(error).__name__}: {error}",
            advice="run from the folder that holds the module, or install its package",
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise OptionError(f"{module_name!r} has no function {name!r}", advice=nearest(name, known))
    return function  # type: ignore[no-any-return]
