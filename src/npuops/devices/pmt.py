"""Energy, temperature and memory traffic of Intel NPUs, from Intel's Platform Monitoring Technology.

`/sys/class/intel_pmt/telem*/telem` is a block of bytes whose layout is known by its GUID. Offsets and formats are those
of open-edge-platform/edge-ai-libraries, tools/npu-monitor-tool. Its clock figures scale in two ways in one file, so the
clock is taken from the driver alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from npuops.devices.quantities import Absent, Quantity, Reading, believed
from npuops.devices.tree import Tree

BLOB_LIMIT: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Layout:
    """Byte offsets of 8-byte little-endian words."""

    platform: str
    energy: int
    temperatures: int
    memory: int


_METEOR: Final = (0x628, 0x98, 0x0)
LAYOUTS: Final[Mapping[int, Layout]] = {
    0x130670B2: Layout("Meteor Lake", *_METEOR),
    0x1306A0B3: Layout("Arrow Lake", *_METEOR),
    0x1306A0B2: Layout("Arrow Lake-H", *_METEOR),
    0x1306A0B4: Layout("Arrow Lake-S", *_METEOR),
    0x3072005: Layout("Lunar Lake", 0x5D0, 0x70, 0xC18),
    0x3086000: Layout("Panther Lake", 0x670, 0x78, 0xC18),
}

ENERGY_FRACTION: Final = 1 << 14
"""U32.18.14: 32 bits with 14 after the point, so the counter starts over at 2^18 J, half a day at 5 W."""
ENERGY_WRAP_J: Final = float(1 << 18)
MEMORY_UNIT_BYTES: Final = 1000
"""The counter is in thousandths of a megabyte."""
MEMORY_WRAP_BYTES: Final = float((1 << 32) * MEMORY_UNIT_BYTES)

_QUANTITIES: Final = (Quantity.ENERGY, Quantity.TEMPERATURE, Quantity.MEMORY_TRAFFIC)


def read_pmt(tree: Tree) -> Mapping[Quantity, Reading | Absent]:
    """The three figures, from the first block whose GUID is known."""
    folder = tree.sys / "class/intel_pmt"
    names = tree.names(folder, "telem*")
    unknown = []
    for name in names:
        guid = tree.words(folder / name / "guid") or ""
        layout = LAYOUTS.get(_hex(guid))
        if layout is None:
            unknown.append(guid)
            continue
        path = folder / name / "telem"
        blob = tree.data(path, BLOB_LIMIT)
        if isinstance(blob, Absent):
            return dict.fromkeys(_QUANTITIES, Absent(f"{tree.shown(path)}: {blob.why}"))
        return _figures(blob, layout, tree.shown(path))
    why = f"no layout is known for the PMT blocks {', '.join(unknown)}" if unknown else "no Intel PMT on this machine"
    return dict.fromkeys(_QUANTITIES, Absent(why, missing=not unknown))


def _figures(blob: bytes, layout: Layout, source: str) -> dict[Quantity, Reading | Absent]:
    energy, temperatures, memory = (
        _word(blob, offset) for offset in (layout.energy, layout.temperatures, layout.memory)
    )
    short = Absent(f"{source} has only {len(blob)} bytes")
    blank = Absent(f"{source} is blank there")
    found: dict[Quantity, Reading | Absent] = dict.fromkeys(_QUANTITIES, short)
    if energy is not None:
        joules = energy / ENERGY_FRACTION
        wraps_at = ENERGY_WRAP_J if joules < ENERGY_WRAP_J else None
        found[Quantity.ENERGY] = believed(Quantity.ENERGY, joules, source, wraps_at=wraps_at) if energy else blank
    if temperatures is not None:
        celsius = temperatures >> 40 & 0xFF
        found[Quantity.TEMPERATURE] = believed(Quantity.TEMPERATURE, celsius, source) if celsius else blank
    if memory is not None:
        traffic = (memory & 0xFFFFFFFF) * MEMORY_UNIT_BYTES
        found[Quantity.MEMORY_TRAFFIC] = believed(Quantity.MEMORY_TRAFFIC, traffic, source, wraps_at=MEMORY_WRAP_BYTES)
    return found


def _word(blob: bytes, offset: int) -> int | None:
    return int.from_bytes(blob[offset : offset + 8], "little") if offset + 8 <= len(blob) else None


def _hex(guid: str) -> int:
    try:
        return int(guid, 16)
    except ValueError:
        return -1
