"""Tensors in JSON become exactly the bytes that the binary form would have, or an error that names the tensor."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from npuops.errors import DataError, NpuopsError
from npuops.runtime.bytes_tensor import join_elements
from npuops.runtime.signature import Port, Signature
from npuops.server.datatypes import DATATYPES, Datatype, to_bytes
from npuops.server.infer_json import JsonReader
from npuops.server.plan_cache import PlanCache

WITH_JSON = [each for each in DATATYPES.values() if each.has_json]


def plans_for(*dtypes: str, shape: tuple[int, ...] | None = None) -> PlanCache:
    """Of a model that takes tensors `x0`, `x1`, … of any shape (or of this one)."""
    inputs = tuple(Port(name=f"x{at}", dtype=dtype, shape=shape) for at, dtype in enumerate(dtypes))
    return PlanCache(
        Signature(inputs=inputs, outputs=(Port(name="y", dtype="float32", shape=None),), batched=False, max_rows=1),
        max_request_bytes=1 << 20,
    )


def request(word: str, shape: list[int], data: object, **more: Any) -> bytes:
    return orjson.dumps(
        {"inputs": [{"name": "x0", "shape": shape, "datatype": word, "data": data, **more}]},
        option=orjson.OPT_SERIALIZE_NUMPY,
    )


def read(word: str, shape: list[int], data: object) -> bytes:
    found = JsonReader().read(request(word, shape, data), plans_for(DATATYPES[word].dtype)).data[0]
    assert found is not None
    return found


def arrays_of(datatype: Datatype) -> st.SearchStrategy[NDArray[Any]]:
    shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
    if datatype.word == "BYTES":
        texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.sampled_from(["[", "]", '"', "\\"])
        return shapes.flatmap(
            lambda shape: st.lists(texts, min_size=prod(shape), max_size=prod(shape)).map(
                lambda found: np.array([*found, None], object)[:-1].reshape(shape)
            )
        )
    return hnp.arrays(
        datatype.wire,
        shapes,
        elements={"allow_nan": False, "allow_infinity": False} if datatype.wire.kind == "f" else None,
    )


@given(st.data())
def test_json_flat_or_nested_and_binary_are_the_same(data: st.DataObject) -> None:
    datatype = data.draw(st.sampled_from(WITH_JSON))
    array = data.draw(arrays_of(datatype))
    flat = array.reshape(-1).tolist()
    written = data.draw(st.sampled_from([flat, array.tolist() if array.ndim else flat]))
    if not array.size and written is not flat and b"[]" not in orjson.dumps(written):
        written = flat
    assert read(datatype.word, list(array.shape), written) == to_bytes(array, datatype)


@pytest.mark.parametrize(
    ("word", "values"),
    [
        ("INT64", [2**53 + 1, -(2**63), 2**63 - 1]),
        ("UINT64", [2**64 - 1, 2**53 + 1, 0]),
        ("FP64", [0.1, 5e-324, 1.7976931348623157e308]),
        ("FP32", [3.4028234663852886e38, 1e-45, 16777217]),
    ],
)
def test_numbers_at_the_edge_are_exact(word: str, values: list[float]) -> None:
    wire = DATATYPES[word].wire
    assert read(word, [3], values) == np.array(values, wire).tobytes()


@pytest.mark.parametrize(
    ("word", "shape", "data", "words"),
    [
        ("INT8", [2], [1, 300], "element 1 of input 'x0' is 300, which is not INT8"),
        ("UINT8", [1], [-1], "is -1, which is not UINT8"),
        ("UINT64", [1], [-1], "is -1, which is not UINT64"),
        ("INT64", [1], [2**63], "is 9223372036854775808, which is not INT64"),
        ("INT32", [1], [1.5], "is 1.5, which is not INT32"),
        ("INT32", [1], [1.0], "is 1.0, which is not INT32"),
        ("FP32", [1], [1e39], "is 1e+39, which is not FP32"),
        ("FP32", [2], [1, "NaN"], "element 1 of input 'x0' is \"NaN\", which is not FP32"),
        ("FP32", [1], [None], "is null, which is not FP32"),
        ("FP32", [1], [True], "is true, which is not FP32"),
        ("INT8", [1], [False], "is false, which is not INT8"),
        ("FP32", [1], [{"a": 1}], "is an object, which is not FP32"),
        ("BOOL", [1], [1], "is 1: BOOL takes true and false"),
        ("BYTES", [1], [1], "is 1: BYTES takes text"),
        ("BYTES", [1], [["a"]], "is a list: BYTES takes text"),
        ("FP32", [3], [1, 2], "has 2 elements, its shape [3] has 3"),
        ("FP32", [], [1, 2], "has 2 elements, its shape [] has 1"),
        ("BOOL", [3], [True], "has 1 elements"),
        ("FP32", [2, 2], [[1, 2, 3], [4]], "a list of 3 at depth 1, its shape [2, 2] has 2 there"),
        ("FP32", [2, 2], [[1, 2]], "a list of 1 at depth 0"),
        ("FP32", [2, 2], [[1, 2], 3, 4], "a list of 3 at depth 0"),
        ("FP32", [2, 1], [[1], 2], "nested 1 deep at one place"),
        ("FP32", [2], [[1], 2], "is nested deeper than its shape"),
        ("FP32", [2], [1, [2]], "is nested deeper than its shape"),
        ("FP32", [1], [[1]], "is nested deeper than its shape"),
        ("FP32", [2, 2], [[[1], 2], [3, 4]], "is nested deeper than its shape"),
        ("FP32", [1], 1, "'data' of input 'x0' must be a list"),
        ("FP32", [1], None, "'data' of input 'x0' must be a list"),
        ("FP16", [1], [1], "is FP16, which has no form in JSON"),
        ("BF16", [1], [1], "is BF16, which has no form in JSON"),
    ],
)
def test_what_is_not_exactly_the_tensor_is_refused(word: str, shape: list[int], data: object, words: str) -> None:
    with pytest.raises(DataError) as caught:
        read(word, shape, data)
    assert words in caught.value.message


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"7",
        b"[]",
        b"{",
        b'{"inputs":[NaN]}',
        b"\xff",
        b'{"inputs":[1e999]}',
        b"[" * 5000,
        b'{"inputs":7}',
        b"{} {}",
    ],
)
def test_what_is_no_request_is_refused(text: bytes) -> None:
    with pytest.raises(DataError):
        JsonReader().read(text, plans_for("float32"))


def test_a_bracket_hidden_in_an_escape_does_not_hide_a_nested_list() -> None:
    text = request("FP32", [2], [[1], 2], parameters={"a": "Z"}).replace(b"Z", b"\\u005b")
    with pytest.raises(DataError, match="nested deeper"):
        JsonReader().read(text, plans_for("float32"))


def test_brackets_in_names_ids_and_texts_are_no_lists() -> None:
    port = Port(name="a[0]", dtype="float32", shape=(2,))
    words = Port(name="w", dtype="string", shape=(2,))
    plans = PlanCache(
        Signature(inputs=(port, words), outputs=(port,), batched=False, max_rows=1), max_request_bytes=1000
    )
    document = {
        "id": "[[",
        "inputs": [
            {"name": "w", "shape": [2], "datatype": "BYTES", "data": ["[", "]["]},
            {"name": "a[0]", "shape": [2], "datatype": "FP32", "data": [1, 2]},
        ],
        "outputs": [{"name": "a[0]"}],
        "parameters": {"[": "["},
    }
    found = JsonReader().read(orjson.dumps(document), plans)
    assert found.id == b'"[["'
    assert list(found.data) == [join_elements([b"[", b"]["]), np.array([1, 2], "f4").tobytes()]


def test_some_inputs_may_be_json_and_others_follow_as_bytes() -> None:
    document = {
        "inputs": [
            {"name": "x1", "shape": [2], "datatype": "INT16", "parameters": {"binary_data_size": 4}},
            {"name": "x0", "shape": [2], "datatype": "FP32", "data": [1, 2]},
        ],
        "parameters": {"binary_data_output": True},
    }
    found = JsonReader().read(orjson.dumps(document), plans_for("float32", "int16"))
    parts = found.plan.gather(memoryview(b"abcd"), found.data)
    assert list(map(bytes, parts)) == [np.array([1, 2], "f4").tobytes(), b"abcd"]


def test_a_plan_is_shared_by_requests_that_differ_in_data_and_id_alone() -> None:
    reader, plans = JsonReader(), plans_for("float32")
    base = {"name": "x0", "shape": [2], "datatype": "FP32", "data": [1, 2]}
    first = reader.read(orjson.dumps({"id": "1", "inputs": [base]}), plans)
    second = reader.read(orjson.dumps({"inputs": [{**base, "data": [3, 4.5]}]}), plans)
    assert first.plan is second.plan
    assert (first.id, second.id) == (b'"1"', b"")
    for other in (
        {"inputs": [{**base, "shape": [2, 1]}]},
        {"inputs": [base], "parameters": {"priority": 1}},
        {"inputs": [base], "outputs": [{"name": "y", "parameters": {"classification": 1}}]},
    ):
        assert reader.read(orjson.dumps(other), plans).plan is not first.plan


@pytest.mark.parametrize("key", ["id", "model_name"])
def test_values_that_are_equal_in_python_are_different_requests(key: str) -> None:
    reader, plans = JsonReader(), plans_for("float32")
    base = {"name": "x0", "shape": [1], "datatype": "FP32", "data": [1]}
    reader.read(orjson.dumps({"inputs": [base], "model_version": 1, "id": "1"}), plans)
    with pytest.raises(DataError):
        reader.read(orjson.dumps({"inputs": [base], "id": 1, "unknown": key}), plans)


def test_a_reader_goes_on_after_errors_that_somebody_keeps() -> None:
    reader, plans = JsonReader(), plans_for("float32")
    kept = []
    for text in (request("FP32", [1], ["a"]), b"{", request("FP32", [1], [1], shpe=1), request("FP64", [1], [1])):
        with pytest.raises(NpuopsError) as caught:
            reader.read(text, plans)
        kept.append(caught)
        assert reader.read(request("FP32", [1], [7]), plans).data == [np.float32(7).tobytes()]


def test_a_long_text_is_read_and_so_is_the_next() -> None:
    reader = JsonReader()
    plans = PlanCache(
        Signature(inputs=(Port(name="x0", dtype="float64", shape=(-1,)),), outputs=(), batched=False, max_rows=1),
        max_request_bytes=1 << 30,
    )
    values = np.random.default_rng(0).random(300_000)
    for _ in range(2):
        assert reader.read(request("FP64", [values.size], values), plans).data == [values.tobytes()]


VALID = orjson.dumps(
    {
        "id": "1",
        "parameters": {"timeout": 5},
        "inputs": [
            {"name": "x0", "shape": [2, 2], "datatype": "FP32", "data": [[1.5, 2], [3, 4]]},
            {"name": "x1", "shape": [2], "datatype": "BYTES", "data": ["a[", "b\u00e9"]},
            {"name": "x2", "shape": [1], "datatype": "BOOL", "data": [True]},
        ],
        "outputs": [{"name": "y", "parameters": {"classification": 1}}],
    }
)
EDITS = st.lists(
    st.tuples(
        st.integers(0, len(VALID)),
        st.integers(0, 4),
        st.binary(max_size=3) | st.sampled_from([b"[", b"]", b"null", b'"', b",", b"-1", b"1e400", b"{}", b"\\u005b"]),
    ),
    min_size=1,
    max_size=3,
)


@settings(max_examples=400)
@given(EDITS)
def test_a_mutated_request_is_read_or_refused_and_never_anything_else(edits: list[tuple[int, int, bytes]]) -> None:
    text = VALID
    for at, cut, put in edits:
        text = text[:at] + put + text[at + cut :]
    plans = plans_for("float32", "string", "bool")
    try:
        found = JsonReader().read(text, plans)
        parts = found.plan.gather(memoryview(b""), found.data)
    except NpuopsError:
        return
    assert [len(part) for part, size in zip(parts, found.plan.form.sizes, strict=True) if size >= 0] == [
        size for size in found.plan.form.sizes if size >= 0
    ]
