"""Hints as bytes: what was said arrives, and nothing else is taken for a hint."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npuops.hostsched.hint import Kind
from npuops.hostsched.hint_wire import LONGEST_US, SIZE, Word, decode, encode

COUNTS = st.integers(0, (1 << 63) - 1)
WORDS = st.builds(
    lambda word, more: replace(word, served=word.missed + min(more, (1 << 63) - 1 - word.missed)),
    st.builds(
        Word,
        tid=st.integers(0, (1 << 32) - 1),
        whole=st.booleans(),
        sent_us=st.integers(0, 1 << 62),
        kind=st.none() | st.sampled_from(Kind),
        slo_us=st.none() | st.integers(1, LONGEST_US),
        slack_us=st.none() | st.integers(-LONGEST_US, LONGEST_US),
        queued=st.none() | COUNTS,
        missed=COUNTS,
    ),
    COUNTS,
)


@given(WORDS)
def test_what_was_said_arrives(word: Word) -> None:
    data = encode(word)
    assert len(data) == SIZE
    assert decode(data) == word


@given(WORDS, st.integers(1, 100))
def test_a_later_version_may_append_what_this_one_does_not_know(word: Word, more: int) -> None:
    data = bytearray(encode(word)) + bytes(more)
    struct.pack_into("<H", data, 6, len(data))
    assert decode(bytes(data)) == word


@given(st.binary(max_size=200))
def test_noise_is_no_hint_and_no_error(data: bytes) -> None:
    assert isinstance(decode(data), str)


@given(WORDS, st.integers(0, SIZE - 1), st.integers(1, 255))
def test_a_damaged_hint_is_refused_or_stays_within_bounds(word: Word, at: int, flip: int) -> None:
    data = bytearray(encode(word))
    data[at] ^= flip
    found = decode(bytes(data))
    if isinstance(found, Word):
        assert found.slo_us is None or 0 < found.slo_us <= LONGEST_US
        assert found.slack_us is None or abs(found.slack_us) <= LONGEST_US
        assert 0 <= found.missed <= found.served


@pytest.mark.parametrize("length", range(SIZE))
def test_a_short_message_is_refused(length: int) -> None:
    assert "at least" in str(decode(encode(Word())[:length]))


@pytest.mark.parametrize(
    ("offset", "layout", "value", "words"),
    [
        (4, "<B", 2, "version"),
        (5, "<B", 4, "kind 4"),
        (6, "<H", 65, "says 65 bytes"),
        (56, "<Q", 1, "1 missed of 0"),
    ],
)
def test_a_refusal_says_what_is_wrong(offset: int, layout: str, value: int, words: str) -> None:
    data = bytearray(encode(Word()))
    struct.pack_into(layout, data, offset, value)
    assert words in str(decode(bytes(data)))


@pytest.mark.parametrize("bit", [1 << 4, 1 << 31])
def test_what_a_later_version_says_besides_is_left_and_the_rest_is_taken(bit: int) -> None:
    word = Word(tid=7, slo_us=2000, queued=3, served=5, missed=1)
    data = bytearray(encode(word)) + b"later"
    struct.pack_into("<H", data, 6, len(data))
    struct.pack_into("<I", data, 12, struct.unpack_from("<I", data, 12)[0] | bit)
    assert decode(bytes(data)) == word


def test_an_slo_of_nothing_and_one_of_a_day_are_mistakes_of_units() -> None:
    for slo_us in (0, -1, 86_400_000_000):
        data = bytearray(encode(Word(slo_us=1)))
        struct.pack_into("<q", data, 24, slo_us)
        assert "SLO" in str(decode(bytes(data)))


def test_a_request_that_is_late_by_hours_stays_late() -> None:
    assert decode(encode(Word(slack_us=-(1 << 60)))) == Word(slack_us=-LONGEST_US)
