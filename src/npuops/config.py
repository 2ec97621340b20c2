"""Strict options: TOML or a mapping into a frozen dataclass, where an unknown key is an error."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Final, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from npuops.errors import OptionError, nearest

T = TypeVar("T")

ADVICE: Final = "see the option's type in the docs"


def read_options(kind: type[T], values: Mapping[str, Any], *, where: str, advice: str = ADVICE) -> T:
    """Build the frozen dataclass `kind` from `values`, checking names and types.

    Args:
        kind: a dataclass; nested dataclasses are read by the same rules.
        values: as `tomllib` or `json` gives them.
        where: what to call the source in an error, for example a file name.
        advice: where the keys and their types are told.

    Raises:
        OptionError: an unknown key (the nearest known one is named), a missing key, a wrong type, or what the
            dataclass itself refuses.
    """
    _refuse_unknown_within(kind, values, where)
    try:
        return msgspec.convert(dict(values), kind)
    except msgspec.ValidationError as error:
        raise OptionError(f"{where}: {error}", advice=advice) from error
    except OptionError as error:
        raise OptionError(f"{where}: {error.message}", advice=error.advice) from error


def load_options(kind: type[T], path: Path) -> T:
    """Like `read_options`, from a TOML file.

    Raises:
        OptionError: also when the file cannot be read or is not TOML.
    """
    return read_options(kind, read_toml(toml_text(path), where=str(path)), where=str(path))


def toml_text(path: Path) -> str:
    """The text of a TOML file.

    Raises:
        OptionError: it cannot be read, or is no text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise OptionError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise OptionError(f"{path} is not TOML: {error}") from error


def read_toml(text: str, *, where: str) -> dict[str, Any]:
    """The tables of a TOML text.

    Raises:
        OptionError: it is not TOML, or nested too deeply; the message begins with `where`.
    """
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise OptionError(f"{where} is not TOML: {error}") from error


def refuse_unknown(values: Mapping[str, object], known: Collection[str], where: str) -> None:
    """Every key must be known.

    Raises:
        OptionError: one is not; the advice names the nearest that is.
    """
    for key in values:
        if key not in known:
            raise OptionError(f"{where}: unknown key {key!r}", advice=nearest(key, known))


def keys_of(kind: type[Any]) -> list[str]:
    """The names of a dataclass's fields."""
    return [field.name for field in dataclasses.fields(kind)]


def _refuse_unknown_within(kind: type[Any], values: Mapping[str, Any], where: str) -> None:
    refuse_unknown(values, keys_of(kind), where)
    types = get_type_hints(kind)
    for key, value in values.items():
        for inner, table, path in _tables(types[key], value, key):
            _refuse_unknown_within(inner, table, f"{where}: [{path}]")


def _tables(kind: Any, value: object, path: str) -> Iterator[tuple[type[Any], Mapping[str, Any], str]]:
    """The tables in a value that become dataclasses: also behind `| None`, in arrays of tables, and under free keys."""
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        if isinstance(value, Mapping):
            yield kind, value, path
        return
    inner = get_args(kind)
    if get_origin(kind) in {tuple, list} and isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _tables(inner[0], item, f"{path}[{index}]")
    elif get_origin(kind) in {dict, Mapping} and isinstance(value, Mapping):
        for key, item in value.items():
            yield from _tables(inner[1], item, f"{path}.{key}")
    elif get_origin(kind) in {Union, UnionType}:
        for choice in inner:
            yield from _tables(choice, value, path)
