"""Input files: what the model takes, and nothing that costs more than the model's own input."""

from __future__ import annotations

import io
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest

from npuops.errors import DataError
from npuops.evaluate.run_input import read_npy, read_npz
from npuops.models.model import TensorInfo

WANTED = (
    TensorInfo(name="ids", dtype="int64", shape=(1, 4)),
    TensorInfo(name="mask", dtype="float32", shape=(1, 4)),
)
IDS = np.ones((1, 4), np.int64)
MASK = np.ones((1, 4), np.float32)


def archive(**members: bytes) -> io.BytesIO:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(f"{name}.npy", data)
    return buffer


def npy(array: np.ndarray, *, pickled: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=pickled)
    return buffer.getvalue()


def test_all_inputs_come_back_by_name(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "x.npz", ids=IDS, mask=MASK)
    found = read_npz(tmp_path / "x.npz", WANTED, where="x.npz")
    assert np.array_equal(found["ids"], IDS)
    assert np.array_equal(found["mask"], MASK)


def test_a_name_with_a_slash_is_only_a_name() -> None:
    wanted = (TensorInfo(name="a/b:0", dtype="float32", shape=(1, 4)),)
    assert "a/b:0" in read_npz(archive(**{"a/b:0": npy(MASK)}), wanted, where="x")


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({"ids": npy(IDS)}, "'mask' is missing"),
        ({"ids": npy(IDS), "mask": npy(MASK), "extra": npy(MASK)}, "no input 'extra'"),
        ({"ids": npy(IDS * 1.5), "mask": npy(MASK)}, "float64 cannot become int64"),
        ({"ids": npy(IDS), "mask": npy(MASK * np.nan)}, "NaN"),
        ({"ids": npy(IDS), "mask": npy(MASK[:, :3])}, "shape"),
        ({"ids": npy(IDS), "mask": npy(np.array([{}], dtype=object), pickled=True)}, "not a .npy array"),
        ({"ids": npy(IDS), "mask": b"\x93NUMPY"}, "not a .npy array"),
        ({"ids": npy(IDS), "mask": b""}, "not a .npy array"),
        ({"ids": npy(IDS), "mask": archive(x=b"").getvalue()}, "not a .npy array"),
    ],
)
def test_what_the_model_does_not_take_is_named(members: dict[str, bytes], says: str) -> None:
    with pytest.raises(DataError, match=says):
        read_npz(archive(**members), WANTED, where="x.npz")


def test_a_member_that_would_unpack_into_more_than_the_input_is_not_unpacked() -> None:
    with pytest.raises(DataError, match="at most"):
        read_npz(archive(ids=npy(IDS), mask=bytes(50_000_000)), WANTED, where="x.npz")


def test_a_header_that_claims_an_absurd_shape_is_refused() -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1000000000000), }"
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    with pytest.raises(DataError):
        read_npz(archive(ids=npy(IDS), mask=data), WANTED, where="x.npz")


def test_a_damaged_byte_in_the_archive_is_seen() -> None:
    data = bytearray(archive(ids=npy(IDS), mask=npy(MASK)).getvalue())
    data[60] ^= 0xFF
    with pytest.raises(DataError):
        read_npz(io.BytesIO(data), WANTED, where="x.npz")


def test_one_array_cannot_feed_two_inputs(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", IDS)
    with pytest.raises(DataError, match="2 inputs: ids, mask"):
        read_npy(tmp_path / "x.npy", WANTED)
    assert np.array_equal(read_npy(tmp_path / "x.npy", WANTED[:1])["ids"], IDS)


@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_whatever_is_damaged_is_a_data_error(packing: int, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", packing) as file:
        file.writestr("mask.npy", npy(MASK))
    refused = 0
    for kind, content in (("npz", buffer.getvalue()), ("npy", npy(MASK))):
        for seed in range(300):
            chance = random.Random(seed)  # noqa: S311 - reproducible damage, no secret
            damaged = bytearray(content)
            for _ in range(chance.choice((1, 2, 8))):
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
            (tmp_path / "x.npy").write_bytes(damaged)
            try:
                if kind == "npz":
                    read_npz(io.BytesIO(damaged), WANTED[1:], where="x")
                else:
                    read_npy(tmp_path / "x.npy", WANTED[1:])
            except DataError:
                refused += 1
    assert refused > 200


FREE = (
    TensorInfo(name="ids", dtype="int64", shape=("batch", 4)),
    TensorInfo(name="mask", dtype="float32", shape=("batch", 4)),
)


def test_a_free_batch_takes_as_many_rows_as_come(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", ids=np.ones((3, 4), np.int32), mask=np.ones((3, 4)))
    found = read_npz(tmp_path / "x.npz", FREE, where="x.npz")
    assert (found["ids"].shape, found["ids"].dtype, found["mask"].dtype) == ((3, 4), np.int64, np.float32)


def test_one_row_of_a_free_batch_may_come_without_its_axis(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", ids=IDS[0], mask=MASK[0])
    assert read_npz(tmp_path / "x.npz", FREE, where="x.npz")["ids"].shape == (1, 4)


@pytest.mark.parametrize(("ids", "mask", "words"), [(3, 2, "shape"), (0, 0, "no row")])
def test_rows_that_differ_or_are_none_are_refused(tmp_path: Path, ids: int, mask: int, words: str) -> None:
    np.savez(tmp_path / "x.npz", ids=np.ones((ids, 4), np.int64), mask=np.ones((mask, 4), np.float32))
    with pytest.raises(DataError, match=words):
        read_npz(tmp_path / "x.npz", FREE, where="x.npz")
