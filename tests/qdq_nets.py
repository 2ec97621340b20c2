"""Small float networks and what the real quantizer makes of them, for the tests of the TFLite writer."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from npuops.artifacts.manifest import Artifact
from npuops.models.open import open_model
from npuops.targets.conformance import Subject, as_artifact
from npuops.targets.ethos_u_reference import REFERENCES, ReferenceSession, io_of
from npuops.targets.ethos_u_vela import IO, PLAIN
from npuops.targets.protocol import Compilation, Precision
from npuops.targets.registry import open_target
from npuops.targets.tflite_ops import TfliteFile, convert

Array = NDArray[Any]
Feeds = Mapping[str, Array]


@dataclass
class Net:
    """Builds one float graph, node by node; `add` returns the name of the node's (first) output."""

    seed: int
    opset: int = 17
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    inputs: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)

    def input(self, name: str, *shape: int) -> str:
        self.inputs[name] = shape
        return name

    def weight(self, *shape: int, scale: float = 0.4) -> str:
        return self.constant((self.random.normal(size=shape) * scale).astype(np.float32))

    def constant(self, data: Array) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(data), name))
        return name

    def add(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        names = [f"t{len(self.nodes)}_{index}" for index in range(outputs)]
        self.nodes.append(
            helper.make_node(op, list(inputs), names, name=f"{op.lower()}_{len(self.nodes)}", **attributes)
        )
        return names[0] if outputs == 1 else names

    def model(self, *outputs: str) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in self.inputs.items()],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            self.constants,
        )
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True)
        onnx.checker.check_model(inferred, full_check=True)
        return inferred

    def samples(self, count: int, seed: int = 1) -> list[dict[str, Array]]:
        random = np.random.default_rng(seed)
        return [
            {name: random.uniform(-2, 2, size=shape).astype(np.float32) for name, shape in self.inputs.items()}
            for _ in range(count)
        ]


class _Reader(CalibrationDataReader):
    def __init__(self, samples: Sequence[Feeds]) -> None:
        self._left: Iterator[Feeds] = iter(samples)

    def get_next(self) -> Any:
        return next(self._left, None)


def quantize(proto: onnx.ModelProto | Path, samples: Sequence[Feeds], folder: Path, **options: Any) -> Path:
    """QDQ by onnxruntime.quantization: u8 activations, s8 per-channel weights unless told otherwise."""
    source, ready, made = folder / "float.onnx", folder / "ready.onnx", folder / "qdq.onnx"
    if isinstance(proto, Path):
        proto = onnx.load(proto)
    onnx.save(proto, source)
    chosen = {"per_channel": True, "activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8, **options}
    logging.disable(logging.WARNING)
    ort.set_default_logger_severity(4)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            quant_pre_process(source, ready)
            chosen.setdefault("op_types_to_quantize", sorted({node.op_type for node in proto.graph.node}))
            chosen.setdefault("extra_options", {"ForceQuantizeNoInputCheck": True})
            quantize_static(ready, made, _Reader(samples), quant_format=QuantFormat.QDQ, **chosen)
    finally:
        logging.disable(logging.NOTSET)
        ort.set_default_logger_severity(2)
    return made


def run_qdq(path: Path, feeds: Feeds) -> dict[str, Array]:
    """The QDQ graph node by node in ONNX Runtime: DQ, float operator, Q."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def reference_artifact(qdq: Path, feeds: Feeds, folder: Path) -> tuple[Artifact, TfliteFile]:
    """An artifact that holds only what the references read: the plain TFLite file and its I/O description."""
    model = open_model(qdq)
    converted = convert(qdq)
    (folder / PLAIN).write_bytes(converted.data)
    (folder / IO).write_text(io_of(converted))
    target = open_target("ethos-u:ethos-u55-128")
    subject = Subject(target=target, model=model, precision=Precision.A8W8, inputs=feeds, scratch=folder)
    compilation = Compilation(entry=PLAIN, files=(PLAIN, IO), placement=())
    return as_artifact(subject, compilation, folder), converted


def run_reference(name: str, artifact: Artifact, feeds: Feeds) -> tuple[dict[str, Array], dict[str, Array]]:
    """Real outputs and stored integers of one reference."""
    session = REFERENCES[name].open(artifact)
    assert isinstance(session, ReferenceSession)
    return session.run(feeds), session.run_raw(feeds)
