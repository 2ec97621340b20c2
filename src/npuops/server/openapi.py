"""The REST surface as an OpenAPI 3.1 document, which the server publishes at `/openapi.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from npuops.server.access import KEY_FIELD, TENANT_FIELD, TIMEOUT_FIELD
from npuops.server.datatypes import DATATYPES
from npuops.server.infer_request import NAME_LIMIT, RANK_LIMIT, SIZE_LIMIT, TENSOR_LIMIT

Schema = dict[str, Any]

_JSON: Final = "application/json"
_BYTES: Final = "application/octet-stream"

_ERRORS: Final[Mapping[str, str]] = {
    "400": "The request is malformed, or does not fit the model.",
    "401": "No API key, or an unknown one.",
    "403": "The tenant is unknown, or may not do this.",
    "404": "No such model, version, region or path.",
    "413": "More bytes than the server takes.",
    "429": "The tenant's share is used up.",
    "500": "The device or the server failed.",
    "503": "The queue is full, or the model is not ready.",
    "504": "The time limit is over.",
}
_RETRYABLE: Final = frozenset({"429", "503"})
_TEXT: Final[Schema] = {"type": "string"}
_NUMBER: Final[Schema] = {"type": "integer", "minimum": 0}
_FLAG: Final[Schema] = {"type": "boolean"}


def openapi_document(version: str) -> dict[str, Any]:
    """The document.

    Args:
        version: of npuops.
    """
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "npuops",
            "version": version,
            "summary": "Open Inference Protocol v2 over HTTP",
            "description": "The protocol with the extensions for binary tensor data, classification, the model "
            "repository, statistics, model configuration and system shared memory.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": [{"name": name} for name in ("server", "models", "repository", "shared memory", "operations")],
        "security": [{}, {"bearer": []}, {"apiKey": []}],
        "paths": {**_server(), **_models(), **_repository(), **_shared_memory(), **_operations()},
        "components": {
            "schemas": _schemas(),
            "parameters": _parameters(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": KEY_FIELD},
            },
        },
    }


def _server() -> dict[str, Any]:
    ready = "Every model's stable version answers; the status code decides."
    return {
        "/v2": {"get": _operation("server", "serverMetadata", "Name, version and extensions.", _ref("ServerMetadata"))},
        "/v2/health/live": {"get": _operation("server", "serverLive", "The process answers.", _ref("Health"))},
        "/v2/health/ready": {"get": _operation("server", "serverReady", ready, _ref("Health"), also={"503": "Health"})},
    }


def _models() -> dict[str, Any]:
    paths: dict[str, Any] = {
        "/v2/models/stats": {"get": _operation("models", "statistics", "Of all models.", _ref("Statistics"))}
    }
    for path, suffix, names in (
        ("/v2/models/{model}", "", ("Model",)),
        ("/v2/models/{model}/versions/{version}", "OfVersion", ("Model", "Version")),
    ):
        calls = {
            "": _operation("models", f"modelMetadata{suffix}", "Inputs and outputs.", _ref("ModelMetadata")),
            "/ready": _operation(
                "models", f"modelReady{suffix}", "It answers.", _ref("ModelHealth"), also={"503": "ModelHealth"}
            ),
            "/config": _operation("models", f"modelConfig{suffix}", "In Triton's words.", {"type": "object"}),
            "/stats": _operation("models", f"modelStatistics{suffix}", "Counts and times.", _ref("Statistics")),
        }
        for ending, call in calls.items():
            paths[path + ending] = {"parameters": _named(*names), "get": call}
        paths[path + "/infer"] = {"parameters": _named(*names), "post": _infer(f"infer{suffix}")}
    return paths


def _infer(name: str) -> Schema:
    operation = _operation("models", name, "Run the model.", _ref("InferResponse"))
    operation["parameters"] = _named("JsonLength", "Tenant", "Timeout")
    operation["requestBody"] = {
        "required": True,
        "content": {_JSON: {"schema": _ref("InferRequest")}, _BYTES: {"schema": _binary("the JSON, then the tensors")}},
    }
    answer = operation["responses"]["200"]
    answer["content"][_BYTES] = {"schema": _binary("the JSON, then the outputs that go out as bytes")}
    answer["headers"] = {
        "Inference-Header-Content-Length": {"description": "Bytes of the JSON, where bytes follow.", "schema": _NUMBER}
    }
    return operation


def _repository() -> dict[str, Any]:
    index = _operation("repository", "index", "All models, loaded or not.", _ref("RepositoryIndex"))
    index["requestBody"] = _body({"type": "object", "properties": {"ready": _FLAG}}, required=False)
    paths: dict[str, Any] = {"/v2/repository/index": {"post": index}}
    for call, words, parameters in (
        ("load", "Load it, or load it anew.", {"config": _TEXT}),
        ("unload", "Take it from service.", {"unload_dependents": _FLAG}),
    ):
        operation = _operation("repository", call, words, None)
        body = {
            "type": "object",
            "properties": {"parameters": {"type": "object", "properties": parameters}},
        }
        operation["requestBody"] = _body(body, required=False)
        paths[f"/v2/repository/models/{{model}}/{call}"] = {"parameters": _named("Model"), "post": operation}
    return paths


def _shared_memory() -> dict[str, Any]:
    tag = "shared memory"
    one = "/v2/systemsharedmemory/region/{region}"
    every = "/v2/systemsharedmemory"
    register = _operation(tag, "registerRegion", "Open a region of /dev/shm.", None)
    register["requestBody"] = _body(
        {
            "type": "object",
            "required": ["key", "byte_size"],
            "properties": {
                "key": _TEXT,
                "offset": {**_NUMBER, "default": 0},
                "byte_size": {"type": "integer", "minimum": 1},
            },
        }
    )
    status = _ref("Regions")
    return {
        f"{every}/status": {"get": _operation(tag, "regions", "All regions.", status)},
        f"{every}/unregister": {"post": _operation(tag, "unregisterRegions", "Forget all.", None)},
        f"{one}/status": {"parameters": _named("Region"), "get": _operation(tag, "region", "One region.", status)},
        f"{one}/register": {"parameters": _named("Region"), "post": register},
        f"{one}/unregister": {
            "parameters": _named("Region"),
            "post": _operation(tag, "unregisterRegion", "Forget it.", None),
        },
    }


def _operations() -> dict[str, Any]:
    metrics = _operation("operations", "metrics", "For Prometheus.", None)
    metrics["responses"]["200"]["content"] = {
        "text/plain": {"schema": _TEXT},
        "application/openmetrics-text": {"schema": _TEXT},
    }
    document = _operation("operations", "openapi", "This document.", {"type": "object"})
    live = _operation("operations", "live", "The figures of the live page.", {"type": "object"})
    page = _operation("operations", "page", "The live page.", None)
    page["responses"]["200"]["content"] = {"text/html": {"schema": _TEXT}}
    return {
        "/": {"get": page},
        "/live.json": {"get": live},
        "/metrics": {"get": metrics},
        "/openapi.json": {"get": document},
    }


def _operation(
    tag: str, name: str, words: str, schema: Schema | None, *, also: Mapping[str, str] | None = None
) -> Schema:
    """An operation with its answer (None: an empty body), and the errors that any operation may have.

    `also`: status → the schema that it has instead of an error's.
    """
    done: Schema = {"description": words}
    if schema is not None:
        done["content"] = {_JSON: {"schema": schema}}
    responses: dict[str, Any] = {"200": done}
    for status, meaning in _ERRORS.items():
        responses[status] = {"description": meaning, "content": {_JSON: {"schema": _ref("Error")}}}
        if status in _RETRYABLE:
            responses[status]["headers"] = {"Retry-After": {"description": "Seconds.", "schema": _NUMBER}}
    for status, other in (also or {}).items():
        both = {"anyOf": [_ref(other), _ref("Error")]}
        responses[status] = {"description": "Not ready.", "content": {_JSON: {"schema": both}}}
    responses["default"] = {"description": "Another error.", "content": {_JSON: {"schema": _ref("Error")}}}
    return {"tags": [tag], "operationId": name, "summary": words, "responses": responses}


def _body(schema: Schema, *, required: bool = True) -> Schema:
    return {"required": required, "content": {_JSON: {"schema": schema}}}


def _binary(words: str) -> Schema:
    return {"type": "string", "contentMediaType": _BYTES, "description": f"Bytes: {words}."}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _named(*names: str) -> list[Schema]:
    return [{"$ref": f"#/components/parameters/{name}"} for name in names]


def _parameters() -> dict[str, Schema]:
    plain = {"type": "string", "minLength": 1, "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]*$"}
    return {
        "Model": {"name": "model", "in": "path", "required": True, "schema": plain},
        "Version": {
            "name": "version",
            "in": "path",
            "required": True,
            "schema": {"type": "string", "pattern": "^[0-9]+$"},
        },
        "Region": {"name": "region", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}},
        "JsonLength": {
            "name": "Inference-Header-Content-Length",
            "in": "header",
            "description": "Bytes of the JSON in front of binary tensors; 0 where the body is the only input itself.",
            "schema": _NUMBER,
        },
        "Tenant": {
            "name": TENANT_FIELD,
            "in": "header",
            "description": "Whose share the request uses.",
            "schema": _TEXT,
        },
        "Timeout": {
            "name": TIMEOUT_FIELD,
            "in": "header",
            "description": "Milliseconds after which nobody waits for the answer.",
            "schema": _NUMBER,
        },
    }


def _schemas() -> dict[str, Schema]:
    return {
        "Error": _closed({"error": _TEXT}),
        "Health": _closed({"live": _FLAG, "ready": _FLAG}),
        "ModelHealth": _closed({"name": _TEXT, "ready": _FLAG}),
        "ServerMetadata": _object({"name": _TEXT, "version": _TEXT, "extensions": _list(_TEXT)}),
        "ModelMetadata": _object(
            {
                "name": _TEXT,
                "versions": _list(_TEXT),
                "platform": _TEXT,
                "inputs": _list(_ref("TensorMetadata")),
                "outputs": _list(_ref("TensorMetadata")),
            }
        ),
        "TensorMetadata": _object(
            {"name": _TEXT, "datatype": _ref("Datatype"), "shape": _list({"type": "integer", "minimum": -1})}
        ),
        "Datatype": {"type": "string", "enum": list(DATATYPES)},
        "RepositoryIndex": _list(
            _object({"name": _TEXT, "version": _TEXT, "state": _TEXT, "reason": _TEXT}, optional=("version",))
        ),
        "Regions": _list(_object({"name": _TEXT, "key": _TEXT, "offset": _NUMBER, "byte_size": _NUMBER})),
        **_request_schemas(),
        **_response_schemas(),
        **_statistics_schemas(),
    }


def _request_schemas() -> dict[str, Schema]:
    name = {"type": "string", "minLength": 1, "maxLength": NAME_LIMIT}
    size = {"type": "integer", "minimum": 0, "maximum": SIZE_LIMIT - 1}
    region = {
        "shared_memory_region": _TEXT,
        "shared_memory_offset": _NUMBER,
        "shared_memory_byte_size": _NUMBER,
    }
    datatypes = {"type": "string", "enum": list(DATATYPES)}
    return {
        "Parameters": {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}},
        "InferRequest": _closed(
            {
                "id": _or_null(_TEXT),
                "model_name": True,
                "model_version": True,
                "parameters": _with_parameters(
                    {
                        "binary_data_output": _FLAG,
                        "timeout": {**_NUMBER, "description": "Microseconds.", "maximum": 2**53 - 1},
                        "priority": {**_NUMBER, "maximum": 2**31 - 1},
                        "npuops_fallback": {"enum": ["forbid", "allow"]},
                    }
                ),
                "inputs": {**_list(_ref("InferInput")), "maxItems": TENSOR_LIMIT},
                "outputs": _or_null({**_list(_ref("RequestedOutput")), "maxItems": TENSOR_LIMIT}),
            },
            optional=("id", "model_name", "model_version", "parameters", "outputs"),
        ),
        "InferInput": _closed(
            {
                "name": name,
                "shape": {**_list(size), "maxItems": RANK_LIMIT},
                "datatype": datatypes,
                "parameters": _with_parameters({"binary_data_size": _NUMBER, **region}),
                "data": {"type": "array", "description": "Flat and row-major, or nested as the shape."},
            },
            optional=("parameters", "data"),
        ),
        "RequestedOutput": _closed(
            {
                "name": name,
                "parameters": _with_parameters({"binary_data": _FLAG, "classification": _NUMBER, **region}),
            },
            optional=("parameters",),
        ),
    }


def _response_schemas() -> dict[str, Schema]:
    return {
        "InferResponse": _object(
            {
                "id": _TEXT,
                "model_name": _TEXT,
                "model_version": _TEXT,
                "parameters": _object({"npuops_device": _TEXT, "npuops_fallback": _FLAG}),
                "outputs": _list(_ref("InferOutput")),
            },
            optional=("id",),
        ),
        "InferOutput": _object(
            {
                "name": _TEXT,
                "shape": _list(_NUMBER),
                "datatype": _ref("Datatype"),
                "parameters": _ref("Parameters"),
                "data": {"type": "array"},
            },
            optional=("parameters", "data"),
        ),
    }


def _statistics_schemas() -> dict[str, Schema]:
    spent = _ref("DurationStatistic")
    stages = dict.fromkeys(("compute_input", "compute_infer", "compute_output"), spent)
    return {
        "DurationStatistic": _object({"count": _NUMBER, "ns": _NUMBER}),
        "Statistics": _object({"model_stats": _list(_ref("ModelStatistics"))}),
        "ModelStatistics": _object(
            {
                "name": _TEXT,
                "version": _TEXT,
                "last_inference": _NUMBER,
                "inference_count": _NUMBER,
                "execution_count": _NUMBER,
                "inference_stats": _object({"success": spent, "fail": spent, "queue": spent, **stages}),
                "batch_stats": _list(_object({"batch_size": _NUMBER, **stages})),
            }
        ),
    }


def _with_parameters(known: Mapping[str, Schema]) -> Schema:
    optional = {name: _or_null(schema) for name, schema in known.items()}
    others = {"type": ["string", "number", "boolean", "null"]}
    return _or_null({**_object(optional, optional=tuple(known)), "additionalProperties": others})


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _object(properties: Mapping[str, Any], *, optional: tuple[str, ...] = ()) -> Schema:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": [name for name in properties if name not in optional],
    }


def _closed(properties: Mapping[str, Any], *, optional: tuple[str, ...] = ()) -> Schema:
    return {**_object(properties, optional=optional), "additionalProperties": False}
