"""The beginning of a training: the rule that proposes to the scorer."""

from __future__ import annotations

from pathlib import Path

import pytest

from npuops.events import StepStarted
from npuops.hostsched.reactive_options import ReactiveOptions, load_reactive
from npuops.schedlab.training import TrainingOptions, train


class EnoughError(Exception):
    """Ends a training after its rule."""


def test_without_a_search_the_rule_that_was_given_is_written_whatever_lay_there(tmp_path: Path) -> None:
    given = ReactiveOptions(quiet_us=60_000.0)
    (tmp_path / "reactive.toml").write_text(ReactiveOptions(quiet_us=50_000.0).to_toml())

    def stop(event: object) -> None:
        if isinstance(event, StepStarted) and event.step == "gather":
            raise EnoughError

    with pytest.raises(EnoughError):
        train(tmp_path, TrainingOptions(generations=0, thresholds=given, lessons=2, processes=1), observe=stop)
    assert load_reactive(tmp_path / "reactive.toml") == given
