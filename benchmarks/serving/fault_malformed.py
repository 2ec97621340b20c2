"""Input that no server should accept, and whether the next good request is still answered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from client import Connection, attempt
from exchanges import Exchange, oip_binary, oip_json
from served_models import ServedModel
from subject import Result, Subject

LIMIT_S = 8.0
HUGE = 200_000_000
Case = tuple[str, bytes]


async def malformed(subject: Subject) -> Result:
    """Case → status, `closed` (the connection, without a word) or `silent`; a case that breaks the server says so."""
    found: Result = {}
    is_oip = subject.exchange.path.endswith("/infer")
    cases = oip_cases(subject.model, subject.port) if is_oip else plain_cases(subject.exchange, subject.port)
    for name, data in cases:
        said = await raw(subject.port, data)
        if not await alive(subject):
            said += ", then no good answer"
        found[name] = said
    return found


async def alive(subject: Subject) -> bool:
    """Whether a good request gets its right answer on a new connection."""
    try:
        connection = await Connection.open(subject.port)
    except OSError:
        return False
    sample = await attempt(connection, subject.call(), 0.0, LIMIT_S)
    connection.close()
    return sample.outcome == "ok"


async def raw(port: int, data: bytes) -> str:
    """Send bytes on a connection of their own; the status of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    broken = ""
    try:
        async with asyncio.timeout(LIMIT_S):
            try:
                writer.write(data)
                await writer.drain()
            except OSError:
                broken = ", while sending"  # the answer may still lie there
            line = await reader.readline()
    except TimeoutError:
        return "silent"
    except OSError:
        return "reset" + broken
    finally:
        writer.transport.abort()
    parts = line.split()
    return (parts[1].decode() if len(parts) > 1 and parts[1].isdigit() else "closed") + broken


def oip_cases(model: ServedModel, port: int) -> Iterator[Case]:
    """For a server that speaks the protocol over HTTP."""
    good, binary = oip_json(model), oip_binary(model)

    def post(body: bytes, headers: dict[str, str] | None = None, path: str = good.path) -> bytes:
        kinds = {"Content-Type": "application/json"} if headers is None else headers
        return Exchange(protocol="json", path=path, headers=kinds, body=body, read=good.read).http_bytes(f"h:{port}")

    def changed(**tensor: Any) -> bytes:
        value = json.loads(good.body)
        value["inputs"][0] |= tensor
        return post(json.dumps(value).encode())

    name = next(iter(model.inputs))
    array = model.inputs[name]
    smaller = [*array.shape[:-1], array.shape[-1] - 1]
    yield "wrong shape", changed(shape=smaller, data=[0.0] * int(np.prod(smaller)))
    yield "shape ≠ data", changed(shape=smaller)
    yield "negative shape", changed(shape=[-1, *array.shape[1:]])
    yield "huge shape", changed(shape=[1 << 62, *array.shape[1:]])
    yield "wrong datatype", changed(datatype="INT16")
    yield "no such datatype", changed(datatype="FP33")
    yield "text for numbers", changed(data=["a"] * array.size)
    yield "no such input", changed(name="nobody")
    yield "no inputs", post(b'{"inputs": []}')
    yield "not an object", post(b"[]")
    yield "bad JSON", post(good.body[:-20])
    yield "deep JSON", post(b'{"inputs": ' + b"[" * 100_000)
    yield "no such model", post(good.body, path="/v2/models/nobody/infer")
    yield "path traversal", post(good.body, path="/v2/models/..%2f..%2fetc%2fpasswd/infer")
    length = int(binary.headers["Inference-Header-Content-Length"])
    yield "truncated binary", post(binary.body[:-100], dict(binary.headers))
    yield "excess binary", post(binary.body + b"\0" * 100, dict(binary.headers))
    head = dict(binary.headers)
    yield "header length > body", post(binary.body, head | {"Inference-Header-Content-Length": str(10**9)})
    yield "header length NaN", post(binary.body, head | {"Inference-Header-Content-Length": "abc"})
    yield "header length < 0", post(binary.body, head | {"Inference-Header-Content-Length": "-1"})
    wild = binary.body[:length].replace(str(array.nbytes).encode(), b"-" + str(array.nbytes - 1).encode()[1:].zfill(3))
    yield "negative size", post(wild + binary.body[length:], head | {"Inference-Header-Content-Length": str(len(wild))})
    yield "200 MB body", post(good.body[:-1] + b" " * HUGE + b"}")
    yield from http_cases(good, port)


def plain_cases(exchange: Exchange, port: int) -> Iterator[Case]:
    """For a server whose body is its own invention."""

    def post(body: bytes) -> bytes:
        headers = dict(exchange.headers)
        changed = Exchange(protocol="json", path=exchange.path, headers=headers, body=body, read=exchange.read)
        return changed.http_bytes(f"h:{port}")

    if exchange.protocol == "json":
        yield "no such input", post(b'{"nobody": [1, 2]}')
        yield "wrong shape", post(b'{"x": [1, 2], "items": [[1, 2]]}')
        yield "text for numbers", post(b'{"x": ["a"], "items": ["a"]}')
        yield "not an object", post(b"[]")
        yield "bad JSON", post(exchange.body[:-20])
        yield "deep JSON", post(b'{"x": ' + b"[" * 100_000)
        yield "200 MB body", post(exchange.body[:-1] + b" " * HUGE + b"}")
    else:
        yield "truncated binary", post(exchange.body[:-100])
        yield "excess binary", post(exchange.body + b"\0" * 100)
        yield "200 MB body", post(exchange.body + b" " * HUGE)
    yield from http_cases(exchange, port)


def http_cases(exchange: Exchange, port: int) -> Iterator[Case]:
    """Wrong as HTTP already."""
    good = exchange.http_bytes(f"h:{port}")
    yield "no HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 64 + b"\r\n\r\n"
    yield "1 MB header", good.replace(b"\r\n", b"\r\nX-Long: " + b"a" * 1_000_000 + b"\r\n", 1)
    yield "two lengths", good.replace(b"Content-Length: ", b"Content-Length: 3\r\nContent-Length: ", 1)
    yield "length and chunks", good.replace(b"Content-Length: ", b"Transfer-Encoding: chunked\r\nContent-Length: ", 1)
