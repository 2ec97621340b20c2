"""The head of a request: what is read, and what is refused with field and tensor."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npuops.errors import DataError
from npuops.server.infer_request import InferHead, OutputWish, RegionRef, TensorHead, read_head

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
FIELDS = ["id", "parameters", "inputs", "outputs", "name", "shape", "datatype", "data", "binary_data_size"]
REGION = {"shared_memory_region": "r", "shared_memory_byte_size": 8, "shared_memory_offset": 4}


def tensor(**changes: Any) -> dict[str, Any]:
    whole = {"name": "x", "shape": [2, 3], "datatype": "FP32", "data": [], **changes}
    return {key: value for key, value in whole.items() if value is not None}


def request(*inputs: object, **changes: Any) -> dict[str, Any]:
    return {"inputs": list(inputs), **changes}


def test_a_request_is_read_whole() -> None:
    head = read_head(
        request(
            tensor(),
            tensor(name="b", data=None, parameters={"binary_data_size": 24}),
            tensor(name="r", data=None, parameters=REGION),
            id="7",
            model_name="m",
            parameters={"binary_data_output": True, "timeout": 5, "mine": "yes"},
            outputs=[
                {"name": "y"},
                {"name": "z", "parameters": {"binary_data": False, "classification": 3}},
                {"name": "w", "parameters": {**REGION, "binary_data": False}},
            ],
        )
    )
    assert head == InferHead(
        id="7",
        inputs=(
            TensorHead("x", "FP32", (2, 3)),
            TensorHead("b", "FP32", (2, 3), data_bytes=24),
            TensorHead("r", "FP32", (2, 3), region=RegionRef("r", 4, 8)),
        ),
        outputs=(
            OutputWish("y", binary=True),
            OutputWish("z", classes=3),
            OutputWish("w", region=RegionRef("r", 4, 8)),
        ),
        parameters={"binary_data_output": True, "timeout": 5, "mine": "yes"},
        binary_output=True,
    )
    assert [each.is_json for each in head.inputs] == [True, False, False]


def test_null_in_an_optional_field_is_as_if_it_were_not_there() -> None:
    nothing = {"content_type": None, "headers": None, "binary_data_size": None}
    given = {
        **request({**tensor(), "parameters": nothing}),
        "id": None,
        "parameters": {"timeout": None, "binary_data_output": None},
        "outputs": None,
    }
    assert read_head(given) == read_head(request(tensor()))
    given["parameters"], given["outputs"] = None, [{"name": "y", "parameters": {"binary_data": None}}]
    assert read_head(given).outputs == (OutputWish("y"),)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([], "the request is a list, it must be an object"),
        ({}, "has no 'inputs'"),
        ({"inputs": {}}, "'inputs' of the request is an object"),
        (request(tensor(), output=[]), "unknown field 'output'"),
        (request(tensor(), id=7), "'id' of the request is a number"),
        (request(tensor(), parameters=[]), "'parameters' of the request is a list"),
        (request(tensor(), parameters={"a": [None]}), "parameter 'a' of the request is a list"),
        (request(None), "input 0 is null"),
        (request(tensor(), outputs=[None]), "output 0 is null"),
        (request(tensor(), parameters={"binary_data_output": 1}), "'binary_data_output' of the request is a number"),
        (request(7), "input 0 is a number, it must be an object"),
        (request(tensor(name="")), "'name' of input 0 must be"),
        (request(tensor(name=7)), "'name' of input 0 must be"),
        (request(tensor(datatype=None)), "'datatype' of input 'x' is null"),
        (request(tensor(dtype="FP32")), "input 'x' has the unknown field 'dtype'"),
        (request(tensor(shape=None)), "'shape' of input 'x'"),
        (request(tensor(shape=[1, True])), "'shape' of input 'x'"),
        (request(tensor(shape=[1.5])), "'shape' of input 'x'"),
        (request(tensor(shape=[-1])), "input 'x' has a size of -1"),
        (request(tensor(shape=[2**31])), "input 'x' has a size of"),
        (request(tensor(shape=[1] * 33)), "input 'x' has 33 axes"),
        (request(tensor(shape=[2**30, 2**30])), "elements, at most"),
        (request(tensor(data=None)), "input 'x' has no data"),
        (request(tensor(parameters={"binary_data_size": 4})), "'data' and 'binary_data_size'"),
        (request(tensor(data=None, parameters={**REGION, "binary_data_size": 4})), "and 'shared_memory_region'"),
        (request(tensor(data=None, parameters={"binary_data_size": -4})), "of input 'x' is -4"),
        (request(tensor(data=None, parameters={"binary_data_size": True})), "of input 'x' is true"),
        (request(tensor(data=None, parameters={"shared_memory_region": "r"})), "needs 'shared_memory_byte_size'"),
        (request(tensor(data=None, parameters={"shared_memory_byte_size": 4})), "needs 'shared_memory_region'"),
        (request(outputs=[{"name": "y", "data": 1}]), "output 'y' has the unknown field 'data'"),
        (request(outputs=[{"name": "y", "parameters": {"binary_data": "1"}}]), "of output 'y' is a string"),
        (request(outputs=[{"name": "y", "parameters": {"classification": 1.5}}]), "of output 'y' is a number"),
        (request(outputs=[{"name": "y", "parameters": {**REGION, "classification": 1}}]), "which shared memory"),
        (request(outputs=[{"name": "y", "parameters": {**REGION, "binary_data": True}}]), "and for shared memory"),
        (request(*[tensor()] * 1001), "has 1001 tensors"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_what_is_wrong_is_named_with_its_tensor(document: object, words: str) -> None:
    with pytest.raises(DataError) as caught:
        read_head(document)
    assert words in caught.value.message


@given(JSON | st.fixed_dictionaries({"inputs": st.lists(st.dictionaries(st.sampled_from(FIELDS), JSON), max_size=3)}))
def test_any_json_is_read_or_refused_as_data(document: object) -> None:
    try:
        head = read_head(document)
    except DataError:
        return
    assert isinstance(head, InferHead)
