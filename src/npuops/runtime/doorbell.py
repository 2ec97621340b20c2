"""The words between the server and a worker: small messages on a socket, while tensors lie in shared memory.

A run and its answer are packed by hand, since they pass tens of thousands of times a second; everything else is JSON.
Each message begins with one byte that tells its kind. All integers are little-endian.

::

    RUN     kind, batch u32 | artifact u8, tensors     → what to run, and where its inputs lie
    RAN     kind, batch u32, started, computed, copied u64 (µs) | tensors
    tensor  offset u64, bytes u64, rank u8, sizes u32 …  (offsets within the shared memory)
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from npuops.runtime.signature import Shape

RUN: Final = 1
RAN: Final = 2
FAILED: Final = 3
OPEN: Final = 4
OPENED: Final = 5
REFUSED: Final = 6
SPAWNED: Final = 7

MESSAGE_BYTES: Final = 64 * 1024
"""More than the largest message: 1,000 tensors of rank 8."""

_RUN: Final = struct.Struct("<BI")
_RAN: Final = struct.Struct("<BIQQQ")
_COUNT: Final = struct.Struct("<BB")
_PLACE: Final = struct.Struct("<QQB")

RUN_HEAD_BYTES: Final = _RUN.size
RAN_HEAD_BYTES: Final = _RAN.size


@dataclass(frozen=True, slots=True)
class Place:
    """A tensor in shared memory: `offset` and `size` in bytes."""

    offset: int
    size: int
    shape: Shape


class Open(msgspec.Struct, frozen=True, kw_only=True):
    """Load these artifacts; the shared memory comes with the message.

    Attributes:
        artifacts: folders of verified, unpacked artifacts.
        segment_bytes: of the shared memory.
        slot_bytes: of one slot.
        output_offset: within a slot.
        environment: for the vendor's code, for example which virtual device.
        sizes: rows to measure the batch curve at, for each artifact.
        budget_ms: for measuring.
    """

    artifacts: list[str]
    segment_bytes: int
    slot_bytes: int
    output_offset: int
    environment: dict[str, str]
    sizes: list[list[int]]
    budget_ms: float


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """The artifacts are loaded and warm.

    Attributes:
        curves: for each artifact, its measured run times: pairs of rows and microseconds.
        phases: seconds of `verify`, `open`, `warm_up`, `measure`.
    """

    curves: list[list[tuple[int, float]]]
    phases: dict[str, float]


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """An error in the worker, as the server raises it again.

    Attributes:
        kind: the class's name in the error tree.
        lost: the device is gone, not only this request.
    """

    kind: str
    message: str
    advice: str = ""
    lost: bool = False


def pack_run(batch: int, rest: bytes) -> bytes:
    """A run, with what `pack_work` gave."""
    return _RUN.pack(RUN, batch) + rest


def pack_work(artifact: int, places: Sequence[Place]) -> bytes:
    """What is to be run, without the number of the batch."""
    return bytes((artifact,)) + pack_places(places)


def unpack_work(rest: bytes) -> tuple[int, tuple[Place, ...]]:
    """The artifact's index and the inputs."""
    return rest[0], unpack_places(rest[1:])


def pack_ran(batch: int, started_us: int, computed_us: int, copied_us: int, tensors: bytes) -> bytes:
    """A run's answer."""
    return _RAN.pack(RAN, batch, started_us, computed_us, copied_us) + tensors


def unpack_ran(message: bytes) -> tuple[int, int, int, int, bytes]:
    """Batch, started, computed, copied (µs), and the packed places of the outputs."""
    _, batch, started_us, computed_us, copied_us = _RAN.unpack_from(message)
    return batch, started_us, computed_us, copied_us, message[RAN_HEAD_BYTES:]


def batch_of(message: bytes) -> int:
    """The number of the batch that a `RUN`, `RAN` or `FAILED` message is about."""
    return int.from_bytes(message[1:5], "little")


def pack_failed(batch: int, told: Told) -> bytes:
    """A run failed."""
    return _RUN.pack(FAILED, batch) + msgspec.json.encode(told)


def unpack_failed(message: bytes) -> Told:
    """What went wrong."""
    return msgspec.json.decode(message[RUN_HEAD_BYTES:], type=Told)


def pack_json(kind: int, value: msgspec.Struct) -> bytes:
    """Any other message."""
    return bytes((kind,)) + msgspec.json.encode(value)


def unpack_places(data: bytes) -> tuple[Place, ...]:
    """The places of the tensors, in the model's order."""
    places = []
    at = 1
    for _ in range(data[0]):
        offset, size, rank = _PLACE.unpack_from(data, at)
        at += _PLACE.size
        places.append(Place(offset, size, struct.unpack_from(f"<{rank}I", data, at)))
        at += 4 * rank
    return tuple(places)


def pack_places(places: Sequence[Place]) -> bytes:
    """Tensors in the model's order."""
    packed = [bytes((len(places),))]
    for place in places:
        packed.append(_PLACE.pack(place.offset, place.size, len(place.shape)))
        packed.append(struct.pack(f"<{len(place.shape)}I", *place.shape))
    return b"".join(packed)
