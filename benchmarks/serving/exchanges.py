"""One request as bytes, and how its answer is read: the Open Inference Protocol in three forms, and plain bodies."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from served_models import ServedModel
from tritonclient.grpc import service_pb2

Numbers = NDArray[np.float32]
HEADER_LENGTH = "inference-header-content-length"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A request that can be sent again and again, and the reader of its answer."""

    protocol: str
    """`json`, `binary` or `grpc`."""
    path: str
    headers: Mapping[str, str]
    body: bytes
    read: Callable[[Mapping[str, str], bytes], Numbers]
    """(Headers in lower case, body) → the first output, flat."""

    def http_bytes(self, host: str, extra: Mapping[str, str] | None = None) -> bytes:
        """The whole request as it goes over an HTTP/1.1 connection."""
        headers = {"Host": host, **self.headers, **(extra or {}), "Content-Length": str(len(self.body))}
        lines = "".join(f"{key}: {value}\r\n" for key, value in headers.items())
        return f"POST {self.path} HTTP/1.1\r\n{lines}\r\n".encode() + self.body


def oip_json(model: ServedModel, *, parameters: Mapping[str, Any] | None = None) -> Exchange:
    """Open Inference Protocol, tensors as flat JSON lists."""
    inputs = [_named(model, name) | {"data": _decimal(array)} for name, array in model.inputs.items()]
    head: dict[str, Any] = {"id": "1", "inputs": inputs}
    if parameters:
        head["parameters"] = dict(parameters)
    return Exchange(
        protocol="json",
        path=f"/v2/models/{model.name}/infer",
        headers={"Content-Type": "application/json"},
        body=json.dumps(head).encode(),
        read=read_oip,
    )


def oip_binary(model: ServedModel, *, parameters: Mapping[str, Any] | None = None) -> Exchange:
    """Open Inference Protocol with the binary tensor extension, both ways."""
    inputs = [
        _named(model, name) | {"parameters": {"binary_data_size": array.nbytes}} for name, array in model.inputs.items()
    ]
    head = json.dumps({"id": "1", "inputs": inputs, "parameters": {"binary_data_output": True, **(parameters or {})}})
    return Exchange(
        protocol="binary",
        path=f"/v2/models/{model.name}/infer",
        headers={"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))},
        body=head.encode() + b"".join(array.tobytes() for array in model.inputs.values()),
        read=read_oip,
    )


def oip_grpc(model: ServedModel) -> Exchange:
    """Open Inference Protocol over gRPC, raw contents, as one length-prefixed message."""
    request = service_pb2.ModelInferRequest(model_name=model.name, id="1")
    for name, array in model.inputs.items():
        tensor = request.inputs.add()
        tensor.name, tensor.datatype = name, model.datatype(name)
        tensor.shape.extend(array.shape)
        request.raw_input_contents.append(array.tobytes())
    message = request.SerializeToString()
    return Exchange(
        protocol="grpc",
        path="/inference.GRPCInferenceService/ModelInfer",
        headers={"content-type": "application/grpc", "te": "trailers"},
        body=struct.pack(">BI", 0, len(message)) + message,
        read=read_grpc,
    )


def plain_json(model: ServedModel, path: str = "/predict") -> Exchange:
    """`{input: row}` → `{output: numbers}`: what a framework without a protocol is usually given."""
    body = {name: json.loads(_nested(array[0])) for name, array in model.inputs.items()}
    return Exchange(
        protocol="json",
        path=path,
        headers={"Content-Type": "application/json"},
        body=json.dumps(body).encode(),
        read=read_plain,
    )


def listed_json(model: ServedModel, path: str = "/predict") -> Exchange:
    """`{"items": [row]}`, the shape of BentoML's batchable endpoints; several inputs lie stacked in one row."""
    rows = [array[0].astype(np.float32) for array in model.inputs.values()]
    row = rows[0] if len(rows) == 1 else np.stack(rows)
    return Exchange(
        protocol="json",
        path=path,
        headers={"Content-Type": "application/json"},
        body=b'{"items": [' + _nested(row).encode() + b"]}",
        read=read_plain,
    )


def plain_bytes(model: ServedModel, path: str = "/raw") -> Exchange:
    """The tensors' bytes one after the other, and the output's bytes back."""
    return Exchange(
        protocol="binary",
        path=path,
        headers={"Content-Type": "application/octet-stream"},
        body=b"".join(array.tobytes() for array in model.inputs.values()),
        read=lambda _headers, body: np.frombuffer(body, np.float32),
    )


def read_oip(headers: Mapping[str, str], body: bytes) -> Numbers:
    """The first output of an answer, binary or JSON."""
    length = int(headers.get(HEADER_LENGTH, 0))
    head = json.loads(body[:length] if length else body)
    output = head["outputs"][0]
    size = (output.get("parameters") or {}).get("binary_data_size")
    if size is not None:
        return np.frombuffer(body[length : length + size], np.float32)
    return np.asarray(output["data"], np.float32).ravel()


def read_grpc(_headers: Mapping[str, str], body: bytes) -> Numbers:
    """The first output of a serialized ModelInferResponse (without the length prefix)."""
    response = service_pb2.ModelInferResponse.FromString(body)
    if response.raw_output_contents:
        return np.frombuffer(response.raw_output_contents[0], np.float32)
    return np.asarray(response.outputs[0].contents.fp32_contents, np.float32)


def read_plain(_headers: Mapping[str, str], body: bytes) -> Numbers:
    """Numbers in a JSON list, or in the only value of an object."""
    value = json.loads(body)
    return np.asarray(next(iter(value.values())) if isinstance(value, dict) else value, np.float32).ravel()


def differs(exchange: Exchange, headers: Mapping[str, str], body: bytes, right: Numbers, *, int8: bool) -> str:
    """Why an answer is wrong, or "" when it is right: equal to fp32, or near it for an INT8 artifact."""
    try:
        found = exchange.read(headers, body)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        return f"unreadable answer ({error!r}): {body[:200]!r}"
    wanted = right.ravel()
    if found.shape != wanted.shape:
        return f"{found.size} numbers instead of {wanted.size}"
    if int8:
        cosine = float(found @ wanted / (np.linalg.norm(found) * np.linalg.norm(wanted) + 1e-12))
        return "" if cosine >= 0.97 else f"cosine {cosine:.4f} with fp32"
    worst = float(np.abs(found - wanted).max())
    return "" if np.allclose(found, wanted, rtol=1e-3, atol=1e-4) else f"differs by {worst:.2g}"


def _named(model: ServedModel, name: str) -> dict[str, Any]:
    return {"name": name, "datatype": model.datatype(name), "shape": list(model.inputs[name].shape)}


def _decimal(array: NDArray[Any]) -> list[Any]:
    return [value if isinstance(value, int) else round(value, 4) for value in array.ravel().tolist()]


def _nested(array: NDArray[Any]) -> str:
    flat = np.array(_decimal(array), dtype=object).reshape(array.shape)
    return json.dumps(flat.tolist())
