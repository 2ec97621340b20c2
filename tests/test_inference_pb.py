from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf import descriptor
from grpc_health.v1 import health_pb2
from tritonclient.grpc import model_config_pb2, service_pb2

from npuops.server.inference_pb import HEALTH_MESSAGES, MESSAGES, UNARY_METHODS, ModelInferRequest
from npuops.server.message_table import messages

LISTED = {"grpc.health.v1.HealthListRequest", "grpc.health.v1.HealthListResponse"}
"""Newer than the health package of grpcio that is installed here."""

Field = tuple[str, int, int, bool, str, str]


def flat(types: Any) -> Iterator[Any]:
    for message in types:
        yield message
        yield from flat(message.nested_types)


THEIRS = {
    message.full_name: message
    for file in (service_pb2, model_config_pb2, health_pb2)
    for message in flat(file.DESCRIPTOR.message_types_by_name.values())
}
OURS = {
    message.full_name: message
    for kind in (*MESSAGES.values(), *HEALTH_MESSAGES.values())
    for message in flat([kind.DESCRIPTOR])
}


def facts(field: descriptor.FieldDescriptor) -> Field:
    kind = field.message_type or field.enum_type
    choice = field.containing_oneof
    return (
        field.name,
        field.number,
        field.type,
        field.is_repeated,
        kind.full_name if kind else "",
        choice.name if choice else "",
    )


@pytest.mark.parametrize("name", [name for name in OURS if not name.startswith(tuple(LISTED))])
def test_every_field_has_the_number_and_type_that_others_know_it_by(name: str) -> None:
    theirs = {field.name: facts(field) for field in THEIRS[name].fields}
    assert OURS[name].GetOptions().map_entry == THEIRS[name].GetOptions().map_entry
    for field in OURS[name].fields:
        assert facts(field) == theirs[field.name]
        if field.enum_type:
            ours = {value.name: value.number for value in field.enum_type.values}
            known = {
                value.name: value.number
                for other in THEIRS[name].fields
                if other.name == field.name
                for value in other.enum_type.values
            }
            assert ours == known


def test_only_a_models_configuration_is_a_subset() -> None:
    subset = {"ModelConfig", "ModelInput", "ModelOutput", "ModelInstanceGroup", "ModelDynamicBatching"}
    for name, message in OURS.items():
        if name.removeprefix("inference.") not in subset and not name.startswith(tuple(LISTED)):
            assert {field.name for field in message.fields} == {field.name for field in THEIRS[name].fields}


def test_all_methods_of_the_service_are_there() -> None:
    (service,) = service_pb2.DESCRIPTOR.services_by_name.values()
    assert {method.name for method in service.methods} == {*UNARY_METHODS, "ModelStreamInfer"}
    for name in UNARY_METHODS:
        assert {f"{name}Request", f"{name}Response"} <= MESSAGES.keys()


def test_a_clients_request_is_read_and_written_the_same() -> None:
    theirs = service_pb2.ModelInferRequest(model_name="m", raw_input_contents=[b"abc", b""])
    theirs.parameters["timeout"].uint64_param = 7
    theirs.inputs.add(name="x", datatype="FP32", shape=[1, -1]).contents.fp32_contents.extend([1.5, 2])
    ours = ModelInferRequest.FromString(theirs.SerializeToString())
    assert ours.inputs[0].contents.fp32_contents == [1.5, 2]
    assert ours.parameters["timeout"].WhichOneof("parameter_choice") == "uint64_param"
    assert service_pb2.ModelInferRequest.FromString(ours.SerializeToString()) == theirs


def test_a_table_with_a_line_that_is_no_message_is_refused() -> None:
    with pytest.raises(ValueError, match="no field: 'size = 1'"):
        messages("example", "Box: size = 1")
