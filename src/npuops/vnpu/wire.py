"""What client and device say to each other: frames of MessagePack on a byte stream. Pure.

A frame is its length (4 bytes, little-endian) and one message. A message is a map with a `type`; unknown types, keys
and values of a wrong type are refused, so both ends must speak the same `VERSION`, which the first message carries.
Every request has an `id`, and gets exactly one reply with that `id`; replies come in the order in which the work ends.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeVar

import msgspec

from npuops import errors
from npuops.errors import DeviceLostError, NpuopsError, OptionError
from npuops.vnpu.device_telemetry import Telemetry
from npuops.vnpu.firmware import Quote
from npuops.vnpu.program import Program
from npuops.vnpu.tensors import TensorSpec

VERSION: Final = 2
FRAME_LIMIT_BYTES: Final = 16 << 20
"""A program of a hundred thousand steps fits; a length of 4 GB is refused before a byte is kept."""

_HEADER_BYTES: Final = 4

Id = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]


class ProtocolError(DeviceLostError):
    """The other side said what no version of ours says; the connection is of no use any more."""


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag=True, forbid_unknown_fields=True):
    """Base of all messages; the class name is the `type`."""

    id: Id


class Hello(Message, frozen=True, kw_only=True):
    """First of all: which protocol, and whether a tenant comes or somebody who only looks and switches."""

    version: int
    priority: str | None = None
    """Of a tenant: idle, normal, focus or realtime. None: no context is opened, so it works on a dead device too."""


class Load(Message, frozen=True, kw_only=True):
    """Put a program on the device. `model` is an ONNX file for the numerics, or None for times without numbers."""

    program: Program
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    slots: int
    compiler: str | None = None
    """Version of the compiler that wrote the program; None: the one released with the device."""
    model: str | None = None


class Unload(Message, frozen=True, kw_only=True):
    """Free the program's memory."""

    handle: int


class Submit(Message, frozen=True, kw_only=True):
    """Run a loaded program on the tensors in one slot; the slot is the device's until the reply."""

    handle: int
    slot: int
    canary: bool = False
    """The submitter knows the right answer, and the device counts whether it came out."""


class Advance(Message, frozen=True, kw_only=True):
    """Manual pacing: let so much time pass."""

    us: int


class Inject(Message, frozen=True, kw_only=True):
    """A fault, from now; its keys are those of a plan file, without `at_s`."""

    fault: dict[str, Any]


class ClearFaults(Message, frozen=True, kw_only=True):
    """End every fault that lasts."""


class Reset(Message, frozen=True, kw_only=True):
    """Reset the device."""


class AskStatus(Message, frozen=True, kw_only=True):
    """What the device knows of itself."""


class UpdateFirmware(Message, frozen=True, kw_only=True):
    """A signed image; it runs after the next boot."""

    image: bytes


class Attest(Message, frozen=True, kw_only=True):
    """A quote over what was booted, with this nonce in it."""

    nonce: bytes


class Welcome(Message, frozen=True, kw_only=True):
    """The reply to Hello."""

    device: str
    profile: str
    pacing: str
    context: int | None


class Loaded(Message, frozen=True, kw_only=True):
    """The descriptor of the program's tensors travels with it."""

    handle: int


class Completed(Message, frozen=True, kw_only=True):
    """The outputs are in the slot; all times are the device's own."""

    submitted_us: float
    started_us: float
    finished_us: float
    busy_us: float
    energy_mj: float
    preemptions: int

    @property
    def latency_us(self) -> float:
        """From submission to end."""
        return self.finished_us - self.submitted_us


class Done(Message, frozen=True, kw_only=True):
    """It was done, and there is nothing to say about it."""


class Status(Message, frozen=True, kw_only=True):
    """What the device shows, and for how long it has been up in its own time."""

    telemetry: Telemetry
    uptime_us: int


class Attested(Message, frozen=True, kw_only=True):
    """The reply to Attest."""

    quote: Quote


class Refused(Message, frozen=True, kw_only=True):
    """An error of our tree: `kind` is its class."""

    kind: str
    message: str
    advice: str = ""


Request = Hello | Load | Unload | Submit | Advance | Inject | ClearFaults | Reset | AskStatus | UpdateFirmware | Attest
Reply = Welcome | Loaded | Completed | Done | Status | Attested | Refused

_encoder = msgspec.msgpack.Encoder()
_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_replies: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)

M = TypeVar("M", Request, Reply)


def frame(message: Message) -> bytes:
    """The message as it goes over the wire.

    Raises:
        ProtocolError: it is longer than a frame may be, or has a number that 64 bits cannot hold.
    """
    try:
        body = _encoder.encode(message)
    except OverflowError as error:
        raise ProtocolError(f"{type(message).__name__} has a number that 64 bits cannot hold") from error
    if len(body) > FRAME_LIMIT_BYTES:
        raise ProtocolError(f"a message of {len(body)} bytes is longer than {FRAME_LIMIT_BYTES}")
    return len(body).to_bytes(_HEADER_BYTES, "little") + body


class FrameReader:
    """Cuts a stream into messages, however its pieces arrive. Use `requests` or `replies` to make one."""

    def __init__(self, decoder: msgspec.msgpack.Decoder[Any]) -> None:
        self._decoder = decoder
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[Any]:
        """The messages that are complete with these bytes.

        Raises:
            ProtocolError: too long, not MessagePack, or not a message of ours.
        """
        rest, start, found = self._rest, 0, []
        rest += data
        while (end := _end_of_frame(rest, start)) <= len(rest):
            found.append(self._decoded(memoryview(rest)[start + _HEADER_BYTES : end]))
            start = end
        del rest[:start]
        return found

    def _decoded(self, body: memoryview) -> Any:
        try:
            with body:
                return self._decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OptionError) as error:
            raise ProtocolError(f"not a message of version {VERSION}: {error}") from error


def _end_of_frame(data: bytearray, start: int) -> int:
    """Where the frame at `start` ends; beyond the data while it is not whole."""
    if len(data) - start < _HEADER_BYTES:
        return start + _HEADER_BYTES
    length = int.from_bytes(data[start : start + _HEADER_BYTES], "little")
    if length > FRAME_LIMIT_BYTES:
        raise ProtocolError(f"a frame of {length} bytes is announced, at most {FRAME_LIMIT_BYTES} are taken")
    return start + _HEADER_BYTES + length


def error_of(kind: str, message: str, advice: str) -> NpuopsError:
    """The error that a class name stands for; a word that our tree lacks is an error of the device."""
    found = getattr(errors, kind, None)
    if isinstance(found, type) and issubclass(found, NpuopsError):
        return found(message, advice=advice)
    return DeviceLostError(message, advice=advice)


def requests() -> FrameReader:
    """For the device's side."""
    return FrameReader(_requests)


def replies() -> FrameReader:
    """For the client's side."""
    return FrameReader(_replies)
