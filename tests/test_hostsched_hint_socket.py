"""The agent's ear: who is heard, who is not, and what anybody can cost it."""

from __future__ import annotations

import os
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from hint_agent import AGENT, IMPORTS, application, await_true, hear, process
from hostsched_readers import READERS, use
from npuops.errors import OptionError, StorageError, UsageError
from npuops.hostsched.hint import Kind
from npuops.hostsched.hint_line import HintLine, now_us
from npuops.hostsched.hint_socket import BAN_US, BURST, CLIENTS_OF_USER, MESSAGES, RECHECK_US, HintSocket
from npuops.hostsched.hint_wire import SIZE, Word, encode

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
NOBODY = 65534
CLIENT = "from npuops.hostsched.hint_client import HintClient\nhints = HintClient('batch')"


@pytest.fixture(params=READERS, autouse=True)
def reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that is promised here is promised of both."""
    use(request.param, monkeypatch)


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are for one user
        Path(folder).chmod(0o755)
        yield Path(folder) / "hints" / "h.sock"


@pytest.fixture
def listener(path: Path) -> Iterator[HintSocket]:
    with HintSocket(str(path)) as made:
        yield made


def raw(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made.connect(str(path))
    made.settimeout(30)
    return made


def test_a_word_of_a_process_is_about_all_its_threads_also_those_that_start_later(
    path: Path, listener: HintSocket
) -> None:
    with raw(path) as line:
        line.send(encode(Word(kind=Kind.LATENCY, slo_us=2000, queued=3, slack_us=900, sent_us=now_us())))
        found = listener.heard()
        ours = {int(each.name) for each in Path("/proc/self/task").iterdir()}
        assert set(found) == ours
        hint = found[os.getpid()]
        assert (hint.kind, hint.slo_us, hint.queued) == (Kind.LATENCY, 2000, 3)
        assert hint.slack_us is not None
        assert hint.slack_us <= 900
        ended = threading.Event()
        thread = threading.Thread(target=ended.wait)
        thread.start()
        try:
            later_us = now_us() + 2 * RECHECK_US
            assert thread.native_id in listener.heard(later_us)
        finally:
            ended.set()
            thread.join()


def test_what_was_said_before_the_agent_accepted_is_heard_with_its_sender(path: Path, listener: HintSocket) -> None:
    with raw(path) as first, raw(path) as second:
        second.send(encode(Word(kind=Kind.BATCH)))
        first.send(encode(Word(tid=threading.get_native_id(), kind=Kind.LATENCY)))
        assert listener.heard()[threading.get_native_id()].kind is Kind.LATENCY
        assert (listener.counts.heard, listener.counts.clients) == (2, 2)


def test_a_process_may_speak_of_those_below_it_and_root_of_any(path: Path, listener: HintSocket) -> None:
    with process() as child, raw(path) as line:
        child.line()
        line.send(encode(Word(tid=child.pid, whole=True, kind=Kind.BACKGROUND)))
        assert listener.heard()[child.pid].kind is Kind.BACKGROUND
    if os.geteuid() == 0:
        with raw(path) as line:
            line.send(encode(Word(tid=1, kind=Kind.BATCH)))
            assert listener.heard()[1].kind is Kind.BATCH


@ROOT
def test_a_plain_user_speaks_of_its_children_and_grandchildren_and_no_longer_once_they_are_not(
    path: Path, listener: HintSocket
) -> None:
    family = (
        "r, w = os.pipe(); child = os.fork()\n"
        "if child == 0:\n"
        "  grandchild = os.fork()\n"
        "  os.write(w, str(grandchild).encode()) if grandchild else os.read(os.pipe()[0], 1)\n"
        "  os.read(os.pipe()[0], 1)\n"
        "grandchild = int(os.read(r, 20)); line = HintLine()\n"
        "for each in (child, grandchild): line.send(Word(tid=each, kind='batch', whole=True))\n"
        "answer = f'{child} {grandchild}'"
    )
    with application(path, "pass", user=NOBODY) as parent:
        child, grandchild = map(int, parent.tell(family).split())
        try:
            assert {child, grandchild} <= set(listener.heard())
            parent.tell("os.kill(child, 9); os.wait()")
            parent.tell("line.send(Word(tid=grandchild, kind='latency', whole=True))")
            later_us = now_us() + 2 * RECHECK_US
            assert child not in listener.heard(later_us)
            assert listener.counts.foreign == 1, "the orphan is somebody else's child now"
        finally:
            os.kill(grandchild, signal.SIGKILL)


@ROOT
@pytest.mark.parametrize("whose", ["root", "same user, not below it"])
def test_nobody_else_may_speak_of_a_foreign_thread(path: Path, listener: HintSocket, whose: str) -> None:
    with application(path, "pass", user=NOBODY) as neighbour, application(path, CLIENT, user=NOBODY) as liar:
        victim = os.getpid() if whose == "root" else neighbour.pid
        hear(listener, lambda found: liar.pid in found)
        liar.tell(
            f"line = HintLine(); words = [Word(tid={victim}, kind='latency', whole=whole) for whole in (False, True)]\n"
            "for word in words: line.send(word)"
        )
        await_true(lambda: victim not in listener.heard() and listener.counts.foreign == 2)
        assert f"process {liar.pid}" in listener.trouble
        assert "somebody else's" in listener.trouble


@ROOT
def test_credentials_cannot_be_forged(path: Path, listener: HintSocket) -> None:
    with application(path, CLIENT, user=NOBODY) as liar:
        answer = liar.tell(
            "raw = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
            "raw.connect(os.environ['NPUOPS_HINT_SOCKET'])\n"
            f"forged = [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, struct.pack('3i', {os.getpid()}, 0, 0))]\n"
            "try:\n  raw.sendmsg([encode(Word(kind='latency'))], forged); answer = 'sent'\n"
            "except PermissionError: answer = 'refused by the kernel'"
        )
        assert answer == "refused by the kernel"
        assert os.getpid() not in listener.heard()


def test_what_is_no_hint_is_counted_and_the_line_goes_on(path: Path, listener: HintSocket) -> None:
    with raw(path) as line:
        for noise in (b"x", b"", encode(Word())[:-1], bytes(SIZE), os.urandom(300), bytes(10_000)):
            line.send(noise)
        line.send(encode(Word(kind=Kind.BATCH)))
        assert listener.heard()[os.getpid()].kind is Kind.BATCH
        assert (listener.counts.malformed, listener.counts.heard) == (6, 1)


def test_files_that_come_with_a_hint_are_not_kept(path: Path, listener: HintSocket) -> None:
    with raw(path) as line, Path("/dev/null").open() as file:
        before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(20):
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", file.fileno()))]
            line.sendmsg([encode(Word(kind=Kind.BATCH))], rights)
        assert listener.heard()[os.getpid()].kind is Kind.BATCH
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1  # the accepted connection


def test_a_thread_that_is_not_there_is_told_from_one_of_others(path: Path, listener: HintSocket) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with raw(path) as line:
        line.send(encode(Word(tid=gone.pid, kind=Kind.BATCH)))
        line.send(encode(Word(tid=(1 << 32) - 1, kind=Kind.BATCH)))
        assert listener.heard() == {}
        assert listener.counts.gone == 2


def test_hints_end_with_the_process_that_gave_them(path: Path, listener: HintSocket) -> None:
    with application(path, CLIENT) as speaker:
        hear(listener, lambda found: speaker.pid in found)
        speaker.process.send_signal(signal.SIGKILL)
        hear(listener, lambda found: not found)
    assert listener.counts.clients == 0


def test_hints_of_a_thread_end_with_it_though_its_number_may_be_given_again(path: Path, listener: HintSocket) -> None:
    with process() as child, raw(path) as line:
        child.line()
        line.send(encode(Word(tid=child.pid, kind=Kind.BATCH)))
        assert child.pid in listener.heard()
        child.process.kill()
        child.process.wait()
        assert child.pid not in listener.heard(now_us() + 2 * RECHECK_US)


def test_a_flood_is_hung_up_on_and_others_are_heard_meanwhile(path: Path, listener: HintSocket) -> None:
    flood = (
        "raw = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); raw.connect(os.environ['NPUOPS_HINT_SOCKET'])\n"
        "sent = 0\n"
        "try:\n  while True:\n    raw.send(encode(Word(served=sent))); sent += 1\n"
        "except OSError: answer = sent"
    )
    with application(path, CLIENT) as other, application(path, IMPORTS + CLIENT) as flooder:
        hear(listener, lambda found: {other.pid, flooder.pid} <= set(found))
        flooder.begin(flood)

        def is_over() -> bool:
            before = listener.counts
            assert other.pid in listener.heard()
            after = listener.counts
            assert after.heard + after.superseded <= before.heard + before.superseded + MESSAGES
            return listener.counts.flooded == 1

        await_true(is_over)
        assert "more than" in listener.trouble
        assert int(flooder.line()) >= BURST
        before = listener.counts.refused
        assert flooder.tell("line = HintLine(); answer = line.send(Word(kind='batch'))") == "True"
        listener.heard()
        assert listener.counts.refused == before + 1
        assert flooder.tell("line = HintLine(); answer = line.send(Word(kind='latency'))") == "True"
        later_us = now_us() + 2 * BAN_US
        assert listener.heard(later_us)[flooder.pid].kind is Kind.LATENCY


def test_an_agent_that_was_stopped_for_a_while_takes_nobody_for_a_flood(path: Path, listener: HintSocket) -> None:
    with raw(path) as line:
        line.setblocking(False)
        sent = 0
        with suppress(BlockingIOError):  # when its queue is full
            for sent in range(10 * BURST):
                line.send(encode(Word(kind=Kind.BATCH, served=sent)))
        hear(listener, lambda found: found[os.getpid()].served == sent - 1)
        assert (listener.counts.flooded, listener.counts.heard + listener.counts.superseded) == (0, sent)


@ROOT
def test_one_user_cannot_take_all_the_connections(path: Path, listener: HintSocket) -> None:
    with application(path, CLIENT, user=NOBODY) as greedy, raw(path) as other:
        hear(listener, lambda found: greedy.pid in found)
        greedy.tell("many = []")
        for _ in range(5):
            greedy.tell(
                "more = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(20)]\n"
                "for each in more: each.connect(os.environ['NPUOPS_HINT_SOCKET'])\nmany += more"
            )
            listener.heard()
        assert listener.counts.refused == 101 - CLIENTS_OF_USER
        other.send(encode(Word(kind=Kind.LATENCY)))
        assert listener.heard()[os.getpid()].kind is Kind.LATENCY


def test_a_second_agent_is_refused_and_the_first_goes_on(path: Path, listener: HintSocket) -> None:
    with pytest.raises(UsageError, match="listens at") as caught:
        HintSocket(str(path))
    assert "another socket" in caught.value.advice
    with raw(path) as line:
        line.send(encode(Word(kind=Kind.BATCH)))
        assert listener.heard()


def test_a_socket_of_somebody_else_that_listens_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(UsageError, match="listens at"):
            HintSocket(str(path))
        assert path.is_socket()


def test_the_socket_of_an_agent_that_was_killed_is_replaced(path: Path) -> None:
    with process(AGENT, str(path)) as agent:
        assert agent.line() == "listening"
    assert path.is_socket()
    with HintSocket(str(path)) as listener, raw(path) as line:
        line.send(encode(Word(kind=Kind.BATCH)))
        assert listener.heard()
    assert not path.exists()


def test_what_is_no_socket_is_never_removed(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("precious", encoding="utf-8")
    with pytest.raises(UsageError, match="no socket"):
        HintSocket(str(path))
    assert path.read_text(encoding="utf-8") == "precious"


def test_a_socket_that_was_replaced_meanwhile_is_not_removed_at_the_end(path: Path) -> None:
    listener = HintSocket(str(path))
    path.unlink()
    path.write_text("somebody else's", encoding="utf-8")
    listener.close()
    listener.close()
    assert path.exists()


@pytest.mark.parametrize(("everyone", "of_socket", "of_folder"), [(True, 0o666, 0o755), (False, 0o600, 0o700)])
def test_rights_are_as_asked_whatever_the_umask_is(path: Path, everyone: bool, of_socket: int, of_folder: int) -> None:
    old = os.umask(0o077 if everyone else 0)
    try:
        with HintSocket(str(path), everyone=everyone):
            assert stat.S_IMODE(path.stat().st_mode) == of_socket
            assert stat.S_IMODE(path.parent.stat().st_mode) == of_folder
    finally:
        os.umask(old)


def test_a_path_that_cannot_be_a_socket_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="path"):
        HintSocket(str(tmp_path / ("x" * 120)))
    with pytest.raises(OptionError, match="path"):
        HintSocket("a\0b")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be made"):
        HintSocket(str(tmp_path / "file" / "h.sock"))


def test_an_agent_without_a_place_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NPUOPS_HINT_SOCKET", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(OptionError, match="XDG_RUNTIME_DIR"):
        HintSocket()


def test_a_line_says_why_nobody_listens(path: Path) -> None:
    line = HintLine(str(path))
    assert not line.send(Word())
    assert (line.unsent, line.connected) == (1, False)
    assert str(path) in line.trouble
