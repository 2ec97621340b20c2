"""A JSON request whose frame is known means what it means when it is read as a whole, whatever stands in it."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npuops.errors import NpuopsError
from npuops.runtime.signature import Port, Signature
from npuops.server.infer_json import JsonReader
from npuops.server.json_frame import FRAMES_LIMIT, Frames
from npuops.server.plan_cache import PlanCache

KINDS = {"FP32": "float32", "INT64": "int64", "UINT8": "uint8", "FP64": "float64", "BOOL": "bool", "BYTES": "string"}


def plans_for(*words: str) -> PlanCache:
    inputs = tuple(Port(name=f"x{at}", dtype=KINDS[word], shape=None) for at, word in enumerate(words))
    outputs = (Port(name="y", dtype="float32", shape=None),)
    return PlanCache(Signature(inputs=inputs, outputs=outputs, batched=False, max_rows=1), max_request_bytes=1 << 20)


def tensor(at: int, word: str, shape: list[int], data: object) -> dict[str, Any]:
    return {"name": f"x{at}", "shape": shape, "datatype": word, "data": data}


def outcome(reader: JsonReader, text: bytes, plans: PlanCache) -> object:
    """What a request is read as, with its plan; or the words of its error."""
    try:
        found = reader.read(text, plans)
    except NpuopsError as error:
        return str(error)
    return found.plan, [*found.data], found.id


def is_known(frames: Frames, text: bytes) -> bool:
    return frames.find(text) is not None


def learnt(text: bytes, plans: PlanCache) -> Frames:
    frames = Frames()
    found = JsonReader().read(text, plans)
    frames.learn(text, found.plan, found.id)
    return frames


WRITERS = {
    "orjson": orjson.dumps,
    "json": lambda document: json.dumps(document).encode(),
    "indented": lambda document: json.dumps(document, indent=1).encode(),
}


@st.composite
def documents(draw: st.DrawFn, words: list[str]) -> dict[str, Any]:
    """Requests of few kinds, so that many share a frame; some do not fit."""
    sizes = draw(st.sampled_from([[2], [2, 2], [1, 2]]))
    numbers = st.sampled_from([0, 1, -1, 2.5, 300, 1e39, 2**63, None, "[", True, [1], {}])
    usual = st.sampled_from([0, 1, 7])

    def data() -> Any:
        one = usual if draw(st.integers(0, 4)) else numbers
        flat = [draw(one) for _ in range(4 if sizes == [2, 2] else 2)]
        nested = {(2,): flat, (1, 2): [flat], (2, 2): [flat[:2], flat[2:]]}[tuple(sizes)]
        return draw(st.sampled_from([flat, nested, nested, flat[1:], [nested]]))

    inputs = [tensor(at, word, sizes, data()) for at, word in enumerate(words)]
    if draw(st.booleans()):
        inputs = inputs[::-1]
    if draw(st.booleans()):
        inputs = [{"name": each["name"], "data": each["data"], **each} for each in inputs]  # data before the rest
    identity = draw(st.sampled_from([None, "1", "22", "é", "\\", '"data":[1]', 7]))
    document: dict[str, Any] = {"inputs": inputs}
    if draw(st.booleans()):
        document["parameters"] = {"data": draw(st.sampled_from(["data", '"data":']))}
    if draw(st.booleans()):
        document["outputs"] = [{"name": "y"}]
    if identity is None:
        return document
    return {"id": identity, **document} if draw(st.booleans()) else {**document, "id": identity}


@settings(max_examples=100, deadline=None)
@given(st.data(), st.sampled_from(list(WRITERS)))
def test_whatever_was_read_before_a_text_is_read_as_by_a_reader_that_knows_nothing(
    data: st.DataObject, writer: str
) -> None:
    words = data.draw(st.lists(st.sampled_from(list(KINDS)), min_size=1, max_size=3))
    plans, reader = plans_for(*words), JsonReader()
    edits = st.tuples(
        st.integers(0, 300),
        st.integers(0, 3),
        st.sampled_from(
            [b"", b"]", b"[", b"1", b",", b'"', b"\xef\xbb\xbf", b"\\", b"}", b" ", b"\xff", b'"data":[9],']
        ),
    )
    for _ in range(6):
        text = WRITERS[writer](data.draw(documents(words)))
        for at, cut, put in data.draw(st.lists(edits, max_size=2)):
            text = text[:at] + put + text[at + cut :]
        assert outcome(reader, text, plans) == outcome(JsonReader(), text, plans)


@pytest.mark.parametrize("writer", list(WRITERS))
@pytest.mark.parametrize("nested", [False, True])
def test_the_next_request_of_a_client_is_known(writer: str, nested: bool) -> None:
    def text(value: float, last: dict[str, str] | None = None, **more: object) -> bytes:
        row = np.full(4, value).reshape((2, 2) if nested else 4).tolist()
        first, second = tensor(0, "FP32", [2, 2], row), tensor(1, "INT64", [1], [int(value)])
        return WRITERS[writer]({**more, "inputs": [second, first], **(last or {})})

    plans = plans_for("FP32", "INT64")
    for more in ({}, {"id": "first"}):
        frames = learnt(text(1, **more), plans)
        assert is_known(frames, text(300.25, **({"id": "the next one"} if more else {})))
        assert not is_known(frames, text(1, parameters={"timeout": 1}))
    frames = learnt(text(1, {"id": "first"}), plans)
    for like in (text(300.25, {"id": "the next one"}), text(1)):
        assert is_known(frames, like)
    assert not is_known(frames, text(1, {"id": "last"}).replace(b"{", b'{"id":"and in front",', 1))
    reader = JsonReader()
    for value in (1, 2.5, 300):
        found = reader.read(text(value, id=str(value)), plans)
        assert reader.read(text(value, {"id": str(value)}), plans) == found
        assert found.data == [np.array([int(value)]).tobytes(), np.full(4, value, "f4").tobytes()]
        assert found.id == f'"{value}"'.encode()


@pytest.mark.parametrize(
    "document",
    [
        {"inputs": [tensor(0, "FP32", [1], [1])], "id": "between", "parameters": {"priority": 1}},
        {"id": "\u00e9", "inputs": [tensor(0, "FP32", [1], [1])]},
        {"parameters": {"a": "\\"}, "inputs": [tensor(0, "FP32", [1], [1])]},
        {"parameters": {"data": "x"}, "inputs": [tensor(0, "FP32", [1], [1])]},
        {"inputs": [tensor(0, "FP32", [1], [1])], "parameters": {"a": "b" * 5000}},
    ],
    ids=["id between", "odd id", "escape", "another data", "long"],
)
def test_a_text_that_leaves_doubt_is_not_learnt(document: dict[str, Any]) -> None:
    text = orjson.dumps(document)
    assert not is_known(learnt(text, plans_for("FP32")), text)


@pytest.mark.parametrize(("word", "value"), [("BOOL", True), ("BYTES", "a")])
def test_what_is_no_number_is_not_learnt(word: str, value: object) -> None:
    text = orjson.dumps({"inputs": [tensor(0, word, [1], [value])]})
    assert not is_known(learnt(text, plans_for(word)), text)


def test_a_frame_of_one_model_is_not_anothers() -> None:
    reader, text = JsonReader(), orjson.dumps({"inputs": [tensor(0, "FP32", [1], [1])]})
    first, second = plans_for("FP32"), plans_for("FP32", "FP32")
    for _ in range(2):
        assert reader.read(text, first).data == [np.float32(1).tobytes()]
        with pytest.raises(NpuopsError, match="'x1' is missing"):
            reader.read(text, second)


def test_clients_that_write_each_request_otherwise_cost_no_memory() -> None:
    plans, frames = plans_for("FP32"), Frames()
    texts = [
        orjson.dumps({"parameters": {"n": number}, "inputs": [tensor(0, "FP32", [1], [1])]})
        for number in range(FRAMES_LIMIT + 1)
    ]
    ends = [
        orjson.dumps({"inputs": [tensor(0, "FP32", [1], [1])], "parameters": {"n": number}}) for number in range(20)
    ]
    for text in (*ends, *texts):
        found = JsonReader().read(text, plans)
        frames.learn(text, found.plan, found.id)
    assert sum(is_known(frames, text) for text in texts) < FRAMES_LIMIT
    assert is_known(frames, texts[-1])
    fresh = Frames()
    for text in ends:
        fresh.learn(text, JsonReader().read(text, plans).plan, b"")
    assert sum(is_known(fresh, text) for text in ends) == 4


def test_what_an_unloaded_version_left_is_let_go() -> None:
    reader, text = JsonReader(), orjson.dumps({"inputs": [tensor(0, "FP32", [1], [1])]})
    for _ in range(3):
        reader.read(text, plans_for("FP32"))
    assert not len(reader._frames)


@pytest.mark.parametrize(
    ("shape", "data", "words"),
    [
        ([2], "[[1],2]", "nested deeper"),
        ([2], "[1,[2]]", "nested deeper"),
        ([1], "[[1]]", "nested deeper"),
        ([2, 2], "[[[1],2],[3,4]]", "nested deeper"),
        ([2, 2], "[[1,2],[3,4],[]]", "a list of 3 at depth 0"),
        ([2, 2], "[[1,2,3],[4]]", "a list of 3 at depth 1"),
        ([1], "\ufeff[1]", "not valid JSON"),
        ([1], "[1] [1]", "not valid JSON"),
        ([1], "[1],", "not valid JSON"),
        ([1], "", "not valid JSON"),
        ([1], "7", "must be a list"),
        ([2], "[1e39,1]", "is 1e+39, which is not FP32"),
        ([2], "[1]", "has 1 elements"),
    ],
)
def test_data_that_do_not_fit_are_refused_in_a_known_frame_too(shape: list[int], data: str, words: str) -> None:
    reader, plans = JsonReader(), plans_for("FP32")
    good = orjson.dumps({"inputs": [tensor(0, "FP32", shape, [1] * (shape[0] ** len(shape)))]})
    start, end = good.index(b'"data":') + 7, good.index(b"}]}")
    assert is_known(learnt(good, plans), good)
    for _ in range(2):
        reader.read(good, plans)
        with pytest.raises(NpuopsError, match=re.escape(words)):
            reader.read(good[:start] + data.encode() + good[end:], plans)


@pytest.mark.parametrize("data", ['"data":[1],"data":[2]', '"data":  [1]', '"data":\n[1]', '"data" :[1]'])
def test_a_key_that_stands_twice_or_apart_from_its_list_is_not_learnt(data: str) -> None:
    text = f'{{"inputs":[{{"name":"x0","shape":[1],"datatype":"FP32",{data}}}]}}'.encode()
    assert JsonReader().read(text, plans_for("FP32")).data == [np.float32(1).tobytes()]
    assert not is_known(learnt(text, plans_for("FP32")), text)
