"""A set that forgets, so that nothing grows for months."""

from __future__ import annotations

from npuops.hostsched.recently import Recently


def test_it_forgets_what_was_not_added_for_longest_and_only_that() -> None:
    seen = Recently[int](3)
    assert [seen.add(number) for number in (1, 2, 3, 1, 4)] == [True, True, True, False, True]
    assert [number in seen for number in (1, 2, 3, 4)] == [True, False, True, True]
    assert len(seen) == 3
    assert seen.add(2), "what was forgotten is new again"
