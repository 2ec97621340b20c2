"""Regions that clients register: made by Triton's own client, copied safely, and bounded."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tritonclient.utils import shared_memory as triton

from npuops.errors import DataError, NotServedError, NpuopsError
from npuops.runtime.job import Completion
from npuops.runtime.signature import Port, Signature
from npuops.server.infer_plan import InferPlan, plan_of
from npuops.server.infer_request import InferHead, OutputWish, RegionRef
from npuops.server.shared_memory import REGION_LIMIT, SHM, Regions, RegionStatus


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data").write_bytes(bytes(range(100)))
    return tmp_path


@pytest.fixture
def key() -> Iterator[str]:
    name = f"/test-npuops-{os.getpid()}"
    handle = triton.create_shared_memory_region("mine", name, 64)
    triton.set_shared_memory_region(handle, [np.arange(16, dtype="f4")])
    yield name
    triton.destroy_shared_memory_region(handle)


def plan(place: RegionRef) -> InferPlan:
    """That wants the output `y` there."""
    signature = Signature(inputs=(), outputs=(Port(name="y", dtype="uint8", shape=None),), batched=False, max_rows=1)
    head = InferHead(id="", inputs=(), outputs=(OutputWish("y", region=place),))
    return plan_of(head, signature, max_request_bytes=1)


def done(part: bytes) -> Completion:
    return Completion([part], ((len(part),),), "npu0", fell_back=False)


def open_descriptors() -> int:
    gc.collect()  # what other tests left open must not be closed between two counts
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_region_of_tritons_client_is_read_and_written(key: str) -> None:
    regions = Regions()
    regions.register("r", key, 0, 64)
    assert np.frombuffer(regions.read(RegionRef("r", 8, 8)), "f4").tolist() == [2, 3]
    regions.write(plan(RegionRef("r", 60, 4)), done(b"abcd"))
    assert (SHM / key.removeprefix("/")).read_bytes()[60:] == b"abcd"


def test_an_offset_shifts_every_place(folder: Path) -> None:
    regions = Regions(folder)
    regions.register("r", "data", 10, 20)
    assert regions.read(RegionRef("r", 5, 3)) == bytes([15, 16, 17])
    regions.write(plan(RegionRef("r", 0, 2)), done(b"ab"))
    assert (folder / "data").read_bytes() == bytes(range(10)) + b"ab" + bytes(range(12, 100))


def test_status_lists_one_or_all(folder: Path) -> None:
    regions = Regions(folder)
    regions.register("b", "data", 0, 100)
    regions.register("a", "/data", 4, 8)
    assert regions.status() == [RegionStatus("a", "/data", 4, 8), RegionStatus("b", "data", 0, 100)]
    assert regions.status("b") == [RegionStatus("b", "data", 0, 100)]
    with pytest.raises(NotServedError, match="'c'"):
        regions.status("c")


@pytest.mark.slow
def test_unregistering_without_a_name_forgets_all_and_closes_them(folder: Path) -> None:
    before = open_descriptors()
    regions = Regions(folder)
    for name in "abc":
        regions.register(name, "data", 0, 1)
    assert open_descriptors() == before + 3
    regions.unregister("a")
    assert [each.name for each in regions.status()] == ["b", "c"]
    regions.unregister()
    assert regions.status() == []
    assert open_descriptors() == before
    with pytest.raises(NotServedError):
        regions.unregister("a")


def test_a_request_in_flight_writes_its_output_though_the_region_is_unregistered(folder: Path) -> None:
    before = open_descriptors()
    regions = Regions(folder)
    regions.register("r", "data", 0, 100)
    held = regions.hold(plan(RegionRef("r", 0, 2)))
    regions.unregister()
    held.write(done(b"ok"))
    assert (folder / "data").read_bytes()[:3] == b"ok\x02"
    del held
    assert open_descriptors() == before
    with pytest.raises(NotServedError, match="'r' is registered"):
        regions.read(RegionRef("r", 0, 1))


def test_a_region_that_its_owner_truncates_is_an_error_and_not_the_servers_end(folder: Path) -> None:
    regions = Regions(folder)
    regions.register("r", "data", 0, 100)
    os.truncate(folder / "data", 10)
    with pytest.raises(DataError, match="truncated"):
        regions.read(RegionRef("r", 0, 100))
    with pytest.raises(DataError, match="truncated"):
        regions.write(plan(RegionRef("r", 50, 4)), done(b"abcd"))
    assert (folder / "data").stat().st_size == 10


@pytest.mark.parametrize("place", [RegionRef("r", 0, 101), RegionRef("r", 100, 1), RegionRef("r", 2**62, 1)])
def test_no_place_beyond_the_registered_part_is_touched(folder: Path, place: RegionRef) -> None:
    (folder / "data").write_bytes(bytes(200))
    regions = Regions(folder)
    regions.register("r", "data", 0, 100)
    with pytest.raises(DataError, match="beyond shared memory region 'r'"):
        regions.read(place)
    with pytest.raises(DataError, match="beyond shared memory region 'r'"):
        regions.hold(plan(place))


def test_an_output_larger_than_its_place_is_refused(folder: Path) -> None:
    regions = Regions(folder)
    regions.register("r", "data", 0, 100)
    with pytest.raises(DataError, match="output 'y' has 5 bytes, its place"):
        regions.write(plan(RegionRef("r", 0, 4)), done(b"abcde"))


@pytest.mark.parametrize("key", ["", "/", "..", ".", "a/b", "/../data", "//data", "a\0b", "x" * 300, "npuops-slots"])
def test_a_key_cannot_leave_the_folder_or_name_what_is_ours(folder: Path, key: str) -> None:
    with pytest.raises(DataError):
        Regions(folder).register("r", key, 0, 1)


def test_only_plain_files_of_enough_bytes_are_regions(folder: Path) -> None:
    before = open_descriptors()
    (folder / "link").symlink_to(folder / "data")
    (folder / "folder").mkdir()
    os.mkfifo(folder / "fifo")
    for key, size in (("link", 1), ("folder", 1), ("fifo", 1), ("absent", 1), ("data", 101)):
        with pytest.raises(DataError):
            Regions(folder).register("r", key, 0, size)
    assert open_descriptors() == before


@pytest.mark.parametrize(
    ("name", "offset", "size"), [("", 0, 1), ("n" * 256, 0, 1), ("r", -1, 1), ("r", 0, 0), ("r", 100, 1)]
)
def test_what_cannot_be_registered_is_refused(folder: Path, name: str, offset: int, size: int) -> None:
    with pytest.raises(DataError):
        Regions(folder).register(name, "data", offset, size)


def test_names_are_taken_once_and_their_number_is_bounded(folder: Path) -> None:
    regions = Regions(folder)
    regions.register("0", "data", 0, 1)
    with pytest.raises(DataError, match="'0' is registered"):
        regions.register("0", "data", 0, 1)
    for at in range(1, REGION_LIMIT):
        regions.register(str(at), "data", 0, 1)
    with pytest.raises(NpuopsError, match=f"{REGION_LIMIT} regions"):
        regions.register("more", "data", 0, 1)
