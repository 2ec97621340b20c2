"""The `Runner` and `Session` of virtual NPUs: an artifact on a device that is up, or on one of its own."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from npuops.artifacts.manifest import Artifact
from npuops.errors import IncompatibleArtifactError, NpuopsError, RunError
from npuops.models.model import TensorInfo
from npuops.targets.inputs import check_inputs
from npuops.targets.protocol import ModelledRun, Tensors
from npuops.vnpu.client import DeviceClient, DeviceProgram, connect
from npuops.vnpu.control_client import CALL_LIMIT_S
from npuops.vnpu.daemon import Order
from npuops.vnpu.device_switch import up_private
from npuops.vnpu.line_client import NoAnswerError
from npuops.vnpu.pacing import Pacing
from npuops.vnpu.program_file import ProgramFile, decode_program
from npuops.vnpu.spec import MachineSpec
from npuops.vnpu.tenancy import Priority
from npuops.vnpu.tensors import TensorSpec
from npuops.vnpu.wire import Completed


@dataclass(frozen=True, slots=True, kw_only=True)
class VnpuRunner:
    """Opens sessions.

    Attributes:
        spec_of: the numbers of a profile, for a device of the session's own.
        device: the name of a device that is up; None: each session has a device to itself, in `fast` pacing, that
            goes when the session (or this process) does.
        priority: of the session's context.
        timeout_s: for each inference.
    """

    spec_of: Callable[[str], MachineSpec]
    device: str | None = None
    priority: Priority = Priority.NORMAL
    timeout_s: float = CALL_LIMIT_S

    def open(self, artifact: Artifact) -> VnpuSession:
        """Load a verified artifact on the device.

        Raises:
            IncompatibleArtifactError: built for another chip, or a compiler that the firmware does not take.
            UnsupportedModelError: an operator that the device does not have (any more).
            DeviceMemoryError: it does not fit beside what others have loaded.
            DeviceError: the device is not up, or refuses the program.
            ToolchainError: the host runner cannot load the graph.
        """
        file = decode_program(artifact.entry.read_bytes())
        with _naming(self.device), ExitStack() as stack:
            name = self.device or self._own_device(file.profile, stack)
            client = stack.enter_context(connect(name, priority=self.priority))
            _must_fit(file, client)
            program = client.load(
                file.program,
                _specs(artifact.manifest.inputs),
                _specs(artifact.manifest.outputs),
                model=artifact.root / file.model,
                compiler=file.compiler,
            )
            return VnpuSession(artifact, self, client, program, stack.pop_all())

    def _own_device(self, profile: str, stack: ExitStack) -> str:
        name = f"own-{os.getpid()}-{secrets.token_hex(4)}"
        stack.enter_context(up_private(Order(name=name, spec=self.spec_of(profile), pacing=Pacing.FAST)))
        return name


class VnpuSession:
    """A loaded artifact on one virtual device. For one thread.

    Attributes:
        last: what the device said of the last inference: times, energy, pre-emptions; all modelled. None before.
    """

    def __init__(
        self,
        artifact: Artifact,
        runner: VnpuRunner,
        client: DeviceClient,
        program: DeviceProgram,
        resources: ExitStack,
    ) -> None:
        """`VnpuRunner.open` makes them."""
        self.inputs: tuple[TensorInfo, ...] = artifact.manifest.inputs
        self.outputs: tuple[TensorInfo, ...] = artifact.manifest.outputs
        self.last: Completed | None = None
        self._program: DeviceProgram | None = program
        self._resources = resources
        self._runner, self._client = runner, client

    def run(self, inputs: Tensors) -> dict[str, NDArray[Any]]:
        """One inference.

        Raises:
            DataError: a name, shape or dtype is not the model's.
            DeviceLostError: the device was reset, is gone or does not answer; after a reset the session still works.
            RunError: the host runner refused, or the session was closed.
        """
        if self._program is None:
            raise RunError("this session is closed", advice="open the artifact again")
        check_inputs(inputs, self.inputs)
        try:
            with _naming(self._runner.device):
                outputs, self.last = self._program.run(inputs, self._runner.timeout_s)
        except NoAnswerError as error:
            if self._client.pacing != Pacing.MANUAL:
                raise
            advice = "its pacing is manual: move its time meanwhile, or take one in fast or realtime pacing"
            raise NoAnswerError(error.message, advice=advice) from error
        return outputs

    def modelled(self) -> ModelledRun | None:
        """The last inference as the device saw it, and what it shows now; None before the first.

        Raises:
            DeviceLostError: the device is gone or does not answer.
        """
        if self.last is None:
            return None
        with _naming(self._runner.device):
            seen = self._client.status().telemetry
        return ModelledRun(
            latency_us=round(self.last.latency_us, 3),  # the device counts nanoseconds
            wait_us=round(self.last.latency_us - self.last.busy_us, 3),
            energy_mj=self.last.energy_mj,
            temperature_c=seen.temperature_c,
            clock_mhz=seen.cap_mhz,
        )

    def close(self) -> None:
        """Give the device back. A second call does nothing."""
        self._program = None
        self._resources.close()


@contextmanager
def _naming(device: str | None) -> Iterator[None]:
    """Of several devices that are up, an error names the one that it is about."""
    try:
        yield
    except NpuopsError as error:
        if device is None or device in error.message:
            raise
        raise type(error)(f"{device}: {error.message}", advice=error.advice) from error


def _must_fit(file: ProgramFile, client: DeviceClient) -> None:
    if client.profile != file.profile:
        raise IncompatibleArtifactError(
            f"the artifact was built for vnpu:{file.profile}, {client.device} is a {client.profile}",
            advice=f"npuops device up vnpu:{file.profile} --name ANOTHER, or build for vnpu:{client.profile}",
        )


def _specs(tensors: tuple[TensorInfo, ...]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(tensor.name, tensor.dtype, _static(tensor)) for tensor in tensors)


def _static(tensor: TensorInfo) -> tuple[int, ...]:
    shape = tuple(dim for dim in tensor.shape or () if isinstance(dim, int))
    if not tensor.is_static:
        raise IncompatibleArtifactError(
            f"{tensor.name!r} has the shape {tensor.shape}: a device runs static shapes only",
            advice="fix the shapes and build again (npuops build --shape)",
        )
    return shape
