from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npuops.errors import OptionError
from npuops.hostsched.reactive_options import BOUNDS, NAMES, ReactiveOptions, from_vector, load_reactive

COUNT = len(NAMES)


def test_every_number_has_bounds_and_a_tuner_can_turn_at_most_thirty() -> None:
    assert tuple(BOUNDS) == NAMES
    assert COUNT <= 30


@given(st.lists(st.floats(0, 1), min_size=COUNT, max_size=COUNT))
def test_a_vector_and_its_options_are_the_same(values: list[float]) -> None:
    options = from_vector(values)
    assert np.allclose(options.vector(), values, atol=1e-9)


@given(st.lists(st.floats(-1e6, 1e6), min_size=COUNT, max_size=COUNT))
def test_a_tuner_may_step_over_the_edge(values: list[float]) -> None:
    vector = from_vector(values).vector()
    assert ((vector >= -1e-12) & (vector <= 1 + 1e-12)).all()


@pytest.mark.parametrize("values", [[], [0.5] * (COUNT + 1), [float("nan")] * COUNT])
def test_a_vector_that_is_none_is_refused(values: list[float]) -> None:
    with pytest.raises(OptionError):
        from_vector(values)


def test_options_survive_their_file(tmp_path: Path) -> None:
    options = from_vector(np.linspace(0, 1, COUNT))
    path = tmp_path / "reactive.toml"
    path.write_text(options.to_toml())
    assert load_reactive(path) == options


def test_a_misspelt_key_and_a_number_out_of_bounds_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "reactive.toml"
    path.write_text("probe_ms = 3.0\n")
    with pytest.raises(OptionError) as caught:
        load_reactive(path)
    assert "probe_us" in caught.value.advice + caught.value.message
    path.write_text("probe_us = 3.0\n")
    with pytest.raises(OptionError) as caught:
        load_reactive(path)
    assert "probe_us" in caught.value.message


def test_defaults_lie_within_their_bounds() -> None:
    vector = ReactiveOptions().vector()
    assert len(vector) == len(fields(ReactiveOptions))
    assert ((vector >= 0) & (vector <= 1)).all()
