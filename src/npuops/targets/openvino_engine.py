"""OpenVINO itself: reading a graph, compiling it into a blob, loading the blob, and a session on it.

The only place that imports `openvino`. Importing it sends a usage event to Intel unless the user opted out; `runtime`
keeps that from happening.
"""

from __future__ import annotations

import functools
import io
import statistics
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from npuops.artifacts.manifest import Artifact
from npuops.errors import (
    CompileError,
    IncompatibleArtifactError,
    MissingToolchainError,
    RunError,
    StorageError,
    ToolchainError,
)
from npuops.models.model import Model, TensorInfo
from npuops.models.onnx_file import read_onnx
from npuops.models.placement import Placement, RunsOn
from npuops.targets.inputs import check_inputs
from npuops.targets.openvino_rules import place_as_answered
from npuops.targets.openvino_saturation import with_saturation
from npuops.targets.protocol import Compilation, OpCost, Tensors

ENTRY: Final = "compiled.blob"
INSTALL: Final = "pip install 'npuops[openvino]'"
RUNS: Final = 5
"""Timed inferences after one that warms up; each operator's cost is the median."""

_MODULE: Final = "openvino"
_TELEMETRY: Final = "openvino_telemetry"
_ABSENT: Final = ModuleType("absent")
_REQUIREMENTS: Final = "RUNTIME_REQUIREMENTS"
_PRECISION: Final = "INFERENCE_PRECISION_HINT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """One plugin of OpenVINO, and how it is set."""

    target: str
    device: str
    """OpenVINO's name of it: `CPU`, `NPU` or `GPU`."""
    config: Mapping[str, str]


def runtime() -> Any:
    """The `openvino` module, imported without its telemetry.

    `import openvino` imports its model converter, which sends an event ("import") as long as nobody opted out. With
    the telemetry package out of sight, the converter takes the silent stand-in that OpenVINO brings along.

    Raises:
        MissingToolchainError: it does not import.
    """
    hidden = sys.modules.get(_TELEMETRY, _ABSENT)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # Python's own way to say "cannot be imported"
    try:
        import openvino  # noqa: PLC0415 - 0.15 s and a 50 MB library that `npuops targets` and `check` must not pay
    except ImportError as error:
        raise MissingToolchainError(f"openvino does not import: {error}", advice=INSTALL) from error
    finally:
        if hidden is _ABSENT:
            del sys.modules[_TELEMETRY]
        else:
            sys.modules[_TELEMETRY] = hidden
    return openvino


def is_pristine() -> bool:
    """Whether this process has not loaded OpenVINO: its numbers of nodes grow, and end up in the blob."""
    return _MODULE not in sys.modules


def compile_graph(engine: Engine, model: Model, folder: Path) -> Compilation:
    """Compile `model` as a whole into `folder`.

    Raises:
        CompileError: OpenVINO cannot read the graph, or does not take it as a whole.
        MissingToolchainError: OpenVINO or the device is not here.
        UnsupportedModelError: 16-bit quantizers whose saturation cannot be kept.
    """
    core = _core(engine)
    graph, clipped = _read(core, model.path)
    placement = place_as_answered(model, graph, _taken(core, graph, engine), engine.device)
    _refuse_parts(engine, placement)
    try:
        compiled = core.compile_model(graph, engine.device, dict(engine.config))
        blob = compiled.export_model().getvalue()
        loaded = _imported(core, engine, blob)  # proves that it loads
    except Exception as error:
        raise CompileError(f"{engine.target}: {words_of(error)}", advice="see OpenVINO's words") from error
    _check_precision(engine, loaded)
    _write(folder / ENTRY, blob)
    return Compilation(
        entry=ENTRY,
        files=(ENTRY,),
        placement=placement,
        compatibility=_requirements(core, compiled, engine.device),
        notes={"float_16bit_tensors": str(clipped)} if clipped else {},
    )


def load(engine: Engine, artifact: Artifact) -> Any:
    """The compiled model of an artifact's blob.

    Raises:
        IncompatibleArtifactError: compiled by another OpenVINO, or for another instruction set.
        MissingToolchainError: OpenVINO or the device is not here.
        ToolchainError: OpenVINO refused the blob.
    """
    core = _core(engine)
    wanted, here = artifact.manifest.compatibility, requirements_here(engine.device)
    if here != wanted:
        raise IncompatibleArtifactError(
            f"the blob was compiled for {wanted or 'nothing that it names'}; this is {here}",
            advice="build it again here: a blob belongs to one version of OpenVINO and one instruction set",
        )
    try:
        blob = artifact.entry.read_bytes()
    except OSError as error:
        raise StorageError(f"{artifact.entry} cannot be read: {error.strerror}") from error
    try:
        compiled = _imported(core, engine, blob)
    except Exception as error:
        raise ToolchainError(
            f"{engine.target} cannot load {artifact.entry.name}: {words_of(error)}",
            advice="npuops verify says whether the file is whole; else build the artifact again",
        ) from error
    _check_precision(engine, compiled)
    return compiled


@functools.cache
def requirements_here(device: str) -> str:
    """What a blob that is compiled here would need; OpenVINO tells only by compiling something (30 ms).

    Raises:
        ToolchainError: the device does not work.
    """
    openvino = runtime()
    core, opset = openvino.Core(), openvino.opset13
    value = opset.parameter([1], np.float32)
    graph = openvino.Model([opset.result(opset.relu(value))], [value], "smallest")
    try:
        return _requirements(core, core.compile_model(graph, device), device)
    except Exception as error:
        raise ToolchainError(f"OpenVINO's {device} does not work here: {words_of(error)}") from error


class OpenvinoSession:
    """A loaded blob. Inputs are checked by us first. Not thread-safe: one request, one at a time."""

    def __init__(self, artifact: Artifact, engine: Engine, compiled: Any) -> None:
        self.inputs: tuple[TensorInfo, ...] = artifact.manifest.inputs
        self.outputs: tuple[TensorInfo, ...] = artifact.manifest.outputs
        self._engine = engine
        # OpenVINO drops an input that nothing reads; it stays one of the model's.
        self._read = _names(compiled.inputs) & {tensor.name for tensor in self.inputs}
        _match(artifact, "inputs", compiled.inputs, self._read)
        _match(artifact, "outputs", compiled.outputs, {tensor.name for tensor in self.outputs})
        self._request: Any = compiled.create_infer_request()

    def run(self, inputs: Tensors) -> dict[str, NDArray[Any]]:
        """One inference.

        Raises:
            DataError: a name, shape or dtype is not the model's.
            RunError: OpenVINO refused, or the session was closed.
        """
        if self._request is None:
            raise RunError(f"this session on {self._engine.target} is closed", advice="open the artifact again")
        check_inputs(inputs, self.inputs)
        try:
            self._request.infer({name: _fed(np.asarray(inputs[name], order="C")) for name in self._read})
            # The buffers are the request's: the next inference writes over them.
            return {
                tensor.name: _given(self._request.get_tensor(tensor.name).data.copy(), tensor)
                for tensor in self.outputs
            }
        except Exception as error:
            raise RunError(
                f"{self._engine.target} refused an input: {words_of(error)}",
                advice="the session is still on its device; check the values of this input",
            ) from error

    def costs(self) -> list[OpCost]:
        """Microseconds of each operator in the last inference, in execution order; needs PERF_COUNT."""
        ran = [info for info in self._request.get_profiling_info() if info.status == info.Status.EXECUTED]
        return [
            OpCost(
                name=info.node_name,
                op=f"{info.node_type} [{info.exec_type}]",
                runs_on=RunsOn.NPU,
                cost=info.real_time.total_seconds() * 1e6,
            )
            for info in ran
        ]

    def close(self) -> None:
        """Give the device back. A second call does nothing."""
        self._request = None


def _fed(array: NDArray[Any]) -> Any:
    """An input as OpenVINO takes it. Its Python side knows no array of bfloat16, and takes one for other numbers."""
    if array.dtype.name != "bfloat16":
        return array
    openvino = runtime()
    return openvino.Tensor(array.view(np.uint16), array.shape, openvino.Type.bf16)


def _given(array: NDArray[Any], tensor: TensorInfo) -> NDArray[Any]:
    """An output with its own dtype: OpenVINO calls the bits of bfloat16 float16."""
    if tensor.dtype != "bfloat16":
        return array
    import ml_dtypes  # noqa: PLC0415 - few models need it

    return array.view(ml_dtypes.bfloat16)


def median_costs(session: OpenvinoSession, inputs: Tensors) -> tuple[OpCost, ...]:
    """Each operator's median over a few inferences.

    Raises:
        ToolchainError: OpenVINO names no operator.
    """
    session.run(inputs)  # the first one warms up
    found: dict[tuple[str, str], list[float]] = {}
    places: dict[tuple[str, str], RunsOn] = {}
    for _ in range(RUNS):
        session.run(inputs)
        for one in session.costs():
            found.setdefault((one.name, one.op), []).append(one.cost)
            places[one.name, one.op] = one.runs_on
    if not found:
        raise ToolchainError("OpenVINO's counters name no operator on this device")
    # An operator below the counter's resolution is sometimes left out of a run: there it took no time.
    return tuple(
        OpCost(name=name, op=op, runs_on=places[name, op], cost=statistics.median(costs + [0.0] * (RUNS - len(costs))))
        for (name, op), costs in found.items()
    )


def words_of(error: Exception) -> str:
    """OpenVINO's words without the places in its source; long ones are cut."""
    lines = [line.strip() for line in str(error).splitlines()]
    return " | ".join(line for line in lines if line and not line.startswith("Exception from "))[:1500]


def _core(engine: Engine) -> Any:
    core = runtime().Core()
    if engine.device != "CPU" and engine.device not in {name.partition(".")[0] for name in core.available_devices}:
        raise MissingToolchainError(
            f"OpenVINO offers no {engine.device} on this machine (it has {', '.join(core.available_devices)})",
            advice=f"npuops targets says what {engine.target} needs",
        )
    return core


def _read(core: Any, path: Path) -> tuple[Any, int]:
    """The graph, and how many 16-bit quantizers had their saturation spelt out."""
    proto = read_onnx(path)
    clipped = with_saturation(proto)
    try:
        return core.read_model(io.BytesIO(proto.SerializeToString(deterministic=True))), clipped
    except Exception as error:
        raise CompileError(
            f"OpenVINO cannot read {path.name}: {words_of(error)}",
            advice="npuops check names what the target does not take",
        ) from error


def _taken(core: Any, graph: Any, engine: Engine) -> Collection[str]:
    try:
        return set(core.query_model(graph, engine.device, dict(engine.config)))
    except Exception as error:
        raise CompileError(f"{engine.target}: {words_of(error)}", advice="see OpenVINO's words") from error


def _refuse_parts(engine: Engine, placement: tuple[Placement, ...]) -> None:
    refused = [node for node in placement if node.runs_on is RunsOn.CPU]
    if refused:
        words = "; ".join(f"{node.name} ({node.op}) {node.found}" for node in refused[:5])
        raise CompileError(
            f"{engine.target} does not take {len(refused)} of {len(placement)} layers: {words}",
            advice="a model runs there as a whole or not at all: change these layers, or use openvino (the CPU)",
        )


def _imported(core: Any, engine: Engine, blob: bytes) -> Any:
    return core.import_model(io.BytesIO(blob), engine.device, dict(engine.config))


def _check_precision(engine: Engine, compiled: Any) -> None:
    wanted = engine.config[_PRECISION]
    names = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
    got = compiled.get_property(_PRECISION).to_string()
    if got not in {wanted, names[wanted]}:
        raise ToolchainError(
            f"{engine.target} computes in {got}, not in {wanted}", advice="choose a precision that this device has"
        )


def _requirements(core: Any, compiled: Any, device: str) -> str:
    """What a blob needs, in OpenVINO's words (version and instruction set), or version and device."""
    if _REQUIREMENTS in compiled.get_property("SUPPORTED_PROPERTIES"):
        return str(compiled.get_property(_REQUIREMENTS))
    version = core.get_versions(device)[device].build_number
    return f"ov={version};device={core.get_property(device, 'FULL_DEVICE_NAME')}"


def _write(path: Path, blob: bytes) -> None:
    try:
        path.write_bytes(blob)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}") from error


def _names(ports: Any) -> set[str]:
    return {name for port in ports for name in port.get_names()}


def _match(artifact: Artifact, what: str, ports: Any, wanted: set[str]) -> None:
    missing = sorted(wanted - _names(ports))
    if missing or len(ports) != len(wanted):
        raise IncompatibleArtifactError(
            f"{artifact.manifest.entry} and the manifest disagree on {what}: {', '.join(missing) or len(ports)}",
            advice="build the artifact again",
        )
