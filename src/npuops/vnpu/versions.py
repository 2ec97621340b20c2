"""Do driver, firmware and compiler go together, and if not, which side to upgrade first. Pure.

Vendors number the three on scales of their own, so a version is only ever compared with the released one of the same
part: its **generation** is how many major versions it is away from the set that was released together.

=====================================  =======  ==================================================================
generations                            verdict  the vendors' words (../shared/facts/telemetry.md, section 8)
=====================================  =======  ==================================================================
firmware = driver, compiler ≤ both     ok
firmware < driver                      refused  Intel: `Incompatible FW JSM API version: …, required … or later`
firmware > driver                      refused  AMD: `NPU firmware version on … is incompatible`
compiler > firmware                    refused  Intel: `MAPPED_INFERENCE_VERSION is NOT compatible with the ELF …`
=====================================  =======  ==================================================================

Intel's rule behind it (linux-npu-driver#112): new kernel and firmware must not break an old compiler, the other way
round they may; hence kernel and firmware first, user-mode driver and compiler second.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from npuops.errors import OptionError

VERSION: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+_~-]{0,63}")
"""What vendors write: `1.32.1`, `v1`, `rknn-toolkit2-2.3.0`, `5.15.0~rc1+g0a1b2c`; one line, without spaces."""


class Part(StrEnum):
    """What has a version."""

    DRIVER = "driver"
    FIRMWARE = "firmware"
    COMPILER = "compiler"


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """One of each."""

    driver: str
    firmware: str
    compiler: str

    def __post_init__(self) -> None:
        """Refuse what is no version.

        Raises:
            OptionError: the message names the part.
        """
        for part in Part:
            if not VERSION.fullmatch(self.of(part)):
                raise OptionError(f"{part}: {self.of(part)!r} is no version", advice="write it like 1.2.0")

    def of(self, part: Part) -> str:
        """The version of one part."""
        return {Part.DRIVER: self.driver, Part.FIRMWARE: self.firmware, Part.COMPILER: self.compiler}[part]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """A refusal: which part is behind, in the vendor's words, and what to do first."""

    behind: Part
    message: str
    advice: str


_ORDER: Final = "kernel and firmware first, user-mode driver and compiler second"
_ADVICE: Final[Mapping[Part, str]] = MappingProxyType(
    {
        Part.FIRMWARE: f"upgrade the firmware to that of the driver, then reset the device ({_ORDER})",
        Part.DRIVER: f"upgrade the kernel driver to that of the firmware before anything else ({_ORDER})",
    }
)


def driver_mismatch(released: Versions, here: Versions) -> Mismatch | None:
    """Whether this driver and this firmware can boot together; None when they can."""
    driver, firmware = _generation(Part.DRIVER, released, here), _generation(Part.FIRMWARE, released, here)
    if firmware < driver:
        required = _major(released.firmware) + driver
        message = f"Incompatible FW JSM API version: {here.firmware}, required {required}.0 or later"
        return Mismatch(behind=Part.FIRMWARE, message=message, advice=_ADVICE[Part.FIRMWARE])
    if firmware > driver:
        message = f"NPU firmware version {here.firmware} is incompatible with driver {here.driver}"
        return Mismatch(behind=Part.DRIVER, message=message, advice=_ADVICE[Part.DRIVER])
    return None


def compiler_mismatch(released: Versions, here: Versions) -> Mismatch | None:
    """Whether this firmware takes what this compiler wrote; None when it does."""
    firmware, compiler = _generation(Part.FIRMWARE, released, here), _generation(Part.COMPILER, released, here)
    if compiler <= firmware:
        return None
    expected = _major(released.compiler) + firmware
    return Mismatch(
        behind=Part.FIRMWARE,
        message=f"MAPPED_INFERENCE_VERSION is NOT compatible with the ELF Expected: {expected}.x vs received: "
        f"{here.compiler} (ZE_RESULT_ERROR_UNSUPPORTED_VERSION 0x78000002)",
        advice=f"upgrade kernel and firmware first, or build again with compiler {expected}.x ({_ORDER})",
    )


def _generation(part: Part, released: Versions, here: Versions) -> int:
    return _major(here.of(part)) - _major(released.of(part))


def _major(version: str) -> int:
    """The first number of a dotted one (2 in `rknn-toolkit2-2.3.0`), else the first number, else 0."""
    found = re.search(r"([0-9]{1,18})\.[0-9]", version) or re.search(r"([0-9]{1,18})", version)
    return int(found[1]) if found else 0
