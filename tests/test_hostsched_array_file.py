"""Files of arrays that nobody should have made."""

from __future__ import annotations

import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from npuops.errors import DataError
from npuops.hostsched.array_file import read_arrays

HEADER = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }"


def member(header: str, data: bytes = bytes(24)) -> bytes:
    text = header.ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def archive(path: Path, content: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.npy", content)
    return path


def test_arrays_come_back_by_name(tmp_path: Path) -> None:
    assert read_arrays(archive(tmp_path / "whole.npz", member(HEADER)))["a"].shape == (2, 3)


@pytest.mark.parametrize(
    "header",
    [
        HEADER.replace("3)", "3R"),
        HEADER.replace("(2, 3)", "(" * 60),
        HEADER.replace("(2, 3)", "(-2, 3)"),
        HEADER.replace("(2, 3)", "(99999999999999, 3)"),
        HEADER.replace("(2, 3)", "(9999999999999999999999999,)"),
        HEADER.replace("(2, 3)", "2"),
        HEADER.replace("<f4", "|O"),
        HEADER.replace("<f4", "nothing"),
        HEADER.replace("'<f4'", "[1]"),
        "{}",
        "",
    ],
)
def test_a_header_that_claims_what_is_not_there_is_a_clear_error(tmp_path: Path, header: str) -> None:
    with pytest.raises(DataError, match="holds no arrays"):
        read_arrays(archive(tmp_path / "odd.npz", member(header)))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10**6), st.binary(min_size=1, max_size=12))
def test_a_file_changed_anywhere_is_refused_or_still_plain_arrays(tmp_path: Path, where: int, noise: bytes) -> None:
    path = tmp_path / "hurt.npz"
    np.savez(path, a=np.arange(6.0), b=np.zeros((2, 3), np.int8))
    data = bytearray(path.read_bytes())
    start = where % len(data)
    data[start : start + len(noise)] = noise
    path.write_bytes(data)
    try:
        found = read_arrays(path)
    except DataError:
        return
    assert all(isinstance(array, np.ndarray) and array.dtype != object for array in found.values())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10**6), st.text(max_size=6))
def test_a_header_changed_anywhere_is_refused_or_still_a_plain_array(tmp_path: Path, where: int, noise: str) -> None:
    start = where % len(HEADER)
    header = HEADER[:start] + noise + HEADER[start + len(noise) :]
    with suppress(DataError):
        assert read_arrays(archive(tmp_path / "hurt.npz", member(header)))["a"].dtype != object
