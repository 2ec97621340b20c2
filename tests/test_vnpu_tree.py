from __future__ import annotations

from pathlib import Path

import device_trees
from npuops.devices.contexts import PRIORITIES
from npuops.devices.evidence import STATUS
from npuops.devices.probes import VNPU
from npuops.devices.vnpu_tree import CONTEXT_FILES, DEVICE_FOLDER, FILES

PAGE = Path(__file__).resolve().parent.parent / "docs" / "devices.md"
UNITS = {file.path: file.unit for file in FILES}


def test_the_page_shows_every_file_of_the_contract() -> None:
    page = PAGE.read_text(encoding="utf-8")
    rows = [(f"`{file.path}`", file) for file in FILES]
    rows += [(f"`contexts/<id>/{file.path}`", file) for file in CONTEXT_FILES]
    wanted = [f"| {name} | {file.unit} | {file.meaning.replace('|', chr(92) + '|')} |" for name, file in rows]
    assert [row for row in wanted if row not in page] == []


def test_what_the_probes_read_is_in_the_contract_with_the_same_unit() -> None:
    read = {probe.path.replace("hwmon*", "hwmon0"): probe.raw.value for probe in VNPU}
    assert {path: UNITS.get(path) for path in read} == read


def test_the_trees_that_our_tests_write_keep_the_contract(tmp_path: Path) -> None:
    device = device_trees.vnpu(tmp_path, number=3)
    assert device == tmp_path / DEVICE_FOLDER.format(number=3)
    assert set(device_trees.VNPU) == {file.path for file in FILES}
    assert set(device_trees.VNPU_CONTEXT) == {file.path for file in CONTEXT_FILES}


def test_the_words_of_the_contract_are_those_that_readers_know() -> None:
    meanings = {file.path: file.meaning for file in (*FILES, *CONTEXT_FILES)}
    assert all(
        f"`{word}`" in meanings["status"] and word in STATUS for word in ("online", "offline", "resetting", "hung")
    )
    assert all(f"`{word}`" in meanings["priority"] for word in PRIORITIES)
