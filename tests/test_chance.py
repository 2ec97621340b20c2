"""Chance that repeats itself."""

from __future__ import annotations

from npuops.vnpu.chance import chance, draw


def test_the_same_question_has_the_same_answer_and_another_one_another() -> None:
    assert draw(7, 3) == draw(7, 3) == 12296769318780836496
    assert len({draw(seed, number) for seed in range(20) for number in range(20)}) == 400


def test_it_is_even_and_below_one() -> None:
    found = [chance(1, number) for number in range(20_000)]
    assert min(found) >= 0
    assert max(found) < 1
    for tenth in range(10):
        share = sum(tenth / 10 <= each < (tenth + 1) / 10 for each in found) / len(found)
        assert 0.09 < share < 0.11
