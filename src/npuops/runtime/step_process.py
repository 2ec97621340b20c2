"""The child of `step_worker`: decodes pictures until its parent hangs up. Started as `python -m …`, never forked.

A message is two lengths and then the steps (JSON) and the picture; the answer a kind, a length, and the error (JSON) or
the tensor's bytes. A tensor that fits is left in memory shared with the parent, which spares both of them the socket.
"""

from __future__ import annotations

import resource
import signal
import socket
import struct
import sys
from functools import lru_cache
from typing import Final

import msgspec

from npuops.errors import NpuopsError, RunError
from npuops.evaluate.image_steps import run_image_steps
from npuops.models.steps import PreStep
from npuops.runtime.doorbell import Told
from npuops.runtime.slots import SharedMemory

REQUEST: Final = struct.Struct("<IId")
"""Bytes of the steps, bytes of the picture, and the seconds after which the process shall end itself."""
REPLY: Final = struct.Struct("<BI")
READY: Final = 0
TENSOR: Final = 1
SHARED: Final = 2
ERROR: Final = 3

TENSOR_BYTES: Final = 64 << 20
"""Of shared memory, of which only what a tensor touched is taken."""
MEMORY_BYTES: Final = 4 << 30
"""Of address space: a picture of the largest size takes a quarter of it."""


@lru_cache(maxsize=64)
def read_steps(text: bytes) -> tuple[PreStep, ...]:
    """The steps of their JSON."""
    return msgspec.json.decode(text, type=tuple[PreStep, ...])


def main() -> None:
    """Answer until the other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's to answer
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(MEMORY_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    memory = SharedMemory(int(sys.argv[2]), TENSOR_BYTES)
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        connection.sendall(REPLY.pack(READY, 0))
        while (head := _received(connection, REQUEST.size)) is not None:
            steps_bytes, data_bytes, limit_s = REQUEST.unpack(head)
            steps, data = _received(connection, steps_bytes), _received(connection, data_bytes)
            if steps is None or data is None:
                return
            # Its default action ends the process, also where the parent is gone and the decoder hangs.
            signal.setitimer(signal.ITIMER_REAL, limit_s)
            kind, payload = _answer(bytes(steps), data)
            signal.setitimer(signal.ITIMER_REAL, 0)
            if kind == TENSOR and len(payload) <= TENSOR_BYTES:
                memory.view[: len(payload)] = payload
                connection.sendall(REPLY.pack(SHARED, len(payload)))
                continue
            connection.sendall(REPLY.pack(kind, len(payload)))
            connection.sendall(payload)


def _answer(steps: bytes, data: bytearray) -> tuple[int, bytes | memoryview]:
    try:
        tensor = run_image_steps(read_steps(steps), memoryview(data), where="the picture")
    except NpuopsError as error:
        told = Told(kind=type(error).__name__, message=error.message, advice=error.advice)
    except Exception as error:  # noqa: BLE001 - whatever it is, the request must get an answer
        told = Told(kind=RunError.__name__, message=f"{type(error).__name__}: {error}"[:500], advice="")
    else:
        return TENSOR, tensor.data.cast("B")
    return ERROR, msgspec.json.encode(told)


def _received(connection: socket.socket, size: int) -> bytearray | None:
    """So many bytes; None where the other end closed before."""
    buffer = bytearray(size)
    view, at = memoryview(buffer), 0
    while at < size:
        count = connection.recv_into(view[at:])
        if not count:
            return None
        at += count
    return buffer


if __name__ == "__main__":
    main()
