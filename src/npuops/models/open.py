"""The front door: a model file of either format, as a `Model` or as an ONNX file with fixed shapes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx

from npuops.errors import OptionError, UnsupportedModelError
from npuops.models.content import digest_files, format_of, read_content
from npuops.models.facts import common_facts, domain_facts, onnx_facts
from npuops.models.macs import peak_activation_bytes
from npuops.models.model import Layer, Model, ModelFormat, TensorInfo
from npuops.models.onnx_file import external_files, is_stripped, opset_of, parse_onnx, read_onnx, write_onnx
from npuops.models.onnx_layers import as_integers, graph_inputs, onnx_layers, size_of, value_info
from npuops.models.shapes import fix_shapes, infer_shapes
from npuops.models.tflite_file import parse_tflite
from npuops.models.tflite_layers import tflite_facts, tflite_layers
from npuops.models.tflite_shapes import with_shapes
from npuops.models.tflite_to_onnx import import_tflite

Shapes = Mapping[str, tuple[int, ...]]


def open_model(path: Path, *, shapes: Shapes | None = None) -> Model:
    """Read and understand a model; what it is decides the content, not the suffix.

    Args:
        path: an ONNX or TFLite file.
        shapes: fixes dynamic inputs: input name → sizes.

    Raises:
        ModelError: and its children, see `npuops.models.onnx_file.read_onnx`.
        OptionError: `shapes` do not fit.
    """
    content = read_content(path)
    if format_of(content, str(path)) is ModelFormat.TFLITE:
        return _open_tflite(content, path, shapes or {})
    return _open_onnx(content, path, shapes or {})


def as_onnx(path: Path, out: Path, *, shapes: Shapes | None = None) -> Path:
    """Write an ONNX file with fixed shapes, all inner shapes noted; TFLite goes through the importer.

    Raises:
        OptionError: an input stays dynamic.
        ModelError: as `open_model`; UnsupportedModelError for a TFLite operator that is not imported.
        StorageError: `out` cannot be written.
    """
    content = read_content(path)
    if format_of(content, str(path)) is ModelFormat.TFLITE:
        proto = import_tflite(with_shapes(parse_tflite(content, path), shapes or {}))
        write_onnx(infer_shapes(proto), out)
        return out
    proto = fix_shapes(read_onnx(path), shapes or {})
    loose = [tensor.name for tensor in graph_inputs(proto) if not tensor.is_static]
    if loose:
        raise OptionError(
            f"{path}: the inputs {', '.join(loose)} have no fixed shape", advice="give it with --shape NAME=1x3x224x224"
        )
    write_onnx(proto, out)
    return out


def _open_onnx(content: bytes, path: Path, shapes: Shapes) -> Model:
    proto = parse_onnx(content, path)
    digest = digest_files(content, external_files(proto, path))
    proto = fix_shapes(proto, shapes) if shapes else infer_shapes(proto)
    layers = onnx_layers(proto)
    inputs = graph_inputs(proto)
    outputs = tuple(value_info(value) for value in proto.graph.output)
    facts = (
        *common_facts(layers, inputs),
        *domain_facts(layers),
        *onnx_facts(opset_of(proto), proto.ir_version, stripped=is_stripped(proto)),
    )
    return Model(
        path=path,
        format=ModelFormat.ONNX,
        digest=digest,
        opset=opset_of(proto),
        producer=_producer(proto),
        file_bytes=len(content) + sum(file.stat().st_size for file in external_files(proto, path)),
        inputs=inputs,
        outputs=outputs,
        layers=layers,
        peak_activation_bytes=_peak(as_integers(layers), inputs, outputs),
        facts=facts,
    )


def _peak(layers: tuple[Layer, ...], inputs: tuple[TensorInfo, ...], outputs: tuple[TensorInfo, ...]) -> int | None:
    return peak_activation_bytes(layers, inputs, [tensor.name for tensor in outputs], size_of)


def _producer(proto: onnx.ModelProto) -> str:
    return f"{proto.producer_name} {proto.producer_version}".strip()[:200]


def _open_tflite(content: bytes, path: Path, shapes: Shapes) -> Model:
    graph = with_shapes(parse_tflite(content, path), shapes)
    if not graph.operators:
        raise UnsupportedModelError(f"{path} holds no operator")
    layers = tflite_layers(graph)
    inputs = tuple(graph.tensors[index].info for index in graph.inputs)
    outputs = tuple(graph.tensors[index].info for index in graph.outputs)
    return Model(
        path=path,
        format=ModelFormat.TFLITE,
        digest=digest_files(content),
        opset=None,
        producer=graph.description[:200],
        file_bytes=len(content),
        inputs=inputs,
        outputs=outputs,
        layers=layers,
        peak_activation_bytes=_peak(layers, inputs, outputs),
        facts=(*common_facts(layers, inputs), *tflite_facts(graph)),
    )
