from __future__ import annotations

import pytest

from npuops.errors import OptionError
from npuops.hostsched.policy_names import policy_named
from npuops.hostsched.reactive_options import ReactiveOptions
from npuops.hostsched.static_policy import Default


@pytest.mark.parametrize("name", ["default", "reactive", "static:idle@make*"])
def test_a_policy_answers_to_the_name_it_was_asked_by(name: str) -> None:
    assert policy_named(name).name == name


def test_the_learned_policy_is_opened_only_when_asked_for() -> None:
    assert policy_named("learned", learned=Default).name == "default"
    with pytest.raises(OptionError) as caught:
        policy_named("learned")
    assert "reactive" in caught.value.advice


def test_tuned_thresholds_are_read_only_when_asked_for() -> None:
    assert policy_named("tuned-reactive", tuned=ReactiveOptions).name == "tuned-reactive"
    with pytest.raises(OptionError) as caught:
        policy_named("tuned-reactive")
    assert "--thresholds" in caught.value.advice


def test_a_misspelt_policy_names_the_nearest() -> None:
    with pytest.raises(OptionError) as caught:
        policy_named("reactiv")
    assert "reactive" in caught.value.advice
    with pytest.raises(OptionError):
        policy_named("static")
