"""One request in the protocol's three forms, each time with another id, and the judge of its answer.

Written apart from the server and from its clients: what both got wrong in the same way would else look right.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

HEADER_LENGTH = "inference-header-content-length"
INFER = "/inference.GRPCInferenceService/ModelInfer"
ID = "soak-#########"
"""Stands in a prepared request until its number is known, which is as long."""
DATATYPES = {"float32": "FP32", "int64": "INT64", "object": "BYTES"}
NUMPY = {datatype: np.dtype(name) for name, datatype in DATATYPES.items()}
RTOL, ATOL = 1e-3, 1e-4
NEAR = 0.97
"""Least cosine of a quantized answer with the fp32 one; those to different inputs are below 0.9."""


@dataclass(frozen=True, slots=True)
class Told:
    """What an answer says."""

    id: str
    model: str
    version: str
    outputs: dict[str, NDArray[Any]]
    device: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A request of one model."""

    model: str
    inputs: Mapping[str, NDArray[Any]]
    """BYTES where the dtype is object."""
    answers: Mapping[str, Mapping[str, NDArray[Any]]]
    """"1" for odd versions, "0" for even ones, "" where all say the same → output → values."""
    rivals: tuple[NDArray[Any], ...] = ()
    """Answers to the other questions, where a quantized one is right if it is near: it must be nearest to its own."""
    prepared: dict[str, tuple[bytes, bytes]] = field(default_factory=dict)
    """Form → head and body, with the place for the id."""

    def http(self, form: str, number: int, extra: str = "") -> bytes:
        """The whole HTTP/1.1 request: `form` is `json` or `binary`, `extra` are header lines."""
        if form not in self.prepared:
            self.prepared[form] = self.json() if form == "json" else self.binary()
        head, body = self.prepared[form]
        body = body.replace(ID.encode(), id_of(number).encode(), 1)
        return b"".join((head, extra.encode(), b"Content-Length: %d\r\n\r\n" % len(body), body))

    def grpc(self, number: int) -> bytes:
        """A serialized ModelInferRequest."""
        if "grpc" not in self.prepared:
            request = service_pb2.ModelInferRequest(model_name=self.model, id=ID)
            for name, array in self.inputs.items():
                tensor = request.inputs.add(name=name, datatype=DATATYPES[array.dtype.name])
                tensor.shape.extend(array.shape)
                request.raw_input_contents.append(packed(array))
            self.prepared["grpc"] = (b"", request.SerializeToString())
        return self.prepared["grpc"][1].replace(ID.encode(), id_of(number).encode(), 1)

    def json(self) -> tuple[bytes, bytes]:
        inputs = [described(name, array) | {"data": listed(array)} for name, array in self.inputs.items()]
        return self.head("Content-Type: application/json\r\n"), json.dumps({"id": ID, "inputs": inputs}).encode()

    def binary(self) -> tuple[bytes, bytes]:
        raw = {name: packed(array) for name, array in self.inputs.items()}
        inputs = [
            described(name, array) | {"parameters": {"binary_data_size": len(raw[name])}}
            for name, array in self.inputs.items()
        ]
        said = json.dumps({"id": ID, "inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
        head = self.head(f"Content-Type: application/octet-stream\r\nInference-Header-Content-Length: {len(said)}\r\n")
        return head, said + b"".join(raw.values())

    def head(self, lines: str) -> bytes:
        return f"POST /v2/models/{self.model}/infer HTTP/1.1\r\nHost: soak\r\n{lines}".encode()

    def wrong(self, told: Told, number: int, least_version: int = 0) -> str:
        """Why an answer is not the right one; "" when it is.

        Args:
            told: the answer.
            number: of the request.
            least_version: an older one may not answer any more.
        """
        if told.id != id_of(number):
            return f"the answer of {told.id!r} to {id_of(number)!r}"
        if told.model != self.model:
            return f"an answer of {told.model!r} for {self.model!r}"
        if not told.version.isdigit() or int(told.version) < least_version:
            return f"version {told.version!r} answered after version {least_version} was ready"
        right = self.answers[""] if "" in self.answers else self.answers[str(int(told.version) % 2)]
        if set(told.outputs) != set(right):
            return f"outputs {sorted(told.outputs)} instead of {sorted(right)}"
        for name, wanted in right.items():
            if why := self.output_wrong(told.outputs[name], wanted):
                return f"{name} of version {told.version} from {told.device or 'a device without a name'}: {why}"
        return ""

    def output_wrong(self, found: NDArray[Any], wanted: NDArray[Any]) -> str:
        """Why one output is not right."""
        if found.dtype != wanted.dtype or found.shape != wanted.shape:
            return f"{found.dtype}{list(found.shape)} instead of {wanted.dtype}{list(wanted.shape)}"
        if self.rivals:
            cosines = [cosine(found, rival) for rival in self.rivals]
            own = cosine(found, wanted)
            best = max(cosines)
            return "" if own >= max(best, NEAR) else f"cosine {own:.4f}, with another one {best:.4f}"
        if wanted.dtype == object:
            return "" if found.tolist() == wanted.tolist() else f"{found.tolist()} instead of {wanted.tolist()}"
        if np.allclose(found, wanted, rtol=RTOL, atol=ATOL):
            return ""
        return f"differs by {np.abs(found - wanted).max():.2g}: {found.ravel()[:4]} instead of {wanted.ravel()[:4]}"


def id_of(number: int) -> str:
    """A request's id, always of the same length."""
    return f"soak-{number:09d}"


def cosine(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Of two arrays of the same size."""
    return float(np.vdot(one, other) / (np.linalg.norm(one) * np.linalg.norm(other) + 1e-12))


def told_http(headers: Mapping[str, str], body: bytes) -> Told:
    """Read an HTTP answer, JSON or binary.

    Raises:
        ValueError, KeyError, TypeError: it is none.
    """
    length = int(headers.get(HEADER_LENGTH, len(body)))
    head, at = json.loads(body[:length]), length
    outputs = {}
    for output in head["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            values = np.array(output["data"], NUMPY[output["datatype"]])
        else:
            values, at = unpacked(body[at : at + size], output["datatype"]), at + size
        outputs[output["name"]] = values.reshape(output["shape"])
    if at != len(body):
        raise ValueError(f"{len(body) - at} bytes are left over")
    device = str(head.get("parameters", {}).get("npuops_device", ""))
    return Told(head["id"], head["model_name"], head["model_version"], outputs, device)


def told_grpc(response: service_pb2.ModelInferResponse) -> Told:
    """Read a gRPC answer with raw contents.

    Raises:
        ValueError, KeyError: it is none.
    """
    outputs = {
        output.name: unpacked(raw, output.datatype).reshape(tuple(output.shape))
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }
    device = response.parameters["npuops_device"].string_param if "npuops_device" in response.parameters else ""
    return Told(response.id, response.model_name, response.model_version, outputs, device)


def unpacked(raw: bytes, datatype: str) -> NDArray[Any]:
    """A tensor's values, flat; those of BYTES as text."""
    if datatype != "BYTES":
        return np.frombuffer(raw, NUMPY[datatype])
    found, at = [], 0
    while at < len(raw):
        (size,) = struct.unpack_from("<I", raw, at)
        found.append(raw[at + 4 : at + 4 + size].decode())
        at += 4 + size
    if at != len(raw):
        raise ValueError(f"an element ends at {at} of {len(raw)} bytes")
    return np.array(found, object)


def described(name: str, array: NDArray[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": DATATYPES[array.dtype.name], "shape": list(array.shape)}


def packed(array: NDArray[Any]) -> bytes:
    """A tensor's bytes; each element of BYTES after its length."""
    if array.dtype != object:
        return array.tobytes()
    return b"".join(struct.pack("<I", len(each)) + each for each in array.ravel())


def listed(array: NDArray[Any]) -> list[Any]:
    """A tensor for JSON; BYTES as Base64, the way pictures are sent."""
    if array.dtype == object:
        return [base64.b64encode(each).decode() for each in array.ravel()]
    return [round(value, 4) for value in array.ravel().tolist()]
