from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from npuops.server.warm_pool import BACK_OFF_S, LoadedModel, back_off_s, expired, victim

MODELS = st.lists(
    st.builds(
        LoadedModel,
        name=st.text("abc", min_size=1, max_size=3),
        in_flight=st.integers(0, 2),
        last_used_us=st.integers(0, 10),
        keep_alive_s=st.none() | st.floats(1e-6, 1e-5),
        busy=st.booleans(),
    ),
    max_size=6,
    unique_by=lambda model: model.name,
)


@given(models=MODELS)
def test_the_victim_is_the_idle_model_that_was_not_used_for_the_longest_time(models: list[LoadedModel]) -> None:
    idle = {model.name: model.last_used_us for model in models if not model.in_flight and not model.busy}
    name = victim(models)
    assert (name is None) == (not idle)
    assert name is None or idle[name] == min(idle.values())


@given(models=MODELS, now_us=st.integers(10, 30))
def test_only_idle_models_beyond_their_time_leave(models: list[LoadedModel], now_us: int) -> None:
    leaving = set(expired(models, now_us))
    for model in models:
        over = model.keep_alive_s is not None and now_us - model.last_used_us >= model.keep_alive_s * 1e6
        assert (model.name in leaving) == (over and not model.in_flight and not model.busy)


def test_failures_in_a_row_are_left_alone_for_longer_and_longer_up_to_a_minute() -> None:
    waits = [back_off_s(failures) for failures in range(1, 20)]
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (1.0, BACK_OFF_S[-1])
