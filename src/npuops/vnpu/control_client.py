"""Look at a virtual NPU and switch it: status, faults, resets, time, firmware. Works on a device that is off, too."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

from npuops.vnpu import wire
from npuops.vnpu.device_folder import device_folder
from npuops.vnpu.firmware import Quote
from npuops.vnpu.line_client import Line
from npuops.vnpu.tenancy import Priority

CALL_LIMIT_S: Final = 60.0


def control(name: str, *, timeout_s: float = 10.0) -> DeviceControl:
    """Connect to the device of that name, without a context.

    Raises:
        DeviceLostError: no such device is up, or it does not answer.
        OptionError: no name of a device.
    """
    return DeviceControl(Line(device_folder(name), timeout_s), None, timeout_s)


class DeviceControl:
    """A connection. For one thread.

    Attributes:
        device: its name.
        profile: the chip.
        pacing: `realtime`, `fast` or `manual`.
        context: number of the context, as the tree shows it; None without one.
    """

    def __init__(self, line: Line, priority: Priority | None, timeout_s: float) -> None:
        """Introduce us; `control` and `client.connect` are the usual ways."""
        self._line = line
        word = None if priority is None else priority.word
        try:
            hello = wire.Hello(id=line.number(), version=wire.VERSION, priority=word)
            welcome = line.ask(hello, wire.Welcome, timeout_s)
        except BaseException:
            line.close()
            raise
        self.device, self.profile = welcome.device, welcome.profile
        self.pacing, self.context = welcome.pacing, welcome.context

    def status(self, timeout_s: float = CALL_LIMIT_S) -> wire.Status:
        """Everything that the device shows."""
        return self._line.ask(wire.AskStatus(id=self._line.number()), wire.Status, timeout_s)

    def inject(self, fault: Mapping[str, Any], timeout_s: float = CALL_LIMIT_S) -> None:
        """A fault, now; its keys are those of a plan file, without `at_s`.

        Raises:
            OptionError: no such fault, or figures that it does not take.
        """
        self._line.ask(wire.Inject(id=self._line.number(), fault=dict(fault)), wire.Done, timeout_s)

    def clear_faults(self, timeout_s: float = CALL_LIMIT_S) -> None:
        """End every fault that lasts."""
        self._line.ask(wire.ClearFaults(id=self._line.number()), wire.Done, timeout_s)

    def reset(self, timeout_s: float = CALL_LIMIT_S) -> None:
        """Reset the device; jobs of all clients are lost."""
        self._line.ask(wire.Reset(id=self._line.number()), wire.Done, timeout_s)

    def advance(self, us: int, timeout_s: float = CALL_LIMIT_S) -> None:
        """Manual pacing: let time pass.

        Raises:
            OptionError: the device has another pacing.
        """
        self._line.ask(wire.Advance(id=self._line.number(), us=us), wire.Done, timeout_s)

    def update_firmware(self, image: bytes, timeout_s: float = CALL_LIMIT_S) -> None:
        """Put an image into the device's flash; it runs after the next reset, if the device trusts it.

        Raises:
            IntegrityError: this is no firmware image.
        """
        self._line.ask(wire.UpdateFirmware(id=self._line.number(), image=image), wire.Done, timeout_s)

    def attest(self, nonce: bytes, timeout_s: float = CALL_LIMIT_S) -> Quote:
        """The device's signed word for what it runs; `firmware.verify_quote` checks it.

        Raises:
            OptionError: a nonce that is too short.
        """
        return self._line.ask(wire.Attest(id=self._line.number(), nonce=nonce), wire.Attested, timeout_s).quote

    def close(self) -> None:
        """Hang up. A second call does nothing."""
        self._line.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
