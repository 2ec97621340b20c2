"""The application's side: it counts, it never waits, and it never fails because of the agent."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hint_agent import AGENT, application, await_true, hear, process
from npuops.errors import OptionError
from npuops.hostsched.hint import Kind
from npuops.hostsched.hint_client import INTERVAL_US, HintClient
from npuops.hostsched.hint_line import RETRY_US, HintLine, now_us
from npuops.hostsched.hint_place import FOR_ALL, place_of_agent, places
from npuops.hostsched.hint_socket import HintSocket
from npuops.hostsched.hint_wire import Word

LONG_AGO_US = 1


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "h.sock"


@pytest.fixture
def listener(path: Path) -> Iterator[HintSocket]:
    with HintSocket(str(path)) as made:
        yield made


def test_requests_are_counted_and_the_most_urgent_gives_the_slack(path: Path, listener: HintSocket) -> None:
    with HintClient(slo_ms=60_000, path=str(path)) as client:
        me = os.getpid()
        first = client.began()
        urgent = client.began(now_us() + 1_000_000)
        late = client.began(LONG_AGO_US)
        hint = hear(listener, lambda found: me in found and found[me].queued == 3)[me]
        assert (hint.kind, hint.slo_us, hint.served, hint.missed) == (Kind.LATENCY, 60_000_000, 0, 0)
        assert hint.slack_us is not None
        assert hint.slack_us < 0
        client.done(late)
        hint = hear(listener, lambda found: found[me].queued == 2)[me]
        assert (hint.served, hint.missed) == (1, 1)
        assert hint.slack_us is not None
        assert hint.slack_us <= 1_000_000
        client.done(urgent)
        client.done(urgent)
        client.done(first)
        hint = hear(listener, lambda found: found[me].queued == 0)[me]
        assert (hint.served, hint.slack_us) == (3, None)
    hear(listener, lambda found: not found)


def test_a_request_that_fails_is_over_too(path: Path, listener: HintSocket) -> None:
    with HintClient(slo_ms=60_000, path=str(path)) as client:
        with pytest.raises(ValueError, match="as planned"), client.request():
            raise ValueError("as planned")
        hint = hear(listener, lambda found: os.getpid() in found and found[os.getpid()].served == 1)[os.getpid()]
        assert hint.queued == 0


def test_words_are_rare_however_many_requests_come_and_the_last_one_is_never_lost(
    path: Path, listener: HintSocket
) -> None:
    with HintClient(path=str(path)) as client:
        begun_us = now_us()
        for _ in range(5000):
            with client.request():
                pass
        took_us = now_us() - begun_us
        assert client.sent <= 3 + took_us // INTERVAL_US
        hint = hear(listener, lambda found: os.getpid() in found and found[os.getpid()].served == 5000)[os.getpid()]
        assert hint.queued == 0


def test_a_long_request_is_known_for_as_long_as_it_takes(path: Path, listener: HintSocket) -> None:
    with HintClient(slo_ms=1, path=str(path)) as client, client.request():
        hear(listener, lambda found: os.getpid() in found)
        sent = client.sent
        await_true(lambda: client.sent >= sent + 2)
        hint = listener.heard()[os.getpid()]
        assert hint.queued == 1
        assert hint.slack_us is not None
        assert hint.slack_us < 0


def test_threads_are_told_of_one_by_one_where_that_is_asked(path: Path, listener: HintSocket) -> None:
    with HintClient(slo_ms=1000, per_thread=True, path=str(path)) as client:
        hold, tids = threading.Event(), []

        def work(count: int) -> None:
            begun = [client.began() for _ in range(count)]
            tids.append((threading.get_native_id(), count))
            hold.wait(30)
            for each in begun:
                client.done(each)

        threads = [threading.Thread(target=work, args=(count,)) for count in (1, 2, 3)]
        for thread in threads:
            thread.start()
        try:
            await_true(lambda: len(tids) == 3)
            found = hear(listener, lambda found: len(found) == 3)
            hear(listener, lambda found: all(found[tid].queued == count for tid, count in tids))
            assert os.getpid() not in found
        finally:
            hold.set()
            for thread in threads:
                thread.join()


def test_many_threads_at_once_lose_no_count(path: Path, listener: HintSocket) -> None:
    with HintClient(slo_ms=60_000, path=str(path)) as client:

        def work() -> None:
            for _ in range(500):
                client.done(client.began())

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        hear(listener, lambda found: os.getpid() in found and found[os.getpid()].served == 4000)


def test_without_an_agent_nothing_happens_and_one_that_comes_later_hears_all(path: Path) -> None:
    with HintClient(Kind.BATCH, path=str(path)) as client:
        with client.request():
            pass
        assert client.sent == 0
        assert client.unsent > 0
        with HintSocket(str(path)) as listener:
            found = hear(listener, lambda found: os.getpid() in found)
            assert found[os.getpid()].kind is Kind.BATCH
            assert found[os.getpid()].served == 1


def test_an_agent_that_is_killed_and_started_again_hears_again(path: Path) -> None:
    with application(path, "from npuops.hostsched.hint_client import HintClient\nhints = HintClient(slo_ms=5)") as app:
        for served in (1, 2):
            with process(AGENT, str(path)) as agent:
                assert agent.line() == "listening"
                assert app.tell("with hints.request(): pass") == "done"
                expected = f"{app.pid}: [<Kind.LATENCY: 'latency'>, 0, {served}]"
                await_true(lambda agent=agent, expected=expected: expected in agent.line())
        assert app.tell("with hints.request(): pass") == "done"


def test_an_agent_that_does_not_read_holds_nobody_up(path: Path) -> None:
    with process(AGENT, str(path)) as agent:
        assert agent.line() == "listening"
        agent.process.send_signal(signal.SIGSTOP)
        line = HintLine(str(path))
        while line.send(Word(kind=Kind.BATCH)):
            pass
        assert line.connected
        assert "does not read" in line.trouble
        assert line.unsent == 1
        agent.process.send_signal(signal.SIGCONT)
        await_true(lambda: line.send(Word(kind=Kind.BATCH)))
        line.close()


def test_an_agent_is_looked_for_once_in_a_while_only(path: Path) -> None:
    line = HintLine(str(path))
    at_us = now_us()
    assert not line.is_open(at_us)
    with HintSocket(str(path)):
        assert not line.is_open(at_us + RETRY_US - 1)
        assert line.is_open(at_us + RETRY_US)
        line.close()


@pytest.mark.parametrize("made", ["stream", "file", "long", "zero"])
def test_a_place_that_is_no_agents_is_no_failure(path: Path, made: str) -> None:
    where = {"long": "x" * 200, "zero": "a\0b"}.get(made, str(path))
    if made == "file":
        path.write_text("")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        if made == "stream":
            other.bind(where)
            other.listen()
        with HintClient(path=where) as client, client.request():
            pass
        assert (client.sent, client.unsent > 0) == (0, True)


def test_a_child_of_a_fork_speaks_for_itself_and_only_when_it_works(path: Path, listener: HintSocket) -> None:
    code = "from npuops.hostsched.hint_client import HintClient\nhints = HintClient(slo_ms=60000)\nhold = hints.began()"
    fork = (
        "r, w = os.pipe(); go_r, go_w = os.pipe(); answer = os.fork()\n"
        "if answer == 0:\n"
        "  hints.done(hold); os.read(go_r, 1); mine = hints.began(); hints.done(mine); mine = hints.began()\n"
        "  os.read(r, 1); os._exit(0)"
    )
    with application(path, code) as parent:
        hear(listener, lambda found: parent.pid in found and found[parent.pid].queued == 1)
        child = int(parent.tell(fork))
        assert child not in listener.heard()
        parent.tell("os.write(go_w, b'x')")
        found = hear(listener, lambda found: child in found and found[child].served == 1 and found[child].queued == 1)
        assert (found[parent.pid].queued, found[parent.pid].served) == (1, 0)
        parent.tell("os.write(w, b'x'); os.wait()")
        hear(listener, lambda found: child not in found and parent.pid in found)


def test_a_client_that_nobody_keeps_ends_with_its_thread(path: Path) -> None:
    client = HintClient(path=str(path))
    thread = next(each for each in threading.enumerate() if each.name == "npuops-hints")
    del client
    thread.join(30)
    assert not thread.is_alive()


def test_a_client_without_a_thread_says_it_with_the_next_request(path: Path, listener: HintSocket) -> None:
    with HintClient(background=False, path=str(path)) as client:
        assert "npuops-hints" not in {each.name for each in threading.enumerate()}
        with client.request():
            pass
        client.refresh()
        assert listener.heard()[os.getpid()].served == 1


@pytest.mark.parametrize(("kind", "slo_ms"), [("fast", None), ("latency", 0), ("latency", -1), ("batch", 1e9)])
def test_what_cannot_be_is_refused(kind: str, slo_ms: float | None) -> None:
    with pytest.raises(OptionError):
        HintClient(kind, slo_ms=slo_ms)


def test_an_application_pays_for_no_library() -> None:
    code = (
        "import sys, npuops.hostsched.hint_client\n"
        "heavy = {'numpy', 'asyncio', 'msgspec', 'onnx', 'subprocess'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_everybody_meets_at_the_same_place() -> None:
    own = {"XDG_RUNTIME_DIR": "/run/user/7"}
    assert places({}) == [FOR_ALL]
    assert places(own) == ["/run/user/7/npuops/hostsched.sock", FOR_ALL]
    assert places(own | {"NPUOPS_HINT_SOCKET": "/x"}) == ["/x"]
    assert place_of_agent(own, 7) == places(own)[0]
    assert place_of_agent(own, 0) == FOR_ALL
    assert place_of_agent({}, 7) is None
    assert place_of_agent({"NPUOPS_HINT_SOCKET": "/x"}, 7) == "/x"
