"""The words between the server and a worker: small messages on a socket, while tensors lie in shared memory.

A run and its answer are packed by hand, since they pass tens of thousands of times a second; everything else is JSON.
Each message begins with one byte that tells its kind. All integers are little-endian.

::

    RUN     kind, batch u32 | slot u8, artifact u16, tensors   → what to run, and where its inputs lie
    RAN     kind, batch u32, started, computed, copied u64 (µs) | tensors
    FAILED  kind, batch u32 | JSON
    tensors count u16, then of each: offset u64, bytes u64, rank u8, sizes u64 …  (offsets within the shared memory)
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec

from npuops import errors
from npuops.errors import DeviceError, DeviceMemoryError, NpuopsError, OptionError, RunError
from npuops.runtime.signature import Port, Shape

RUN: Final = 1
RAN: Final = 2
FAILED: Final = 3
OPEN: Final = 4
OPENED: Final = 5
REFUSED: Final = 6
SPAWNED: Final = 7

MESSAGE_BYTES: Final = 64 * 1024
"""Longest message once a model is loaded; a socket cuts off what is longer, so `check_sizes` refuses such a model."""
OPEN_BYTES: Final = 1 << 20
"""Longest order to load; it names paths."""
MOST_ARTIFACTS: Final = 256
_LONGEST_WORDS: Final = 4_000
_LARGEST_RANK: Final = 64

_RUN: Final = struct.Struct("<BI")
_WORK: Final = struct.Struct("<BH")
_RAN: Final = struct.Struct("<BIQQQ")
_COUNT: Final = struct.Struct("<H")
_PLACE: Final = struct.Struct("<QQB")

RUN_HEAD_BYTES: Final = _RUN.size
RAN_HEAD_BYTES: Final = _RAN.size


S = TypeVar("S", bound=msgspec.Struct)


class NonsenseError(RunError):
    """The other end said what nobody may say: its process is not to be trusted any more."""


@dataclass(frozen=True, slots=True)
class Place:
    """A tensor in shared memory: `offset` and `size` in bytes."""

    offset: int
    size: int
    shape: Shape


class Open(msgspec.Struct, frozen=True, kw_only=True):
    """Load these artifacts; the shared memory comes with the message.

    Attributes:
        artifacts: folders of unpacked artifacts.
        digests: of their manifests; an empty list, or "" for one of them, takes what is there.
        segment_bytes: of the shared memory.
        slot_bytes: of one slot.
        output_offset: within a slot.
        environment: for the vendor's code, for example which virtual device.
        sizes: rows to measure the batch curve at, for each artifact.
        budget_ms: for measuring.
        background: load it with low priority, since others answer meanwhile.
    """

    artifacts: list[str]
    digests: list[str]
    segment_bytes: int
    slot_bytes: int
    output_offset: int
    environment: dict[str, str]
    sizes: list[list[int]]
    budget_ms: float
    background: bool = False


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


def told_of(error: BaseException) -> Told:
    """An error in words that fit into a message. One of a vendor's own class becomes the nearest of our tree."""
    if not isinstance(error, NpuopsError):
        return Told(kind=RunError.__name__, message=_short(f"{type(error).__name__} in the worker: {error}"))
    known = next(kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
    return Told(
        kind=known.__name__,
        message=_short(error.message),
        advice=_short(error.advice),
        # A device without room for one input still runs others.
        lost=isinstance(error, DeviceError) and not isinstance(error, DeviceMemoryError),
    )


def raised(told: Told) -> NpuopsError:
    """The worker's error, of its own class."""
    kind = getattr(errors, told.kind, RunError)
    if not isinstance(kind, type) or not issubclass(kind, NpuopsError):
        kind = RunError
    return kind(told.message, advice=told.advice)


def check_sizes(inputs: Sequence[Port], outputs: Sequence[Port], artifacts: int) -> None:
    """Whether runs of such a model, and their answers, fit into a message.

    Raises:
        OptionError: they do not.
    """
    if artifacts > MOST_ARTIFACTS:
        raise OptionError(f"{artifacts} artifacts for one device", advice=f"{MOST_ARTIFACTS} at most")
    for word, ports in (("inputs", inputs), ("outputs", outputs)):
        ranks = [_LARGEST_RANK if port.shape is None else len(port.shape) for port in ports]
        if sum(_PLACE.size + 8 * rank for rank in ranks) + 64 > MESSAGE_BYTES:
            raise OptionError(
                f"a model with {len(ports)} {word} cannot be served", advice="put several of them into one tensor"
            )


def pack_run(batch: int, rest: bytes) -> bytes:
    """A run, with what `pack_work` gave."""
    return _RUN.pack(RUN, batch) + rest


def pack_work(slot: int, artifact: int, places: Sequence[Place]) -> bytes:
    """What is to be run, without the number of the batch."""
    return _WORK.pack(slot, artifact) + pack_places(places)


def unpack_work(rest: bytes) -> tuple[int, int, tuple[Place, ...]]:
    """The slot, the artifact's index, and the inputs."""
    slot, artifact = _WORK.unpack_from(rest)
    return slot, artifact, unpack_places(rest[_WORK.size :])


def pack_ran(batch: int, started_us: int, computed_us: int, copied_us: int, tensors: bytes) -> bytes:
    """A run's answer."""
    return _RAN.pack(RAN, batch, started_us, computed_us, copied_us) + tensors


def unpack_ran(message: bytes) -> tuple[int, int, int, int, bytes]:
    """Batch, started, computed, copied (µs), and the packed places of the outputs.

    Raises:
        NonsenseError: it is too short.
    """
    try:
        _, batch, started_us, computed_us, copied_us = _RAN.unpack_from(message)
    except struct.error as error:
        raise NonsenseError(f"an answer of {len(message)} bytes") from error
    return batch, started_us, computed_us, copied_us, message[RAN_HEAD_BYTES:]


def batch_of(message: bytes) -> int:
    """The number of the batch that a `RUN`, `RAN` or `FAILED` message is about."""
    return int.from_bytes(message[1:5], "little")


def pack_failed(batch: int, told: Told) -> bytes:
    """A run failed."""
    return _RUN.pack(FAILED, batch) + msgspec.json.encode(told)


def unpack_failed(message: bytes) -> Told:
    """What went wrong.

    Raises:
        NonsenseError: it cannot be read.
    """
    return _decoded(message[RUN_HEAD_BYTES:], Told)


def pack_json(kind: int, value: msgspec.Struct) -> bytes:
    """Any other message."""
    return bytes((kind,)) + msgspec.json.encode(value)


def unpack_json(message: bytes, kind: type[S]) -> S:
    """Any other message.

    Raises:
        NonsenseError: it cannot be read.
    """
    return _decoded(message[1:], kind)


def unpack_places(data: bytes) -> tuple[Place, ...]:
    """The places of the tensors, in the model's order.

    Raises:
        NonsenseError: there are fewer or more bytes than the places need.
    """
    places = []
    at = _COUNT.size
    try:
        for _ in range(_COUNT.unpack_from(data)[0]):
            offset, size, rank = _PLACE.unpack_from(data, at)
            at += _PLACE.size
            places.append(Place(offset, size, struct.unpack_from(f"<{rank}Q", data, at)))
            at += 8 * rank
    except struct.error as error:
        raise NonsenseError(f"places of tensors in {len(data)} bytes") from error
    if at != len(data):
        raise NonsenseError(f"{len(data) - at} bytes after the last place of a tensor")
    return tuple(places)


def pack_places(places: Sequence[Place]) -> bytes:
    """Tensors in the model's order."""
    packed = [_COUNT.pack(len(places))]
    for place in places:
        packed.append(_PLACE.pack(place.offset, place.size, len(place.shape)))
        packed.append(struct.pack(f"<{len(place.shape)}Q", *place.shape))
    return b"".join(packed)


def _decoded(data: bytes, kind: type[S]) -> S:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise NonsenseError(f"a {kind.__name__} that cannot be read: {error}") from error


def _short(words: str) -> str:
    """Cut to what fits, and without halves of characters, which JSON cannot carry."""
    cut = words if len(words) <= _LONGEST_WORDS else words[: _LONGEST_WORDS - 2] + " …"
    return cut.encode(errors="replace").decode()
