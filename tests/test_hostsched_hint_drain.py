"""Our C and Python keep the same of what waits in a connection, whatever it is."""

from __future__ import annotations

import array
import os
import socket
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostsched_readers import the_library
from npuops.hostsched.hint import Kind
from npuops.hostsched.hint_drain import MOST, Drained, drain, drain_with
from npuops.hostsched.hint_wire import MAX_SIZE, SIZE, Word, encode

_SO_SNDBUFFORCE = 32


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent, and with how many open files."""

    data: bytes
    files: int = 0


HINTS = st.builds(
    Word, tid=st.integers(0, 3), whole=st.booleans(), kind=st.sampled_from(Kind), served=st.integers(0, 9)
).map(encode)
LATER = st.tuples(HINTS, st.sampled_from((1, 9, MAX_SIZE - SIZE, MAX_SIZE))).map(lambda it: it[0] + bytes(it[1]))
SPOILT = st.tuples(HINTS, st.integers(0, SIZE - 1)).map(lambda it: it[0][: it[1]] + b"!" + it[0][it[1] + 1 :])
NOISE = st.one_of(st.binary(max_size=SIZE + 3), st.sampled_from((b"", bytes(MAX_SIZE), bytes(MAX_SIZE + 1))))
MESSAGES = st.lists(
    st.builds(Message, st.one_of(HINTS, HINTS, LATER, SPOILT, NOISE), st.sampled_from((0, 0, 0, 2))), max_size=80
)


def both(messages: list[Message], most: int, words_left: float, *, hangs_up: bool) -> list[Drained]:
    found = []
    for each in (drain, drain_with(the_library())):
        with ExitStack() as stack:
            sender, reader = map(stack.enter_context, socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            reader.setblocking(False)
            file = stack.enter_context(Path("/dev/null").open())
            for message in messages:
                rights = array.array("i", [file.fileno()] * message.files)
                sender.sendmsg([message.data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if rights else [])
            if hangs_up:
                sender.close()
            before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - only counted
            found.append(each(reader, most, words_left, 16.0))
            assert len(os.listdir("/proc/self/fd")) == before, "files that came along are closed"  # noqa: PTH208
    return found


@given(
    messages=MESSAGES,
    most=st.sampled_from((1, 5, 31, 32, 33, MOST)),
    words_left=st.sampled_from((0.0, 3.5, 20.0, 1000.0)),
    hangs_up=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_of_anything_that_may_be_sent_both_keep_the_same(
    messages: list[Message], most: int, words_left: float, hangs_up: bool
) -> None:
    python, library = both(messages, most, words_left, hangs_up=hangs_up)
    if python.ended or python.words_left < 0:
        assert python.words == library.words == []
    assert python == library


def test_of_many_words_about_one_thread_the_last_counts_and_others_stay_in_order() -> None:
    words = [Message(encode(Word(tid=tid, served=at))) for at, tid in enumerate((1, 2, 1, 3, 2))]
    for found in both(words, MOST, 100.0, hangs_up=False):
        assert [data for _, data in found.words] == [
            encode(Word(tid=tid, served=at)) for at, tid in ((2, 1), (3, 3), (4, 2))
        ]
        assert (found.read, found.superseded, found.words_left) == (5, 2, 95.0)


def test_as_many_subjects_as_messages_fit() -> None:
    for each in (drain, drain_with(the_library())):
        sender, reader = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        reader.setblocking(False)
        sender.setblocking(False)
        with suppress(PermissionError):  # the usual limit leaves room for about as many
            sender.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, 1 << 22)
        sent = 0
        with sender, reader:
            with suppress(BlockingIOError):
                for sent in range(MOST + 9):
                    sender.send(encode(Word(tid=sent + 1)))
            if sent < MOST:
                pytest.skip("the queue of a socket is too short here")
            found = each(reader, MOST, 1e6, 16.0)
            assert [data for _, data in found.words] == [encode(Word(tid=at + 1)) for at in range(MOST)]
            assert each(reader, MOST, 1e6, 16.0).read == 9


def test_a_connection_that_fails_is_over_and_says_why() -> None:
    for each in (drain, drain_with(the_library())):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as alone:
            alone.setblocking(False)
            found = each(alone, MOST, 9.0, 16.0)
        assert (found.ended, found.words) == (True, [])
        assert os.strerror(found.error) == "Transport endpoint is not connected" or found.error
