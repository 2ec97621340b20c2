"""Inference requests as bytes: JSON, JSON with binary tensors behind it, and the HTTP head before either."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from npuops.errors import OptionError
from npuops.loadgen.model_inputs import Tensor

BINARY_EXTENSION: Final = "binary_tensor_data"
ID: Final = "0"
"""The protocol lets it out, but KServe's Python server fails when it echoes none."""
_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_OURS: Final = frozenset({"host", "content-length", "connection", "transfer-encoding"})


def json_body(tensors: Sequence[Tensor]) -> bytes:
    """All tensors as text, flat and row-major.

    Raises:
        OptionError: JSON has no form for one: FP16, BF16, bytes that are no text, NaN and infinities.
    """
    inputs = []
    for tensor in tensors:
        values = tensor.values()
        if values is None:
            raise OptionError(
                f"input {tensor.name!r} {tensor.no_json}, which has no form in JSON",
                advice="send it with --format binary, or --protocol grpc",
            )
        inputs.append({**_head(tensor), "data": values})
    return msgspec.json.encode({"id": ID, "inputs": inputs})


def binary_body(tensors: Sequence[Tensor]) -> tuple[bytes, int]:
    """The JSON part with the tensors behind it, and how long the JSON part is; outputs are wanted binary, too."""
    inputs = [{**_head(tensor), "parameters": {"binary_data_size": len(tensor.raw)}} for tensor in tensors]
    head = msgspec.json.encode({"id": ID, "inputs": inputs, "parameters": {"binary_data_output": True}})
    return head + b"".join(tensor.raw for tensor in tensors), len(head)


def _head(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "shape": tensor.shape, "datatype": tensor.datatype}


def http_post(path: str, authority: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """A whole POST, ready for the wire."""
    lines = [f"POST {path} HTTP/1.1", f"Host: {authority}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines += [f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def joined(*parts: Mapping[str, str]) -> dict[str, str]:
    """Headers together; of one name, in whatever case, the last value goes."""
    found: dict[str, tuple[str, str]] = {}
    for part in parts:
        found |= {name.lower(): (name, value) for name, value in part.items()}
    return dict(found.values())


def parse_headers(texts: Sequence[str]) -> dict[str, str]:
    """`["Name: value"]` → a mapping.

    Raises:
        OptionError: not of that form, a control character, or a header that the client sets by itself.
    """
    headers: dict[str, str] = {}
    for text in texts:
        name, colon, value = text.partition(":")
        name, value = name.strip(), value.strip()
        if not colon or not _NAME.fullmatch(name):
            raise OptionError(f"-H {text!r} is no header", advice='for example -H "X-Priority: 1"')
        if not value.isprintable() or not value.isascii():
            raise OptionError(f"-H {name}: a header holds printable ASCII only")
        if name.lower() in _OURS:
            raise OptionError(f"-H {name}: the client sets this one by itself")
        headers[name] = value
    return headers
