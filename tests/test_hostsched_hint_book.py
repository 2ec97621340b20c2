"""What was said of whom, and for how long it counts."""

from __future__ import annotations

from npuops.hostsched.frame import TaskId
from npuops.hostsched.hint import Hint, Kind
from npuops.hostsched.hint_book import FRESH_US, HintBook, Subject
from npuops.hostsched.hint_wire import Word

NOW_US = 10_000_000
WORKER = Subject(TaskId(7, 100), whole=False)
PROCESS = Subject(TaskId(5, 90), whole=True)


def test_slack_is_what_is_left_of_it_now_and_so_becomes_negative_by_itself() -> None:
    book = HintBook()
    book.note(WORKER, Word(sent_us=NOW_US - 300, slack_us=1000, queued=2), by=1, now_us=NOW_US)
    assert book.hints(NOW_US)[7] == Hint(at_us=NOW_US - 300, slack_us=700, queued=2)
    assert book.hints(NOW_US + 1000)[7].slack_us == -300


def test_queue_and_slack_are_forgotten_after_a_moment_and_the_kind_stays() -> None:
    book = HintBook()
    book.note(WORKER, Word(sent_us=NOW_US, kind=Kind.LATENCY, slo_us=2000, slack_us=1, queued=1), 1, NOW_US)
    assert book.hints(NOW_US + FRESH_US)[7].queued == 1
    assert book.hints(NOW_US + FRESH_US + 1)[7] == Hint(at_us=NOW_US, kind=Kind.LATENCY, slo_us=2000)


def test_a_thread_is_what_it_says_of_itself_or_else_what_its_process_is() -> None:
    book = HintBook()
    book.spread(PROCESS, (5, 6, 7))
    book.note(WORKER, Word(kind=Kind.BATCH), by=1, now_us=NOW_US)
    book.note(PROCESS, Word(kind=Kind.LATENCY), by=1, now_us=NOW_US + 1)
    kinds = {tid: hint.kind for tid, hint in book.hints(NOW_US + 1).items()}
    assert kinds == {5: Kind.LATENCY, 6: Kind.LATENCY, 7: Kind.BATCH}


def test_what_a_connection_said_ends_with_it() -> None:
    book = HintBook()
    book.note(WORKER, Word(kind=Kind.BATCH), by=1, now_us=NOW_US)
    book.note(PROCESS, Word(kind=Kind.LATENCY), by=2, now_us=NOW_US)
    book.hung_up(1)
    assert book.subjects == (PROCESS,)
    book.forget(PROCESS)
    book.forget(PROCESS)
    assert book.hints(NOW_US) == {}


def test_a_word_of_another_clock_counts_as_said_now() -> None:
    book = HintBook()
    for sent_us in (0, NOW_US + 1, NOW_US - FRESH_US - 1):
        book.note(WORKER, Word(sent_us=sent_us, slack_us=50), by=1, now_us=NOW_US)
        assert book.hints(NOW_US)[7] == Hint(at_us=NOW_US, slack_us=50)


def test_a_word_that_was_overtaken_does_not_supersede_the_later_one() -> None:
    book = HintBook()
    book.note(WORKER, Word(sent_us=NOW_US, queued=0), by=1, now_us=NOW_US)
    book.note(WORKER, Word(sent_us=NOW_US - 1, queued=1), by=1, now_us=NOW_US)
    assert book.hints(NOW_US)[7].queued == 0
