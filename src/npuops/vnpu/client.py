"""A program's side of a virtual NPU: connect, load, run. One thread at a time; every wait has an end.

A device that dies, hangs or is taken down ends every call here with a `DeviceLostError` within the call's time limit;
what to do then (connect again, another device, give up) is the caller's business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npuops.errors import DataError, NpuopsError, RunError
from npuops.vnpu import wire
from npuops.vnpu.control_client import CALL_LIMIT_S, DeviceControl
from npuops.vnpu.device_folder import device_folder
from npuops.vnpu.line_client import Line, NoAnswerError
from npuops.vnpu.program import Program
from npuops.vnpu.segment import Segment, Views
from npuops.vnpu.tenancy import Priority
from npuops.vnpu.tensors import TensorSpec, layout_of


def connect(name: str, *, priority: Priority = Priority.NORMAL, timeout_s: float = 10.0) -> DeviceClient:
    """Open a context on the device of that name.

    Args:
        name: as given to `npuops device up --name`.
        priority: of everything that this client submits.
        timeout_s: until the device has answered.

    Raises:
        DeviceLostError: no such device is up, it is off, or it does not answer.
        OptionError: no name of a device.
    """
    return DeviceClient(Line(device_folder(name), timeout_s), priority, timeout_s)


class DeviceClient(DeviceControl):
    """A tenant: what a `DeviceControl` can, and programs. When it ends, all its programs and memory go."""

    def load(
        self,
        program: Program,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        *,
        model: Path | None = None,
        compiler: str | None = None,
        slots: int = 2,
        timeout_s: float = CALL_LIMIT_S,
    ) -> DeviceProgram:
        """Put a program on the device.

        Args:
            program: what it costs.
            inputs: of every inference.
            outputs: of every inference.
            model: an ONNX file that computes the outputs; without it they stay as they are.
            compiler: version of what wrote the program; None: the one released with the device.
            slots: how many inferences may be under way at once.
            timeout_s: for the device, and for ONNX Runtime to load the model.

        Raises:
            DeviceMemoryError: it does not fit.
            DeviceError: the device refuses it (an operator, a version), or is lost.
            ToolchainError: ONNX Runtime cannot load the model.
            OptionError: tensors that shared memory cannot hold.
        """
        layout = layout_of(inputs, outputs, slots)
        path = None if model is None else str(model.absolute())
        request = wire.Load(
            id=self._line.number(),
            program=program,
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            slots=slots,
            compiler=compiler,
            model=path,
        )
        loaded = self._line.ask(request, wire.Loaded, timeout_s)
        segment = Segment(self._line.take_descriptor(request.id), layout)
        return DeviceProgram(self._line, loaded.handle, segment, slots)


class DeviceProgram:
    """A program on the device, with its tensors in shared memory.

    Attributes:
        inputs, outputs: for each slot, arrays in memory that the device reads and writes itself: what is written
            there needs no copy. They are the caller's only while no job is under way in the slot.
    """

    def __init__(self, line: Line, handle: int, segment: Segment, slots: int) -> None:
        self.inputs: tuple[Views, ...] = segment.inputs
        self.outputs: tuple[Views, ...] = segment.outputs
        self._line, self._handle = line, handle
        self._free = list(range(slots))
        self._under_way: dict[int, int] = {}
        self._abandoned: set[int] = set()

    def submit(self, slot: int, *, canary: bool = False) -> int:
        """Start an inference on what lies in a slot's inputs; gives a ticket for `wait`.

        Args:
            slot: which inputs and outputs.
            canary: we know the right answer, and the device counts whether it came out.

        Raises:
            RunError: a job is under way in that slot.
            DeviceLostError: the device is gone.
        """
        self._reclaim()
        if slot not in self._free:
            raise RunError(f"slot {slot} is under way, or there is no such slot", advice="wait for its job first")
        request = wire.Submit(id=self._line.number(), handle=self._handle, slot=slot, canary=canary)
        self._line.send(request)
        self._free.remove(slot)
        self._under_way[request.id] = slot
        return request.id

    def wait(self, ticket: int, timeout_s: float = CALL_LIMIT_S) -> wire.Completed:
        """Until the inference is through; its outputs are in its slot.

        Raises:
            NoAnswerError: the device does not answer in time. The slot stays the device's, and the ticket may be
                waited for again.
            DeviceLostError: the device was reset or is gone.
            DeviceError: the device refused, or the job failed.
            RunError: the host runner refused the inputs, or no such ticket is under way.
        """
        if ticket not in self._under_way:
            raise RunError(f"no job {ticket} is under way", advice="a ticket can be waited for once")
        try:
            completed = self._line.wait(ticket, wire.Completed, timeout_s)
        except NoAnswerError:
            raise
        except NpuopsError:
            self._free.append(self._under_way.pop(ticket))
            raise
        self._free.append(self._under_way.pop(ticket))
        return completed

    def run(
        self, inputs: Mapping[str, NDArray[Any]], timeout_s: float = CALL_LIMIT_S, *, canary: bool = False
    ) -> tuple[dict[str, NDArray[Any]], wire.Completed]:
        """One inference: copies the inputs in and the outputs out.

        Raises:
            DataError: a name, shape or dtype is not the program's.
            RunError: every slot is under way; also as `wait`, but the slot is reclaimed once a late answer comes.
        """
        self._reclaim()
        if not self._free:
            raise RunError("every slot is under way", advice="wait for a job first, or load with more slots")
        slot = self._free[-1]  # the one used last: its pages are in the caches
        views = self.inputs[slot]
        if inputs.keys() != views.keys():
            raise DataError(f"inputs are {', '.join(sorted(views))}; found {', '.join(sorted(inputs))}")
        for name, array in inputs.items():
            view = views[name]
            if array.shape != view.shape or array.dtype != view.dtype:
                raise DataError(
                    f"input {name!r} is {array.dtype}{list(array.shape)}, not {view.dtype}{list(view.shape)}"
                )
            np.copyto(view, array)
        ticket = self.submit(slot, canary=canary)
        try:
            completed = self.wait(ticket, timeout_s)
        finally:
            if ticket in self._under_way:
                self._abandoned.add(ticket)
        return {name: view.copy() for name, view in self.outputs[slot].items()}, completed

    def unload(self, timeout_s: float = CALL_LIMIT_S) -> None:
        """Give the program's memory back; the arrays must not be used afterwards.

        Raises:
            OptionError: jobs of it are not through.
        """
        self._line.ask(wire.Unload(id=self._line.number(), handle=self._handle), wire.Done, timeout_s)

    def _reclaim(self) -> None:
        """Slots of inferences that nobody waits for any more, and that are through by now."""
        for ticket in [ticket for ticket in self._abandoned if self._line.has_come(ticket)]:
            self._abandoned.remove(ticket)
            with suppress(NpuopsError):
                self.wait(ticket)
