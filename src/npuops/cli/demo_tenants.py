"""Who uses the demo's device: we, with one inference at a time, and neighbours that never rest."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from npuops.artifacts.manifest import Artifact
from npuops.cli.demo_models import backbone
from npuops.evaluate.samples import Samples
from npuops.models.model import TensorInfo
from npuops.models.open import open_model
from npuops.targets.protocol import CompileOptions, Precision
from npuops.targets.registry import open_target
from npuops.vnpu.client import connect
from npuops.vnpu.device_telemetry import ContextTelemetry, Telemetry
from npuops.vnpu.program_file import ProgramFile, decode_program
from npuops.vnpu.tensors import TensorSpec

QUEUED: Final = 32
"""Pictures that a neighbour submits together, to wait for all of them."""


class Camera:
    """Our client: an artifact, and a picture from time to time.

    Attributes:
        client: its context on the device.
    """

    def __init__(self, device: str, artifact: Artifact, samples: Samples) -> None:
        """Connect and load.

        Raises:
            DeviceError: the device refuses the program, or is lost.
        """
        file = decode_program(artifact.entry.read_bytes())
        self._samples = samples
        self.client = connect(device)
        try:
            self._program = self.client.load(
                file.program,
                _specs(artifact.manifest.inputs),
                _specs(artifact.manifest.outputs),
                model=artifact.root / file.model,
                compiler=file.compiler,
                slots=1,
            )
        except BaseException:
            self.client.close()
            raise

    def submit(self, picture: int) -> int:
        """Send a sample, by its number; gives a ticket. When it returns, the device has it."""
        for name, array in self._samples.inputs[picture].items():
            np.copyto(self._program.inputs[0][name], array)
        ticket = self._program.submit(0)
        self.client.status()  # answered in order, while somebody else's `advance` could overtake the submission
        return ticket

    def answer(self, ticket: int) -> tuple[float, dict[str, NDArray[Any]]]:
        """The latency in modelled µs, and the outputs.

        Raises:
            DeviceLostError: a reset took the job.
        """
        done = self._program.wait(ticket)
        return done.latency_us, {name: view.copy() for name, view in self._program.outputs[0].items()}

    def waits(self, seen: Telemetry) -> bool:
        """Whether a job of ours is not through."""
        mine = context_of(seen, self.client.context)
        return mine is not None and mine.queued + mine.running > 0


class Neighbour:
    """Another client: it queues pictures for its network, waits until all are through, and queues again.

    Attributes:
        client: its context on the device.
    """

    def __init__(self, device: str, file: ProgramFile) -> None:
        """Connect and load.

        Raises:
            DeviceError: the device refuses the program, or is lost.
        """
        self.client = connect(device)
        self._tickets: list[int] = []
        nothing = (TensorSpec("unread", "float32", (1,)),)  # nobody looks at its numbers, so none are computed
        try:
            self._program = self.client.load(file.program, nothing, nothing, compiler=file.compiler, slots=QUEUED)
        except BaseException:
            self.client.close()
            raise

    def work_on(self, seen: Telemetry) -> None:
        """Queue again if everything is through. When it returns, the device has it.

        Raises:
            DeviceError: a job was lost, or the device takes none.
        """
        mine = context_of(seen, self.client.context)
        if mine is not None and mine.queued + mine.running:
            return
        for ticket in self._tickets:
            self._program.wait(ticket)
        self._tickets = [self._program.submit(slot) for slot in range(QUEUED)]
        self.client.status()  # as above


def context_of(seen: Telemetry, number: int | None) -> ContextTelemetry | None:
    """The telemetry of one context; None if the device lost it."""
    return next((context for context in seen.contexts if context.id == number), None)


def neighbours_program(target: str) -> ProgramFile:
    """What the neighbours run, compiled for a virtual target.

    Raises:
        CompileError: the chip has no room for it.
    """
    with TemporaryDirectory(prefix="npuops-demo-") as folder:
        model = open_model(backbone(Path(folder) / "backbone.onnx"))
        (compiled := Path(folder) / "compiled").mkdir()
        compilation = open_target(target).compile(model, CompileOptions(precision=Precision.A8W8), compiled)
        return decode_program((compiled / compilation.entry).read_bytes())


def _specs(tensors: tuple[TensorInfo, ...]) -> tuple[TensorSpec, ...]:
    """Of a compiled artifact, whose shapes are static."""
    return tuple(
        TensorSpec(tensor.name, tensor.dtype, tuple(dim for dim in tensor.shape or () if isinstance(dim, int)))
        for tensor in tensors
    )
