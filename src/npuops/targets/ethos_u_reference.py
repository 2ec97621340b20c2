"""Two reference implementations of the graph that Vela compiled: LiteRT's reference kernels and Arm's TOSA model.

Both run the plain TFLite file of an artifact with exact integer arithmetic, and agree bit for bit. Neither is a device:
their time means nothing. Vela's own output runs on no host.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npuops.artifacts.manifest import Artifact
from npuops.errors import IncompatibleArtifactError, MissingToolchainError, RunError, ToolchainError
from npuops.models.model import Model
from npuops.targets.child import WORDS_KEPT
from npuops.targets.ethos_u_vela import IO, PLAIN
from npuops.targets.inputs import check_inputs
from npuops.targets.protocol import Runner, Session, Tensors
from npuops.targets.tflite_ops import TfliteFile, TfliteIo
from npuops.targets.tflite_writer import INSTALL, with_fixed_shapes

Array = NDArray[Any]
Kernel = Callable[[list[Array]], list[Array]]
"""Stored integers in → stored integers out, in the order of the TFLite file."""

IO_SCHEMA = "npuops.tflite-io/1"


def io_of(file: TfliteFile) -> str:
    """The I/O description that travels with a converted file."""
    ports = {"inputs": [asdict(io) for io in file.inputs], "outputs": [asdict(io) for io in file.outputs]}
    return json.dumps({"schema": IO_SCHEMA, **ports}, indent=1, sort_keys=True) + "\n"


def io_of_model(model: Model) -> str:
    """The same for a TFLite source: tensors pass as they are, so scale and zero point are null."""

    def rows(tensors: Sequence[Any]) -> list[dict[str, Any]]:
        return [
            {"name": t.name, "dtype": t.dtype, "shape": t.shape, "axes": None, "scale": None, "zero_point": None}
            for t in tensors
        ]

    ports = {"inputs": rows(model.inputs), "outputs": rows(model.outputs)}
    return json.dumps({"schema": IO_SCHEMA, **ports}, indent=1, sort_keys=True) + "\n"


def to_stored(array: Array, io: TfliteIo | None) -> Array:
    """A tensor of the source model as the integers of the TFLite file; rounds half to even, as ONNX does."""
    if io is None:
        return array
    if array.dtype == np.uint8:
        levels = array.astype(np.int16) - 128
    elif array.dtype == np.int8:
        levels = array.astype(np.int16)
    else:
        levels = np.rint(array / np.float32(io.scale)) + io.zero_point
    return np.ascontiguousarray(np.clip(levels, -128, 127).astype(np.int8).transpose(io.axes))


def from_stored(array: Array, io: TfliteIo | None) -> Array:
    """Integers of the TFLite file as a tensor of the source model."""
    if io is None:
        return array
    levels = array.reshape([io.shape[axis] for axis in io.axes]).transpose(np.argsort(io.axes))
    if io.dtype == "uint8":
        return np.ascontiguousarray((levels.astype(np.int16) + 128).astype(np.uint8))
    if io.dtype == "int8":
        return np.ascontiguousarray(levels)
    real = (levels.astype(np.float32) - np.float32(io.zero_point)) * np.float32(io.scale)
    return np.ascontiguousarray(real.astype(io.dtype))


class ReferenceSession:
    """An artifact's plain TFLite on a reference implementation. Not thread-safe."""

    def __init__(self, artifact: Artifact, engine: str, kernel: Kernel, ports: tuple[Ports, Ports]) -> None:
        self.inputs = artifact.manifest.inputs
        self.outputs = artifact.manifest.outputs
        self._engine = engine
        self._kernel: Kernel | None = kernel
        self._ports = ports

    def run(self, inputs: Tensors) -> dict[str, Array]:
        """One inference in the source model's tensors.

        Raises:
            DataError: a name, dtype or shape is not the model's.
            RunError: the reference failed, or the session is closed.
        """
        raw = self.run_raw(inputs)
        return {name: from_stored(raw[name], io) for name, io in self._ports[1]}

    def run_raw(self, inputs: Tensors) -> dict[str, Array]:
        """One inference; outputs are the stored integers in the TFLite file's order of axes."""
        if self._kernel is None:
            raise RunError(f"the {self._engine} session is closed", advice="open the artifact again")
        check_inputs(inputs, self.inputs)
        stored = [to_stored(inputs[name], io) for name, io in self._ports[0]]
        made = self._kernel(stored)
        return {name: array for (name, _), array in zip(self._ports[1], made, strict=True)}

    def close(self) -> None:
        """Forget the graph."""
        self._kernel = None


Ports = tuple[tuple[str, TfliteIo | None], ...]


def _ports(artifact: Artifact) -> tuple[Ports, Ports]:
    path = artifact.root / IO
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise IncompatibleArtifactError(f"{path}: {error}", advice="build the artifact again") from error
    schema = description.get("schema") if isinstance(description, dict) else None
    if schema != IO_SCHEMA:
        raise IncompatibleArtifactError(
            f"{path.name} has schema {schema!r}, this npuops reads {IO_SCHEMA!r}",
            advice="build the artifact again",
        )
    return _read_ports(description["inputs"]), _read_ports(description["outputs"])


def _read_ports(rows: list[dict[str, Any]]) -> Ports:
    return tuple((row["name"], None if row["scale"] is None else _port(row)) for row in rows)


def _port(row: dict[str, Any]) -> TfliteIo:
    return TfliteIo(**{**row, "shape": tuple(row["shape"]), "axes": tuple(row["axes"])})


class LitertRunner:
    """LiteRT with its reference kernels (`BUILTIN_REF`): XNNPACK, its default, rounds differently."""

    def open(self, artifact: Artifact) -> Session:
        """Load the plain TFLite file.

        Raises:
            MissingToolchainError: ai-edge-litert is absent.
            ToolchainError: LiteRT refuses the file.
        """
        try:
            from ai_edge_litert import interpreter as litert  # noqa: PLC0415 - vendor package, extra ethos-u
        except ImportError as error:
            raise MissingToolchainError(f"ai-edge-litert is not installed: {error}", advice=INSTALL) from error
        try:
            loaded = litert.Interpreter(
                model_path=str(artifact.root / PLAIN),
                experimental_op_resolver_type=litert.OpResolverType.BUILTIN_REF,
            )
            loaded.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ToolchainError(
                f"LiteRT refuses {PLAIN}: {error}", advice="custom operators have no reference kernel"
            ) from error
        return ReferenceSession(artifact, "litert", _litert_kernel(loaded), _ports(artifact))


def _litert_kernel(loaded: Any) -> Kernel:
    inputs, outputs = loaded.get_input_details(), loaded.get_output_details()

    def run(stored: list[Array]) -> list[Array]:
        try:
            for detail, array in zip(inputs, stored, strict=True):
                loaded.set_tensor(detail["index"], array)
            loaded.invoke()
        except (ValueError, RuntimeError) as error:
            raise RunError(f"LiteRT failed: {error}") from error
        return [np.array(loaded.get_tensor(detail["index"])) for detail in outputs]

    return run


class TosaRunner:
    """Arm's TOSA reference model, on the TFLite file converted to TOSA."""

    def open(self, artifact: Artifact) -> Session:
        """Convert and load.

        Raises:
            MissingToolchainError: tosa-tools or tosa-converter-for-tflite is absent.
            ToolchainError: the converter refuses the graph; its words are in the message.
        """
        try:
            import tosa_reference_model as tosa  # noqa: PLC0415 - vendor package, extra ethos-u
        except ImportError as error:
            raise MissingToolchainError(f"tosa-tools is not installed: {error}", advice=INSTALL) from error
        graph = _tosa_graph(artifact.root / PLAIN)
        return ReferenceSession(artifact, "tosa", _tosa_kernel(tosa, graph), _ports(artifact))


def _tosa_kernel(tosa: Any, graph: bytes) -> Kernel:
    def run(stored: list[Array]) -> list[Array]:
        try:
            made, status = tosa.run(graph, stored, verbosity="NONE")
        except (ValueError, RuntimeError) as error:
            raise RunError(f"the TOSA reference model failed: {error}") from error
        if status != tosa.GraphStatus.TOSA_VALID:
            raise RunError(f"the TOSA reference model ended with {status}")
        return [np.array(array) for array in made]

    return run


def _tosa_graph(plain: Path) -> bytes:
    """TFLite → TOSA dialect → TOSA flatbuffer, by the vendor's two tools."""
    with tempfile.TemporaryDirectory(prefix="npuops-tosa-") as name:
        folder = Path(name)
        fixed, dialect, graph = folder / PLAIN, folder / "graph.mlirbc", folder / "graph.tosa"
        fixed.write_bytes(with_fixed_shapes(plain.read_bytes()))
        _tool("tosa-converter-for-tflite", str(fixed), "-o", str(dialect), makes=dialect)
        serialize = ("--tosa-serialize", f"--tosa-flatbuffer-filename={graph}", "-o", str(folder / "ignored.mlir"))
        _tool("tosa-opt", str(dialect), *serialize, makes=graph)
        return graph.read_bytes()


def _tool(tool: str, *arguments: str, makes: Path) -> None:
    program = Path(sys.executable).parent / tool
    if not program.exists():
        raise MissingToolchainError(f"{tool} is not installed beside {sys.executable}", advice=INSTALL)
    command = [str(program), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)  # noqa: S603 - a vendor tool, arguments as a list
    if done.returncode != 0 or not makes.exists():
        words = (done.stdout + done.stderr).strip()
        raise ToolchainError(
            f"{tool} ended with status {done.returncode}; it said:\n{words[-WORDS_KEPT:]}",
            advice="the TOSA reference cannot run this graph; the litert reference may",
        )


REFERENCES: dict[str, Runner] = {"litert": LitertRunner(), "tosa": TosaRunner()}
