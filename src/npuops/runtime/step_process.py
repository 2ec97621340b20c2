"""The child of `step_worker`: decodes pictures until its parent hangs up. Started as `python -m …`, never forked.

A message is two lengths and then the steps (JSON) and the picture; the answer a kind, a length, and the error (JSON) or
the tensor's bytes. A tensor that fits is left in memory shared with the parent, which spares both of them the socket.
"""

from __future__ import annotations

import base64
import binascii
import ctypes
import resource
import signal
import socket
import struct
import sys
from contextlib import suppress
from functools import lru_cache
from typing import Final

import msgspec

from npuops.errors import DataError, NpuopsError, RunError
from npuops.evaluate.image_decode import pillow
from npuops.evaluate.image_steps import run_image_steps
from npuops.models.steps import PreStep, name_of
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
_PARENT_DEATH_SIGNAL: Final = 1
_IN_BASE64: Final = (b"/9j/", b"iVBORw0K", b"UklGR", b"R0lGOD", b"Qk")
"""How JPEG, PNG, WebP, GIF and BMP begin there."""


@lru_cache(maxsize=64)
def read_steps(text: bytes) -> tuple[PreStep, ...]:
    """The steps of their JSON."""
    return msgspec.json.decode(text, type=tuple[PreStep, ...])


def plain(data: bytearray) -> memoryview:
    """The picture's own bytes, also where it came as Base64: text is all that a request in JSON can carry.

    What begins like the Base64 of a picture begins like no picture.

    Raises:
        DataError: it begins so, and is no Base64.
    """
    if not data.startswith(_IN_BASE64):
        return memoryview(data)
    try:
        return memoryview(base64.b64decode(data, validate=True))
    except binascii.Error as error:
        raise DataError(
            f"the picture is no Base64: {error}", advice="send its bytes, or Base64 without line ends"
        ) from error


def main() -> None:
    """Answer until the other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's to answer
    ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(MEMORY_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    memory = SharedMemory(int(sys.argv[2]), TENSOR_BYTES)
    with suppress(NpuopsError):
        pillow().preinit()  # not while the first picture waits; a Pillow that is missing is told with it
    gone = suppress(BrokenPipeError, ConnectionResetError)  # the server: nobody is left to hear of it
    with socket.socket(fileno=int(sys.argv[1])) as connection, gone:
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
    begun = ["preprocess"]
    try:
        tensor = run_image_steps(
            read_steps(steps), plain(data), where="the picture", begin=lambda step: begun.append(name_of(step))
        )
    except NpuopsError as error:
        told = Told(kind=type(error).__name__, message=f"step {begun[-1]}: {error.message}", advice=error.advice)
    except Exception as error:  # noqa: BLE001 - whatever it is, the request must get an answer
        words = f"step {begun[-1]}: {type(error).__name__}: {error}"[:500]
        told = Told(kind=RunError.__name__, message=words, advice="")
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
