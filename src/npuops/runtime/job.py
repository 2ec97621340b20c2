"""A request on its way through the runtime, and its completion.

These two are made for every request, tens of thousands of times a second: they are plain slotted classes, not frozen
dataclasses, whose construction costs four times as much (docs/decisions/0010-the-hot-path.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

from npuops.errors import NpuopsError
from npuops.runtime.signature import Form, Shape

Bytes = bytes | bytearray | memoryview

DEFAULT_TENANT: Final = "default"
NO_DEADLINE: Final = 1 << 62

Fallback = Literal["", "forbid", "allow"]


class Completion:
    """What a device answered to one request.

    Attributes:
        outputs: bytes of each output, row-major, little-endian, in the model's order. **They lie in shared memory and
            are the receiver's only during the call that hands them over.**
        shapes: of each output; the same tuple object for the same form, so that it can be a cache's key.
        device: the one that answered.
        fell_back: it is the model's fallback.
    """

    __slots__ = ("device", "fell_back", "outputs", "shapes")

    def __init__(self, outputs: Sequence[Bytes], shapes: tuple[Shape, ...], device: str, *, fell_back: bool) -> None:
        self.outputs = outputs
        self.shapes = shapes
        self.device = device
        self.fell_back = fell_back


Receiver = Callable[["Job", "Completion | NpuopsError"], None]


class Job:
    """One request. Its receiver is called exactly once, unless the job was cancelled first.

    Attributes:
        form: its shapes.
        parts: bytes of each input, row-major, little-endian, in the model's order; text as the protocol's binary form
            (for each element its length in 4 bytes, then its bytes). They must stay valid until the receiver is called.
        receiver: gets the completion, or the error.
        arrived_us: on the engine's clock.
        deadline_us: on the engine's clock; `NO_DEADLINE` where it has none.
        tenant: whose share it uses.
        account: whose counters it is told under: the tenant's, or nobody's ("") where it is a part of another request.
        priority: 0 first.
        fallback: the request's own word on the fallback; "" leaves it to the model.
        context: the front end's own; nobody else looks at it.
        attempts: devices that failed on it.
        avoid: the device that had no memory for it; "" where none refused it.
        cancelled: nobody waits for it any more.
    """

    __slots__ = (
        "account",
        "arrived_us",
        "attempts",
        "avoid",
        "cancelled",
        "context",
        "deadline_us",
        "fallback",
        "form",
        "parts",
        "priority",
        "receiver",
        "tenant",
    )

    def __init__(  # noqa: PLR0913, PLR0917 - positional, since keywords cost a third more here
        self,
        form: Form,
        parts: Sequence[Bytes],
        receiver: Receiver,
        arrived_us: int,
        context: Any = None,
        tenant: str = DEFAULT_TENANT,
        priority: int = 0,
        deadline_us: int = NO_DEADLINE,
        fallback: Fallback = "",
    ) -> None:
        self.form = form
        self.parts = parts
        self.receiver = receiver
        self.arrived_us = arrived_us
        self.context = context
        self.tenant = tenant
        self.account = tenant
        self.priority = priority
        self.deadline_us = deadline_us
        self.fallback: Fallback = fallback
        self.attempts = 0
        self.avoid = ""
        self.cancelled = False
