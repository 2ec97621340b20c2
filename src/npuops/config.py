"""Strict options: TOML or a mapping into a frozen dataclass, where an unknown key is an error."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import msgspec

from npuops.errors import OptionError, nearest

T = TypeVar("T")


def read_options(kind: type[T], values: Mapping[str, Any], *, where: str) -> T:
    """Build the frozen dataclass `kind` from `values`, checking names and types.

    Args:
        kind: a dataclass; nested dataclasses are read by the same rules.
        values: as `tomllib` or `json` gives them.
        where: what to call the source in an error, for example a file name.

    Raises:
        OptionError: an unknown key (the nearest known one is named), a missing key, a wrong type, or what the
            dataclass itself refuses.
    """
    _refuse_unknown(kind, values, where)
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise OptionError(f"{where}: {error}", advice="see the option's type in the docs") from error
    except OptionError as error:
        raise OptionError(f"{where}: {error.message}", advice=error.advice) from error


def load_options(kind: type[T], path: Path) -> T:
    """Like `read_options`, from a TOML file.

    Raises:
        OptionError: also when the file cannot be read or is not TOML.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OptionError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise OptionError(f"{path} is not TOML: {error}") from error
    return read_options(kind, values, where=str(path))


def _refuse_unknown(kind: type[Any], values: Mapping[str, Any], where: str) -> None:
    types = get_type_hints(kind)
    known = {field.name for field in dataclasses.fields(kind)}
    for key, value in values.items():
        if key not in known:
            raise OptionError(f"{where}: unknown key {key!r}", advice=nearest(key, known))
        inner = types[key]
        if isinstance(inner, type) and dataclasses.is_dataclass(inner) and isinstance(value, Mapping):
            _refuse_unknown(inner, value, f"{where}: [{key}]")
