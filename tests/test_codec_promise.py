"""One tensor, four ways in and three ways out: whatever the form, it is the bytes that numpy has."""

from __future__ import annotations

import json
from math import prod
from typing import Any

import ml_dtypes
import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from tritonclient import grpc, http
from tritonclient.grpc import service_pb2

from npuops.errors import DataError
from npuops.runtime.job import Completion
from npuops.runtime.signature import Port, Signature
from npuops.server.datatypes import DATATYPES, Datatype, to_bytes
from npuops.server.grpc_decode import Skeletons
from npuops.server.grpc_encode import response_parts
from npuops.server.infer_json import JsonReader
from npuops.server.infer_plan import InferPlan, plan_of
from npuops.server.infer_response import answer
from npuops.server.plan_cache import PlanCache

LIMIT = 1 << 20
CONTENTS = {
    **{f"{sign}INT{bits}": f"{sign.lower()}int_contents" for sign in ("", "U") for bits in (8, 16, 32)},
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
    "BOOL": "bool_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def signature_of(words: list[str]) -> Signature:
    """Each input comes back as an output."""
    ends = [
        tuple(Port(name=f"{end}{at}", dtype=DATATYPES[word].dtype, shape=None) for at, word in enumerate(words))
        for end in "xy"
    ]
    return Signature(inputs=ends[0], outputs=ends[1], batched=False, max_rows=1)


def arrays(word: str) -> st.SearchStrategy[NDArray[Any]]:
    shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
    if word == "BYTES":
        texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5).map(str.encode)
        return shapes.flatmap(
            lambda shape: st.lists(texts, min_size=prod(shape), max_size=prod(shape)).map(
                lambda found: np.array([*found, None], object)[:-1].reshape(shape)
            )
        )
    finite = {"allow_nan": False, "allow_infinity": False} if DATATYPES[word].wire.kind == "f" else None
    if word == "BF16":
        return hnp.arrays("u2", shapes).map(lambda bits: bits.view(ml_dtypes.bfloat16))
    return hnp.arrays(DATATYPES[word].wire, shapes, elements=finite)


TENSORS = st.lists(
    st.sampled_from(list(DATATYPES)).flatmap(lambda word: st.tuples(st.just(word), arrays(word))),
    min_size=1,
    max_size=4,
)


def wire_of(word: str, array: NDArray[Any]) -> bytes:
    return array.tobytes() if word == "BF16" else to_bytes(array, DATATYPES[word])


def values_of(word: str, array: NDArray[Any], *, nested: bool) -> object:
    found = array if nested and array.ndim and array.size else array.reshape(-1)
    return json.loads(json.dumps(found.tolist(), default=bytes.decode)) if word == "BYTES" else found.tolist()


def given_as_json(tensors: list[tuple[str, NDArray[Any]]], *, nested: bool, binary: bool) -> tuple[bytes, bytes]:
    """A request over HTTP; what has no form in JSON, or all of it, as bytes behind."""
    inputs, behind = [], b""
    for at, (word, array) in enumerate(tensors):
        head: dict[str, Any] = {"name": f"x{at}", "shape": list(array.shape), "datatype": word}
        if binary or not DATATYPES[word].has_json:
            data = wire_of(word, array)
            behind += data
            head["parameters"] = {"binary_data_size": len(data)}
        else:
            head["data"] = values_of(word, array, nested=nested)
        inputs.append(head)
    return orjson.dumps({"id": "7", "inputs": inputs, "parameters": {"binary_data_output": True}}), behind


def given_as_message(tensors: list[tuple[str, NDArray[Any]]], *, raw: bool) -> bytes:
    message = service_pb2.ModelInferRequest(model_name="m", id="7")
    for at, (word, array) in enumerate(tensors):
        entry = message.inputs.add(name=f"x{at}", datatype=word, shape=array.shape)
        if raw:
            message.raw_input_contents.append(wire_of(word, array))
        else:
            getattr(entry.contents, CONTENTS[word]).extend(array.reshape(-1).tolist())
    return bytes(message.SerializeToString())


@settings(max_examples=100, deadline=None)
@given(TENSORS, st.booleans())
def test_every_way_in_gives_the_bytes_that_numpy_has(tensors: list[tuple[str, NDArray[Any]]], nested: bool) -> None:
    words = [word for word, _ in tensors]
    signature, wanted = signature_of(words), [wire_of(word, array) for word, array in tensors]
    plans, reader, skeletons = PlanCache(signature, max_request_bytes=LIMIT), JsonReader(), Skeletons()
    for _ in range(2):  # once as new, once as known
        for binary in (False, True):
            head, behind = given_as_json(tensors, nested=nested, binary=binary)
            plan = plans.of_header(head)
            if plan.has_json:
                plan, data, identity = reader.read(head, plans)
                assert identity == b'"7"'
                assert list(map(bytes, plan.gather(memoryview(behind), data))) == wanted
            else:
                assert list(map(bytes, plan.parts(memoryview(behind)))) == wanted
        for raw in (False, True):
            if not raw and not CONTENTS.keys() >= set(words):
                continue
            asked, name, pieces = skeletons.read(given_as_message(tensors, raw=raw))
            assert name == "7"
            plan = plan_of(asked.head(), signature, max_request_bytes=LIMIT)
            assert list(map(bytes, plan.arrange(pieces))) == wanted


def finished(tensors: list[tuple[str, NDArray[Any]]]) -> Completion:
    parts = [wire_of(word, array) for word, array in tensors]
    return Completion(parts, tuple(array.shape for _, array in tensors), "cpu", fell_back=False)


def asking(tensors: list[tuple[str, NDArray[Any]]], outputs: list[dict[str, Any]]) -> InferPlan:
    inputs = [
        {
            "name": f"x{at}",
            "shape": list(array.shape),
            "datatype": word,
            "parameters": {"binary_data_size": len(wire_of(word, array))},
        }
        for at, (word, array) in enumerate(tensors)
    ]
    plans = PlanCache(signature_of([word for word, _ in tensors]), max_request_bytes=LIMIT)
    return plans.of_header(orjson.dumps({"inputs": inputs, "outputs": outputs}))


def same(found: NDArray[Any] | None, word: str, array: NDArray[Any]) -> None:
    assert found is not None
    assert found.shape == array.shape
    if word == "BYTES":
        texts = [each if isinstance(each, bytes) else each.encode() for each in found.reshape(-1)]
        assert texts == array.reshape(-1).tolist()
    else:
        assert found.dtype == array.dtype
        assert found.tobytes() == array.tobytes()


@settings(max_examples=100, deadline=None)
@given(TENSORS, st.data())
def test_every_way_out_is_read_by_tritons_clients_as_what_numpy_has(
    tensors: list[tuple[str, NDArray[Any]]], data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(len(tensors))))
    chosen = order[: data.draw(st.integers(1, len(order)))]
    texts = {at for at in chosen if DATATYPES[tensors[at][0]].has_json and data.draw(st.booleans())}
    outputs = [{"name": f"y{at}", "parameters": {"binary_data": at not in texts}} for at in chosen]
    plan, completion = asking(tensors, outputs), finished(tensors)
    for _ in range(2):
        found = answer(plan, "m", "1", completion, b'"7"')
        body = b"".join((found.head, *found.parts))
        length = len(found.head) if plan.answers_binary else None
        result = http.InferenceServerClient.parse_response_body(body, header_length=length)
        message = service_pb2.ModelInferResponse.FromString(
            b"".join(response_parts(_raw(tensors, chosen), "m", "1", completion, "7"))
        )
        assert (result.get_response()["id"], message.id) == ("7", "7")
        assert [each["name"] for each in result.get_response()["outputs"]] == [f"y{at}" for at in chosen]
        for at in chosen:
            same(result.as_numpy(f"y{at}"), *tensors[at])
            same(grpc.InferResult(message).as_numpy(f"y{at}"), *tensors[at])


def _raw(tensors: list[tuple[str, NDArray[Any]]], chosen: list[int]) -> InferPlan:
    return asking(tensors, [{"name": f"y{at}", "parameters": {"binary_data": True}} for at in chosen])


@given(
    st.sampled_from([each for each in DATATYPES.values() if each.wire.kind in "iu" and each.word != "BF16"]), st.data()
)
def test_a_typed_number_beyond_its_datatype_is_refused_and_never_wrapped_around(
    datatype: Datatype, data: st.DataObject
) -> None:
    message = service_pb2.ModelInferRequest(model_name="m")
    field = CONTENTS[datatype.word]
    wide = {"int_contents": "i4", "uint_contents": "u4", "int64_contents": "i8", "uint64_contents": "u8"}[field]
    held = np.iinfo(wide)
    values = data.draw(st.lists(st.integers(int(held.min), int(held.max)), max_size=4))
    entry = message.inputs.add(name="x0", datatype=datatype.word, shape=[len(values)])
    getattr(entry.contents, field).extend(values)
    limits = np.iinfo(datatype.wire)
    wire = message.SerializeToString()
    if all(limits.min <= value <= limits.max for value in values):
        assert Skeletons().read(wire)[2] == [np.array(values, datatype.wire).tobytes()]
    else:
        with pytest.raises(DataError, match=f"not {datatype.word}"):
            Skeletons().read(wire)
