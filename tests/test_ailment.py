from __future__ import annotations

from npuops.runtime.ailment import Ailment, resting

DOUBT = Ailment(why="uncorrected errors", answers=True, is_doubt=True)
OFF = Ailment(why="offline", answers=False)


def test_what_cannot_answer_rests_whoever_else_there_is() -> None:
    assert resting({"npu": OFF}, ["npu"]) == {"npu": OFF}
    assert resting({"npu": OFF}, ["npu", "other"]) == {"npu": OFF}


def test_a_doubt_is_enough_only_where_another_device_takes_the_work() -> None:
    assert resting({"npu": DOUBT}, ["npu"]) == {}
    assert resting({"npu": DOUBT}, ["npu", "other"]) == {"npu": DOUBT}
    assert resting({"npu": DOUBT}, ["other"]) == {"npu": DOUBT}


def test_of_two_doubtful_devices_both_go_on() -> None:
    assert resting({"a": DOUBT, "b": DOUBT}, ["a", "b"]) == {}
    assert resting({"a": DOUBT, "b": OFF}, ["a", "b"]) == {"b": OFF}


def test_nothing_ails_nobody() -> None:
    assert resting({}, ["npu"]) == {}
