"""Our C and Python count the same, whatever the kernel tells and whenever it is asked."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostsched_readers import READERS, the_library, use
from hostsched_sleeper import sleeper
from npuops.hostsched.counter_rows import LibraryRows, LibraryTask, counter_rows
from npuops.hostsched.knobs import KnobError
from npuops.hostsched.proc_files import Descriptors
from npuops.hostsched.task_counters import TaskCounters

STATUS = "Name:\t{name}\nUmask:\t0022\nState:\t{state} (so)\nTgid:\t1\n{more}"
SWITCHES = "voluntary_ctxt_switches:\t{left}\nnonvoluntary_ctxt_switches:\t{pushed}\n"
NAMES = ("sleep", "a b", "State:\tR", "voluntary_ctxt_switches:\t9", "")


@dataclass(frozen=True, slots=True)
class Moment:
    """What happened since the look before."""

    later_us: int
    ran_ns: int
    waited_ns: int
    turns: int
    left: int
    pushed: int
    state: str


LATER_US = st.sampled_from((1, 10_000, 60_000, 60_000, 99_999, 100_000, 240_000, 250_000, 1_000_000))
WORK = st.builds(
    Moment,
    later_us=LATER_US,
    ran_ns=st.sampled_from((0, 1, 300_000, 1_000_000, 4_000_001)),
    waited_ns=st.sampled_from((0, 5, 80_000_000)),
    turns=st.integers(0, 4),
    left=st.integers(0, 4),
    pushed=st.sampled_from((0, 0, 0, 1)),
    state=st.sampled_from("SRD"),
)
SHORT = st.builds(Moment, LATER_US, st.just(300_000), st.just(0), st.just(1), st.just(1), st.just(0), st.just("S"))
NOTHING = [
    st.builds(Moment, LATER_US, st.just(0), st.just(0), st.just(0), st.just(0), st.just(0), st.just(state))
    for state in "SR"
]
END = st.builds(Moment, LATER_US, *[st.just(0)] * 5, st.sampled_from("ZX"))
SPELLS = st.tuples(st.sampled_from((WORK, SHORT, *NOTHING)), st.integers(1, 12)).flatmap(
    lambda spell: st.lists(spell[0], min_size=1, max_size=spell[1])
)
"""A task does the same for a while."""
HISTORIES = st.tuples(st.lists(SPELLS, min_size=1, max_size=6), st.lists(END, max_size=3)).map(
    lambda it: [moment for spell in (*it[0], it[1]) for moment in spell]
)


@given(moments=HISTORIES, name=st.sampled_from(NAMES), keeps=st.booleans())
@settings(max_examples=120, deadline=None)
def test_of_any_history_both_tell_the_same(moments: list[Moment], name: str, keeps: bool) -> None:
    with tempfile.TemporaryDirectory() as made:
        folder, descriptors = Path(made), Descriptors(None if keeps else 0)
        rows = LibraryRows(descriptors, the_library())
        python = TaskCounters(made, descriptors)
        task, now_us, ran, waited, turns, left, pushed = None, 0, 0, 0, 0, 0, 0
        for at, moment in enumerate(moments):
            now_us += moment.later_us
            ran, waited, turns = ran + moment.ran_ns, waited + moment.waited_ns, turns + moment.turns
            left, pushed = left + moment.left, pushed + moment.pushed
            (folder / "schedstat").write_text(f"{ran} {waited} {turns}\n")
            switches = SWITCHES.format(left=left, pushed=pushed)
            (folder / "status").write_text(STATUS.format(name=name, state=moment.state, more=switches))
            expected = python.look(now_us)
            if at == 0:
                task = rows.open(made, now_us)
                assert task is not None
                rows.arrange([task])
                assert tuple(rows.counters[0]) == python.counters
                continue
            gone = rows.look(now_us)
            assert gone == ([0] if expected is None else [])
            assert tuple(rows.counters[0]) == python.counters
            if expected is None:
                break
        descriptors.close()


SCRAPS = st.lists(st.sampled_from([b"1", b" ", b"\n", b"-3", b"9" * 19, b"x", b"\0", b"7 8 9\n"]), max_size=60).map(
    b"".join
)
PARTS = st.sampled_from([b"\nState:\t", b"R", b"Z", b"\nvoluntary_ctxt_switches:", b"\t4", b"\nnon:", b"\t5\n", b"\0"])


@given(schedstat=SCRAPS, status=st.lists(PARTS, max_size=12).map(b"".join))
@settings(max_examples=60, deadline=None)
def test_nonsense_is_an_error_or_an_end_and_never_a_number_out_of_nowhere(schedstat: bytes, status: bytes) -> None:
    with tempfile.TemporaryDirectory() as made:
        folder, descriptors = Path(made), Descriptors()
        (folder / "schedstat").write_bytes(schedstat)
        (folder / "status").write_bytes(status)
        found: object = None
        with suppress(KnobError):
            found = LibraryRows(descriptors, the_library()).open(made, 0)
        assert found is None or (len(schedstat.split()) >= 3 and b"voluntary" in status)
        descriptors.close()


@pytest.fixture(params=READERS)
def reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    use(request.param, monkeypatch)
    return str(request.param)


def test_tasks_that_end_are_told_and_the_others_go_on(reader: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = counter_rows(Descriptors(), use(reader, monkeypatch))
    with sleeper() as one, sleeper() as other:
        counted = [rows.open(each.folder, 0) for each in (one, other)]
        assert all(counted)
        rows.arrange(counted)
        assert rows.look(1) == []
        one.end()
        assert rows.look(2) == [0]
        rows.arrange(counted[1:])
        assert rows.look(3) == []
        _, told = other.undisturbed(lambda: rows.look(4))
        assert rows.counters[0, :3].tolist() == list(told[:3])
    assert rows.open(other.folder, 5) is None


CRAMPED = """
import os, resource, sys
from npuops.hostsched.counter_rows import counter_rows
from npuops.hostsched.knobs import KnobError
from npuops.hostsched.look_library import usual_reader
from npuops.hostsched.proc_files import Descriptors
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
descriptors = Descriptors(8)
rows = counter_rows(descriptors, usual_reader().library)
counted = [rows.open(sys.argv[1], 0)]
rows.arrange(counted)
descriptors.close()
try:
    while True:
        os.open("/dev/null", os.O_RDONLY)
except OSError:
    pass
try:
    rows.look(200_000)
except KnobError as error:
    print(error.message, error.advice)
"""


@pytest.mark.usefixtures("reader")
def test_without_any_descriptor_left_it_says_so() -> None:
    with sleeper() as one:
        command = (sys.executable, "-c", CRAMPED, one.folder)
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "schedstat cannot be read: Too many open files" in ended.stdout, ended.stderr
    assert "ulimit -n" in ended.stdout


def test_descriptors_that_were_closed_meanwhile_are_never_read_by_their_old_numbers() -> None:
    """Their numbers are other files' by then: those of a task that had to make room, say."""
    descriptors = Descriptors()
    rows = LibraryRows(descriptors, the_library())
    with sleeper() as one, tempfile.TemporaryDirectory() as made:
        task = rows.open(one.folder, 0)
        assert isinstance(task, LibraryTask)
        rows.arrange([task])
        numbers = task.raw.runs_fd, task.raw.status_fd
        descriptors.close()
        (Path(made) / "lies").write_text("9 9 9\n")
        lies: list[int] = []
        while not set(numbers) <= set(lies):
            lies.append(os.open(Path(made) / "lies", os.O_RDONLY))
        before = rows.counters.copy()
        assert rows.look(1) == []
        assert (rows.counters != 9).all()
        np.testing.assert_array_equal(rows.counters[:, 0] >= before[:, 0], [True])
        for each in lies:
            os.close(each)
    descriptors.close()
