"""The trace: what is read is what was written, whatever happened to its writer."""

from __future__ import annotations

import os
import resource
import signal
import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npuops.eevdf.setting import SchedPolicy, Setting
from npuops.errors import DataError, StorageError
from npuops.hostsched.applied import Applied, Change, Denial
from npuops.hostsched.features import Features
from npuops.hostsched.frame import COUNTERS, Frame, GroupId, Host, Task, TaskId
from npuops.hostsched.guard import Checked, Refusal, Rule
from npuops.hostsched.hint import Hint, Kind
from npuops.hostsched.levels import LEVELS
from npuops.hostsched.plan import Forecast, Plan
from npuops.hostsched.trace_file import MAGIC, Header, TraceReader, TraceWriter, read_trace
from npuops.hostsched.trace_wire import Entry

HEADER = Header(
    schema=1,
    kernel="6.18.44",
    cpus=2,
    policy="reactive",
    mode="act",
    period_us=20_000,
    began_unix_us=1_700_000_000_000_000,
    version="0.1",
)
whole = st.integers(0, 2**62)
maybe = st.one_of(st.none(), st.integers(-(10**9), 10**12))
words = st.text(st.characters(codec="utf-8"), max_size=12)
ids = st.builds(TaskId, st.integers(1, 6), st.integers(0, 3))
groups = st.builds(GroupId, st.sampled_from(["autogroup", "cgroup1"]), st.sampled_from(["3", "/a"]))
settings = st.one_of(
    st.builds(
        Setting,
        st.sampled_from([SchedPolicy.OTHER, SchedPolicy.BATCH, SchedPolicy.IDLE]),
        st.integers(-20, 19),
        st.one_of(st.none(), st.integers(100, 100_000)),
    ),
    st.builds(lambda part: Setting(SchedPolicy.DEADLINE, runtime_us=part, period_us=4000), st.integers(1, 4000)),
)
hints = st.builds(
    Hint, at_us=whole, kind=st.one_of(st.none(), st.sampled_from(Kind)), slo_us=maybe, slack_us=maybe, queued=maybe,
    served=whole, missed=whole,
)  # fmt: skip
forecasts = st.one_of(st.none(), st.builds(Forecast, st.floats(0, 1), st.floats(0, 2)))
plans = st.builds(
    Plan, st.dictionaries(ids, st.sampled_from(LEVELS), max_size=3), st.dictionaries(ids, words, max_size=3),
    forecasts, forecasts,
)  # fmt: skip
refusals = st.builds(Refusal, st.sampled_from(Rule), st.one_of(st.none(), ids), words)
values = st.one_of(settings, st.integers(-20, 19))
denials = st.builds(Denial, st.one_of(ids, groups), words, words, words)
applications = st.one_of(
    st.none(),
    st.just(Applied()),
    st.builds(
        Applied,
        st.lists(st.builds(Change, st.one_of(ids, groups), values, values, st.booleans()), max_size=2).map(tuple),
        st.lists(denials, max_size=2).map(tuple),
        st.lists(denials, max_size=1).map(tuple),
        st.lists(ids, max_size=2).map(tuple),
        words,
    ),
)


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    seen = draw(st.lists(ids, unique=True, max_size=4))
    return Frame(
        at_us=draw(whole),
        tasks=tuple(
            Task(
                task, draw(st.integers(1, 9)), draw(words), draw(st.one_of(st.none(), groups)), draw(st.integers(0, 9))
            )
            for task in seen
        ),
        counters=np.array([[draw(whole) for _ in COUNTERS] for _ in seen], np.int64).reshape(-1, len(COUNTERS)),
        settings=tuple(draw(settings) for _ in seen),
        hints=tuple(draw(st.one_of(st.none(), hints)) for _ in seen),
        group_nices=draw(st.dictionaries(groups, st.integers(-20, 19))),
        host=Host(
            *(draw(st.integers(0, 999)) for _ in range(2)), draw(whole), draw(whole), draw(st.one_of(st.none(), whole))
        ),
    )


@st.composite
def histories(draw: st.DrawFn) -> list[Entry]:
    """Steps of which some change little, as they do."""
    found: list[Entry] = []
    for _ in range(draw(st.integers(1, 5))):
        if found and draw(st.booleans()):
            last = found[-1]
            moved = replace(last.frame, at_us=last.frame.at_us + 20_000, counters=last.frame.counters // 2)
            found.append(replace(last, frame=moved))
            continue
        checked = st.builds(Checked, plans, st.lists(refusals, max_size=2).map(tuple), st.booleans())
        found.append(
            Entry(
                frame=draw(frames()),
                proposed=draw(st.one_of(st.none(), plans)),
                checked=draw(st.one_of(st.none(), checked)),
                applied=draw(applications),
                late_us=draw(st.integers(0, 10**6)),
            )
        )
    return found


def same(one: Entry, other: Entry) -> bool:
    fields = ("at_us", "tasks", "settings", "hints", "group_nices", "host")
    return (
        all(getattr(one.frame, name) == getattr(other.frame, name) for name in fields)
        and list(one.frame.group_nices) == list(other.frame.group_nices)
        and one.frame.counters.dtype == other.frame.counters.dtype
        and np.array_equal(one.frame.counters, other.frame.counters)
        and (one.proposed, one.checked, one.applied, one.late_us)
        == (other.proposed, other.checked, other.applied, other.late_us)
    )


def written(path: Path, entries: list[Entry]) -> list[int]:
    """Size of the file after the header and after each entry."""
    with TraceWriter(path, HEADER) as writer:
        ends = [writer.size_bytes]
        for entry in entries:
            writer.write(entry)
            ends.append(writer.size_bytes)
    return ends


@given(histories())
def test_what_is_read_is_what_was_written(entries: list[Entry]) -> None:
    path = fresh()
    written(path, entries)
    trace = read_trace(path)
    assert trace.header == HEADER
    assert trace.damage == ""
    assert len(trace.entries) == len(entries)
    assert all(same(*pair) for pair in zip(trace.entries, entries, strict=True))


@given(histories())
def test_the_recorded_frames_give_the_very_same_states(entries: list[Entry]) -> None:
    path = fresh()
    written(path, entries)
    live, again = Features(), Features()
    for seen, read in zip(entries, read_trace(path).entries, strict=True):
        one, other = live.update(seen.frame), again.update(read.frame)
        for name in ("rates", "tasks", "history", "host", "seen"):
            assert getattr(one, name).tobytes() == getattr(other, name).tobytes()


_FOLDER: list[Path] = []


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path) -> None:
    _FOLDER[:] = [tmp_path]


def fresh() -> Path:
    """Hypothesis runs many examples in one test: each gets a file of its own."""
    path = _FOLDER[0] / "trace"
    path.unlink(missing_ok=True)
    return path


def steady(count: int) -> list[Entry]:
    """A few tasks at work."""
    task = Task(TaskId(7, 1), 7, "redis", GroupId("autogroup", "3"), 2)
    plan = Plan({task.id: LEVELS[1]}, {task.id: "a hog while redis waits"})
    return [
        Entry(
            frame=Frame(
                at_us=1_000_000 + number * 20_000,
                tasks=(task,),
                counters=np.array([[number * 7_654_321, number * 1_234_567, number, number, 0]], np.int64),
                settings=(Setting(),),
                hints=(None,),
                group_nices={},
                host=Host(2, 1, number * 40_000, 0, number * 9_999),
            ),
            proposed=plan,
            checked=Checked(plan),
            applied=Applied(),
        )
        for number in range(count)
    ]


def test_a_trace_cut_at_any_byte_is_read_up_to_its_last_whole_entry_and_says_so(tmp_path: Path) -> None:
    entries = steady(6)
    ends = written(tmp_path / "whole", entries)
    everything = (tmp_path / "whole").read_bytes()
    cut = tmp_path / "cut"
    for size in range(len(everything)):
        cut.write_bytes(everything[:size])
        if size < ends[0]:
            with pytest.raises(DataError):
                read_trace(cut)
            continue
        trace = read_trace(cut)
        expected = sum(end <= size for end in ends[1:])
        assert len(trace.entries) == expected
        assert all(same(*pair) for pair in zip(trace.entries, entries, strict=False))
        assert bool(trace.damage) == (size not in ends)


def test_a_flipped_byte_is_found_and_what_stands_before_it_is_read(tmp_path: Path) -> None:
    ends = written(tmp_path / "whole", steady(6))
    everything = bytearray((tmp_path / "whole").read_bytes())
    hurt = tmp_path / "hurt"
    for place in range(ends[0], len(everything)):
        hurt.write_bytes(everything[:place] + bytes([everything[place] ^ 0x40]) + everything[place + 1 :])
        trace = read_trace(hurt)
        assert len(trace.entries) == sum(end <= place for end in ends[1:])
        assert trace.damage


@given(st.binary(max_size=200), st.booleans())
def test_no_bytes_of_whatever_kind_are_more_than_a_damaged_trace(noise: bytes, framed: bool) -> None:
    path = fresh()
    record = struct.pack("<II", len(noise), zlib.crc32(noise)) + noise if framed else noise
    written(path, steady(2))
    path.write_bytes(path.read_bytes() + record)
    trace = read_trace(path)
    assert len(trace.entries) == 2
    assert bool(trace.damage) == bool(record)
    path.write_bytes(noise)
    with pytest.raises(DataError):
        read_trace(path)


def test_a_trace_of_a_later_layout_is_refused_with_both_numbers(tmp_path: Path) -> None:
    path = tmp_path / "later"
    with TraceWriter(path, msgspec.structs.replace(HEADER, schema=2)):
        pass
    with pytest.raises(DataError, match=r"layout 2, this npuops reads 1"):
        read_trace(path)


def test_a_header_that_is_no_text_is_refused(tmp_path: Path) -> None:
    header = msgspec.msgpack.encode(HEADER).replace(HEADER.kernel.encode(), b"\xff" * len(HEADER.kernel.encode()))
    (tmp_path / "trace").write_bytes(MAGIC + struct.pack("<II", len(header), zlib.crc32(header)) + header)
    with pytest.raises(DataError, match="not what npuops writes"):
        read_trace(tmp_path / "trace")


def test_a_bomb_is_damage_not_a_gigabyte(tmp_path: Path) -> None:
    path = tmp_path / "bomb"
    written(path, [])
    deflate = zlib.compressobj(wbits=-15)
    bomb = b"".join(deflate.compress(bytes(1 << 20)) for _ in range(300)) + deflate.flush(zlib.Z_SYNC_FLUSH)
    record = struct.pack("<II", len(bomb), zlib.crc32(bomb)) + bomb
    path.write_bytes(path.read_bytes() + record)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert read_trace(path).damage
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


def test_a_trace_is_not_written_over_another_file(tmp_path: Path) -> None:
    path = tmp_path / "mine"
    path.write_text("dear diary")
    with pytest.raises(StorageError, match="exists already"):
        TraceWriter(path, HEADER)
    assert path.read_text() == "dear diary"
    with pytest.raises(StorageError):
        TraceWriter(tmp_path / "absent" / "trace", HEADER)


_UNTIL_FULL = """
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_hostsched_trace_file import HEADER, steady
from npuops.errors import StorageError
from npuops.hostsched.trace_file import TraceWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
writer, done = TraceWriter(Path(sys.argv[1]), HEADER), 0
try:
    for entry in steady(1000):
        writer.write(entry)
        done += 1
except StorageError as error:
    print(done, error.message)
try:
    writer.write(entry)
except StorageError as error:
    print(error.message)
writer.close()
"""


def test_a_full_disk_ends_the_trace_with_its_last_whole_entry(tmp_path: Path) -> None:
    """The limit of a file's size cuts a write short as a full disk does."""
    path = tmp_path / "trace"
    command = [sys.executable, "-c", _UNTIL_FULL, str(path), str(Path(__file__).parent), "3001"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    first, second = ended.stdout.splitlines()
    assert "the trace ends here" in first
    assert "the trace ends here" in second
    trace = read_trace(path)
    assert trace.damage == ""
    assert len(trace.entries) == int(first.split()[0]) > 10


_UNTIL_KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_hostsched_trace_file import HEADER, steady
from npuops.hostsched.trace_file import TraceWriter
writer = TraceWriter(Path(sys.argv[1]), HEADER)
for entry in steady(25):
    writer.write(entry)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_written_before_a_kill_is_read(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    command = [sys.executable, "-c", _UNTIL_KILLED, str(path), str(Path(__file__).parent)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    trace = read_trace(path)
    assert len(trace.entries) == 25
    assert trace.damage == ""


def test_a_trace_is_read_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    entries = steady(3)
    with TraceWriter(path, HEADER) as writer:
        writer.write(entries[0])
        assert len(read_trace(path).entries) == 1
        writer.write(entries[1])
        with TraceReader(path) as reader:
            assert len(list(reader)) == 2


def test_sixteen_busy_tasks_take_less_than_ten_kibibytes_a_second(tmp_path: Path) -> None:
    """At 50 looks a second, all of them active in each window, four with hints, a plan that changes now and then."""
    random = np.random.default_rng(1)
    tasks = tuple(Task(TaskId(1000 + n, 5_000_000 + n), 1000 + n, f"worker-{n}", None, 2) for n in range(16))
    counters, at_us = np.zeros((16, 5), np.int64), 10**9
    path = tmp_path / "trace"
    with TraceWriter(path, HEADER) as writer:
        for number in range(500):
            at_us += 20_000 + int(random.integers(0, 300))
            counters = counters + random.integers(0, [5_000_000, 20_000_000, 8, 8, 5], (16, 5))
            told = [Hint(at_us - int(random.integers(9000)), Kind.LATENCY, 2000, int(random.integers(2000)), 1, number)]
            plan = Plan({tasks[number // 10 % 16].id: LEVELS[1]}, {tasks[number // 10 % 16].id: "computes 83 %"})
            frame = Frame(
                at_us, tasks, counters, (Setting(),) * 16, (*told * 4, *(None,) * 12), {},
                Host(2, 5, at_us * 2, 0, at_us),
            )  # fmt: skip
            writer.write(Entry(frame=frame, proposed=plan, checked=Checked(plan), applied=Applied(), late_us=60))
        assert writer.size_bytes / 10 < 10 * 1024


def test_a_trace_begins_with_its_magic_and_is_the_users_own_file(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    written(path, [])
    assert path.read_bytes().startswith(MAGIC)
    assert path.stat().st_mode & 0o777 == 0o644 & ~_umask()


def _umask() -> int:
    now = os.umask(0o022)
    os.umask(now)
    return now
