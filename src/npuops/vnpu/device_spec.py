"""The numbers of a device by its name or from a file."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, get_type_hints

import msgspec

from npuops.errors import OptionError, UnknownTargetError, nearest
from npuops.vnpu.profile import load_profile, machine_spec
from npuops.vnpu.spec import MachineSpec

PREFIX: Final = "vnpu:"


def spec_of(target: str) -> MachineSpec:
    """Of a profile, named as a target: `vnpu:rk3588`.

    Raises:
        UnknownTargetError: no such profile.
    """
    try:
        return machine_spec(load_profile(target.removeprefix(PREFIX)))
    except OptionError as error:
        raise UnknownTargetError(error.message, advice=error.advice) from error


def read_spec(path: Path) -> MachineSpec:
    """From a TOML file with the keys of `MachineSpec`; `[thermal]` and `[released]` are tables.

    Raises:
        OptionError: unreadable, not TOML, an unknown key (the nearest known one is named), a missing one, a wrong type
            or an impossible value.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OptionError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise OptionError(f"{path} is not TOML: {error}") from error
    _refuse_unknown(MachineSpec, values, str(path))
    try:
        return msgspec.convert(values, MachineSpec)
    except msgspec.ValidationError as error:
        raise OptionError(f"{path}: {error}", advice="docs/vnpu.md lists the keys") from error
    except OptionError as error:
        raise OptionError(f"{path}: {error.message}", advice=error.advice) from error


def _refuse_unknown(kind: type[Any], values: Mapping[str, Any], where: str) -> None:
    types = get_type_hints(kind)
    known = {field.name for field in dataclasses.fields(kind)}
    for key, value in values.items():
        if key not in known:
            raise OptionError(f"{where}: unknown key {key!r}", advice=nearest(key, known))
        if dataclasses.is_dataclass(types[key]) and isinstance(value, Mapping):
            _refuse_unknown(types[key], value, f"{where}: [{key}]")
