"""The published OpenAPI document: sound, and good enough for a tool that makes requests from it."""

from __future__ import annotations

import json

import jsonschema_rs
import orjson
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from npuops.errors import DataError
from npuops.runtime.job import Completion
from npuops.runtime.signature import Port, Signature
from npuops.server.infer_plan import plan_of
from npuops.server.infer_request import InferHead, OutputWish, read_head
from npuops.server.infer_response import answer
from npuops.server.openapi import openapi_document

DOCUMENT = openapi_document("1.2.3")


def validator(name: str) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(
        {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    )


def test_the_document_is_json_and_its_schemas_are_sound() -> None:
    assert json.loads(json.dumps(DOCUMENT)) == DOCUMENT
    for schema in DOCUMENT["components"]["schemas"].values():
        jsonschema_rs.meta.validate(schema)


def test_every_name_that_is_referred_to_is_there() -> None:
    for reference in {part.split('"')[0] for part in json.dumps(DOCUMENT).split('"$ref": "')[1:]}:
        _, kind, group, name = reference.split("/")
        assert name in DOCUMENT[kind][group]


def test_schemathesis_makes_requests_for_every_operation() -> None:
    schema = schemathesis.openapi.from_dict(DOCUMENT)
    operations = [found.ok() for found in schema.get_all_operations()]
    names = {operation.definition.raw["operationId"] for operation in operations}
    assert len(names) == len(operations), "operation ids are unique"
    assert {"infer", "inferOfVersion", "load", "registerRegion", "metrics", "serverReady"} <= names
    for operation in operations:

        @settings(max_examples=2, database=None, suppress_health_check=list(HealthCheck), deadline=None)
        @given(operation.as_strategy())
        def make(case: schemathesis.Case) -> None:
            assert case.formatted_path.startswith("/")

        make()


NAMED = st.fixed_dictionaries(
    {"name": st.text(min_size=1, max_size=3)},
    optional={
        "parameters": st.dictionaries(
            st.sampled_from(["binary_data", "classification", "x"]), st.integers(0) | st.none()
        )
        | st.none()
    },
)
REQUEST = st.fixed_dictionaries(
    {
        "inputs": st.lists(
            st.fixed_dictionaries(
                {
                    "name": st.text(max_size=3),
                    "shape": st.lists(st.integers(-1, 2**31) | st.floats() | st.none(), max_size=3),
                    "datatype": st.sampled_from(["FP32", "F32"]),
                },
                optional={"data": st.just([]), "other": st.none()},
            ),
            max_size=2,
        )
    },
    optional={
        "id": st.text(max_size=3) | st.integers() | st.none(),
        "outputs": st.lists(NAMED, max_size=2) | st.none(),
        "parameters": st.none()
        | st.dictionaries(st.sampled_from(["timeout", "priority"]), st.none() | st.integers(0, 9)),
        "output": st.none(),
    },
)


@given(REQUEST)
def test_a_request_that_is_read_is_one_that_the_schema_takes(document: object) -> None:
    try:
        head = read_head(document)
    except DataError:
        return
    known = all(tensor.datatype == "FP32" for tensor in head.inputs)
    assert validator("InferRequest").is_valid(document) or not known


@pytest.mark.parametrize("binary", [True, False])
def test_an_answer_is_what_the_schema_promises(binary: bool) -> None:
    signature = Signature(inputs=(), outputs=(Port(name="y", dtype="float32", shape=(1,)),), batched=False, max_rows=1)
    plan = plan_of(
        InferHead(id="", inputs=(), outputs=(OutputWish("y", binary=binary),)), signature, max_request_bytes=1
    )
    head = answer(plan, "m", "1", Completion([bytes(4)], ((1,),), "npu0", fell_back=False), b'"1"').head
    validator("InferResponse").validate(orjson.loads(head))
