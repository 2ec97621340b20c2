from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npuops.errors import OptionError
from npuops.vnpu.tensors import DTYPES, SEGMENT_LIMIT_BYTES, TensorSpec, layout_of

specs = st.lists(
    st.builds(
        TensorSpec,
        st.text("abcdef", min_size=1, max_size=8),
        st.sampled_from(sorted(DTYPES)),
        st.lists(st.integers(0, 7), max_size=4).map(tuple),
    ),
    max_size=6,
    unique_by=lambda spec: spec.name,
)


@given(inputs=specs, outputs=specs, slots=st.integers(1, 5))
def test_tensors_lie_in_their_slot_on_lines_of_their_own(
    inputs: list[TensorSpec], outputs: list[TensorSpec], slots: int
) -> None:
    layout = layout_of(inputs, outputs, slots)
    placed = sorted((*layout.inputs, *layout.outputs), key=lambda each: (each.offset, each.spec.nbytes))
    assert len(placed) == len(inputs) + len(outputs)
    for before, after in pairwise(placed):
        assert before.offset + before.spec.nbytes <= after.offset
    assert all(each.offset % 64 == 0 and each.offset + each.spec.nbytes <= layout.slot_bytes for each in placed)
    assert layout.nbytes == max(1, slots * layout.slot_bytes)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (TensorSpec("x", "string", (1,)), "string"),
        (TensorSpec("x", "object", (1,)), "object"),
        (TensorSpec("x", "int8", (-1,)), "negative"),
        (TensorSpec("x", "int8", (SEGMENT_LIMIT_BYTES + 1,)), "shared memory"),
        (TensorSpec("x", "int8", (2**62, 2**62, 2**62)), "shared memory"),
        (TensorSpec("x", "int8", (0, 2**62)), "shared memory"),
        (TensorSpec("x", "int8", (0, 2**64 - 1)), "shared memory"),
        (TensorSpec("x", "int8", (1,) * 33), "33 dimensions"),
    ],
)
def test_what_memory_cannot_hold_is_refused(spec: TensorSpec, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        layout_of([spec], [], 1)


def test_names_are_unique_among_inputs_and_slots_are_counted() -> None:
    twice = [TensorSpec("x", "int8", (1,)), TensorSpec("x", "int8", (2,))]
    with pytest.raises(OptionError, match="two inputs are called 'x'"):
        layout_of(twice, [], 1)
    for slots in (0, -1, 65):
        with pytest.raises(OptionError, match="slots"):
            layout_of([], [], slots)
    assert layout_of(twice[:1], twice[:1], 1).slot_bytes == 128  # an output may be called like an input
