from __future__ import annotations

import pickle

import pytest

from npuops import errors


def every_error() -> list[type[errors.NpuopsError]]:
    found = [errors.NpuopsError]
    for kind in found:
        found += kind.__subclasses__()
    return [kind for kind in found if kind.__module__ == "npuops.errors"]


@pytest.mark.parametrize("kind", every_error())
def test_an_error_crosses_a_process_border_with_its_advice(kind: type[errors.NpuopsError]) -> None:
    again = pickle.loads(pickle.dumps(kind("what", advice="do this")))
    assert (type(again), again.message, again.advice) == (kind, "what", "do this")


def test_every_error_is_named_error_drawn_in_the_tree_and_has_a_documented_exit_code() -> None:
    drawn = errors.__doc__ or ""
    for kind in every_error():
        assert kind.__name__.endswith("Error")
        assert kind.__name__ in drawn
        assert kind.exit_code in {1, 2, 3}


@pytest.mark.parametrize(
    ("word", "advice"), [("resnet", "did you mean 'resnet18'?"), ("zzz", "known: mobilenet, resnet18")]
)
def test_a_misspelt_name_is_answered_with_the_nearest_or_with_all(word: str, advice: str) -> None:
    assert errors.nearest(word, ["resnet18", "mobilenet"]) == advice
