"""Arm Ethos-U variants that Vela compiles for, each with a system configuration and memory mode named by us.

Source of names and defaults: `Arm/vela.ini` inside the package ethos-u-vela 5.2.0. Vela falls back to the same
configurations silently (with a warning); a compiled artifact says which one it was made for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from npuops.targets.vendor_options import VendorOption

CONFIG_FILE: Final = "Arm/vela.ini"
"""Found by Vela inside its own package."""


class Generation(StrEnum):
    """U55 and U65 share their operator rules; U85 has its own."""

    U55 = "u55"
    U65 = "u65"
    U85 = "u85"


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """One accelerator: multiply-accumulates per cycle, and where Vela puts data by default."""

    accelerator: str
    generation: Generation
    macs_per_cycle: int
    system_config: str
    memory_mode: str


SYSTEM_CONFIGS: Final[Mapping[Generation, tuple[str, ...]]] = {
    Generation.U55: ("Ethos_U55_High_End_Embedded", "Ethos_U55_Deep_Embedded"),
    Generation.U65: (
        "Ethos_U65_Client_Server",
        "Ethos_U65_High_End",
        "Ethos_U65_Mid_End",
        "Ethos_U65_Embedded",
    ),
    Generation.U85: (
        "Ethos_U85_SYS_DRAM_Mid",
        "Ethos_U85_SYS_DRAM_High",
        "Ethos_U85_SYS_DRAM_Low",
        "Ethos_U85_SYS_Flash_High",
        "Ethos_U85_SYS_Flash_Low",
    ),
}
"""The first is our default: clock and bandwidths of each stand in vela.ini."""

_DEDICATED = ("Dedicated_Sram_384KB", "Dedicated_Sram_256KB", "Dedicated_Sram_512KB", "Dedicated_Sram")
MEMORY_MODES: Final[Mapping[Generation, tuple[str, ...]]] = {
    Generation.U55: ("Shared_Sram", "Sram_Only"),
    Generation.U65: (*_DEDICATED, "Shared_Sram", "Sram_Only"),
    Generation.U85: (*_DEDICATED, "Shared_Sram", "Sram_Only"),
}
"""The first is our default. Dedicated modes keep the arena in DRAM, which an Ethos-U55 does not have."""

_MACS: Final[Mapping[Generation, tuple[int, ...]]] = {
    Generation.U55: (32, 64, 128, 256),
    Generation.U65: (256, 512),
    Generation.U85: (128, 256, 512, 1024, 2048),
}


def _table() -> dict[str, Configuration]:
    rows = (
        Configuration(
            accelerator=f"ethos-{generation}-{macs}",
            generation=generation,
            macs_per_cycle=macs,
            system_config=SYSTEM_CONFIGS[generation][0],
            memory_mode=MEMORY_MODES[generation][0],
        )
        for generation, sizes in _MACS.items()
        for macs in sizes
    )
    return {row.accelerator: row for row in rows}


CONFIGURATIONS: Final[Mapping[str, Configuration]] = _table()


def vendor_options(configuration: Configuration) -> tuple[VendorOption, ...]:
    """The Vela options that a user may set for this accelerator."""
    return (
        VendorOption(
            name="optimise",
            meaning="what Vela optimises for",
            choices=("Performance", "Size"),
        ),
        VendorOption(
            name="system-config",
            meaning="clock and memories of the chip, by its name in vela.ini",
            choices=SYSTEM_CONFIGS[configuration.generation],
        ),
        VendorOption(
            name="memory-mode",
            meaning="where weights, arena and cache lie, by its name in vela.ini",
            choices=MEMORY_MODES[configuration.generation],
        ),
        VendorOption(
            name="arena-cache-size",
            meaning="bytes of SRAM that Vela may use for the arena or its cache",
            low=1,
            high=2**32 - 1,
        ),
    )


RESERVED: Final[Mapping[str, str]] = {
    "accelerator-config": "it is the target's variant: ethos-u:ethos-u85-256",
    "config": "name a system-config and memory-mode of Arm/vela.ini",
    "output-dir": "the artifact's folder is chosen with -o",
}
"""Options of Vela that npuops sets itself → what to use instead."""
