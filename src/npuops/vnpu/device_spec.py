"""The numbers of a device by its name; `npuops.config.load_options(MachineSpec, path)` reads them from a file."""

from __future__ import annotations

from typing import Final

from npuops.errors import OptionError, UnknownTargetError
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
