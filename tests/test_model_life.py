from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from npuops.server.model_life import NEXT, ImpossibleEventError, LifeEvent, ModelState, diagram, next_state


@pytest.mark.parametrize(("state", "event"), list(itertools.product(ModelState, LifeEvent)))
def test_a_pair_outside_of_the_table_is_an_error(state: ModelState, event: LifeEvent) -> None:
    if (state, event) in NEXT:
        assert next_state(state, event) is NEXT[state, event]
    else:
        with pytest.raises(ImpossibleEventError, match=f"{event} cannot happen"):
            next_state(state, event)


def test_from_everywhere_a_version_can_be_loaded_and_unloaded() -> None:
    for goal in (ModelState.READY, ModelState.UNAVAILABLE):
        for state in ModelState:
            seen = {state}
            while goal not in seen:
                more = {to for (begin, _), to in NEXT.items() if begin in seen} - seen
                assert more, f"{goal} cannot be reached from {state}"
                seen |= more


def test_the_document_draws_the_table() -> None:
    page = Path(__file__).resolve().parent.parent / "docs" / "serving.md"
    assert diagram() in page.read_text(encoding="utf-8")
