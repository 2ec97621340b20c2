from __future__ import annotations

from pathlib import Path

import pytest

import device_trees
from npuops.devices.pmt import ENERGY_WRAP_J, LAYOUTS, read_pmt
from npuops.devices.quantities import Absent, Quantity, Reading
from npuops.devices.tree import Tree


def value(root: Path, quantity: Quantity) -> float | str:
    answer = read_pmt(Tree(root))[quantity]
    return answer.value if isinstance(answer, Reading) else answer.why


def test_energy_is_fixed_point_joules_and_temperature_is_one_byte(tmp_path: Path) -> None:
    device_trees.pmt(tmp_path, joules=1234.5, celsius=61)
    (tmp_path / "sys").mkdir(exist_ok=True)
    assert value(tmp_path, Quantity.ENERGY) == 1234.5
    assert value(tmp_path, Quantity.TEMPERATURE) == 61
    assert value(tmp_path, Quantity.MEMORY_TRAFFIC) == 2e9


def test_the_energy_counter_is_known_to_wrap_at_its_width(tmp_path: Path) -> None:
    device_trees.pmt(tmp_path)
    answer = read_pmt(Tree(tmp_path))[Quantity.ENERGY]
    assert isinstance(answer, Reading)
    assert answer.wraps_at == ENERGY_WRAP_J == 262144


@pytest.mark.parametrize("guid", ["0x99", "junk", ""])
def test_a_block_of_unknown_layout_is_never_read(guid: str, tmp_path: Path) -> None:
    device_trees.pmt(tmp_path, guid=guid)
    assert all(isinstance(answer, Absent) for answer in read_pmt(Tree(tmp_path)).values())


def test_a_short_or_blank_block_gives_no_number(tmp_path: Path) -> None:
    folder = device_trees.pmt(tmp_path)
    device_trees.write(folder, {"telem": bytes(100)})
    assert "100 bytes" in str(value(tmp_path, Quantity.ENERGY))
    device_trees.write(folder, {"telem": bytes(0xC20)})
    assert "blank" in str(value(tmp_path, Quantity.ENERGY))
    assert "blank" in str(value(tmp_path, Quantity.TEMPERATURE))
    device_trees.write(folder, {"telem": b"\xff" * 0xC20})
    assert "not believable" in str(value(tmp_path, Quantity.TEMPERATURE))
    assert "not believable" in str(value(tmp_path, Quantity.ENERGY))


def test_offsets_leave_room_for_a_word() -> None:
    assert all(layout.energy % 8 == 0 and layout.memory % 8 == 0 for layout in LAYOUTS.values())
