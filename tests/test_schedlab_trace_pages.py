import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npuops.errors import DataError
from npuops.schedlab.trace_pages import RecordFormat, record_format, records

FORMAT = """name: made
ID: 7
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

\tfield:char prev_comm[16];\toffset:8;\tsize:16;\tsigned:0;
\tfield:pid_t pid;\toffset:24;\tsize:4;\tsigned:1;
"""
KNOWN = record_format(FORMAT, ("pid", "common_pid"))
FORMATS: dict[int, RecordFormat] = {7: KNOWN}
DATA = struct.pack("=HBBi16si", 7, 0, 0, -3, b"a\n==> b", 42)


def page(*events: bytes, moment: int = 1000, flags: int = 0) -> bytes:
    body = b"".join(events)
    return struct.pack("=QQ", moment, len(body) | flags) + body


def event(delta: int, data: bytes = DATA) -> bytes:
    return struct.pack("=I", delta << 5 | len(data) // 4) + data


def test_records_are_read_with_their_moments_whatever_a_task_is_called() -> None:
    extend = struct.pack("=II", 5 << 5 | 30, 2)
    stamp = struct.pack("=II", 9 << 5 | 31, 3)
    discarded = struct.pack("=II", 4 << 5 | 29, 8) + bytes(4)
    long = struct.pack("=II", 6 << 5, len(DATA) + 4) + DATA
    other = event(1, struct.pack("=HBBi", 8, 0, 0, 1))
    found = list(records(page(event(3), extend, event(0), discarded, other, long, stamp, event(1)), FORMATS))
    first = 1000 + 3
    second = first + 5 + (2 << 27)
    assert [record.moment_ns for record in found] == [first, second, second + 4 + 1 + 6, 9 + (3 << 27) + 1]
    assert {record.values for record in found} == {(42, -3)}


def test_a_page_with_room_left_ends_there() -> None:
    assert len(list(records(page(event(3), struct.pack("=I", 29), bytes(40)), FORMATS))) == 1


@pytest.mark.parametrize("flag", [1 << 31, 1 << 30])
def test_lost_records_are_told(flag: int) -> None:
    with pytest.raises(DataError, match="lost"):
        list(records(page(event(3), flags=flag), FORMATS))


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    for whole in (body, page(body)):
        found: list[int] = []
        with contextlib.suppress(DataError):
            found.extend(record.number for record in records(whole, FORMATS))
        assert set(found) <= {7}


def test_a_kernel_without_a_field_is_told() -> None:
    with pytest.raises(DataError, match="runtime"):
        record_format(FORMAT, ("pid", "runtime"))
    with pytest.raises(DataError, match="prev_comm"):
        record_format(FORMAT, ("prev_comm",))
