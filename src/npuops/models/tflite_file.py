"""TFLite files: a FlatBuffer whose every offset may lie, read into frozen nouns within a budget."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import tflite

from npuops.errors import MalformedModelError, UnsafeModelError, UnsupportedModelError
from npuops.models.content import format_of, read_content
from npuops.models.model import ModelFormat
from npuops.models.onnx_tensors import MAX_RANK, bytes_of, check_dims
from npuops.models.tflite_graph import NUMPY_DTYPES, Scales, TfliteGraph, TfliteOp, TfliteTensor
from npuops.models.tflite_options import read_options

SCHEMA_VERSION: Final = 3
MAX_ITEMS: Final = 100_000
"""Tensors, and operators; real models stay under 10,000."""
MAX_NUMBERS: Final = 20_000_000
"""Sizes, scales and indices together: many entries may point at one long vector."""

_READ_ERRORS = (struct.error, IndexError, ValueError, OverflowError, TypeError, AttributeError, KeyError)
"""What the generated accessors raise when an offset points into nowhere."""

_DTYPES: Final[dict[int, str]] = {
    value: name.lower() for name, value in vars(tflite.TensorType).items() if not name.startswith("_")
}

_LEVELS: Final = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-(2**15), 2**15 - 1)}


def read_tflite(path: Path) -> TfliteGraph:
    """The graph of a TFLite file.

    Raises:
        ModelError: missing or unreadable.
        MalformedModelError: truncated, or contradicting itself.
        UnsafeModelError: absurd counts or sizes.
        UnsupportedModelError: another schema version, or an ONNX file.
    """
    return parse_tflite(read_content(path), path)


def parse_tflite(content: bytes, path: Path) -> TfliteGraph:
    """Like `read_tflite`, from bytes already read."""
    if format_of(content, str(path)) is not ModelFormat.TFLITE:
        raise UnsupportedModelError(
            f"{path} is not a TFLite file", advice="npuops.models.open_model takes both formats"
        )
    try:
        graph = _Reader(content, str(path)).graph()
    except _READ_ERRORS as error:
        raise MalformedModelError(
            f"{path} is a damaged TFLite file: {type(error).__name__}: {str(error)[:200]}",
            advice="it is truncated or corrupt; export or download it again",
        ) from error
    _check_order(graph, str(path))
    return graph


class _Reader:
    """Walks the FlatBuffer once, counting what it reads."""

    def __init__(self, content: bytes, where: str) -> None:
        self.content = content
        self.where = where
        self.left = MAX_NUMBERS
        self.model: Any = tflite.Model.GetRootAsModel(content, 0)

    def graph(self) -> TfliteGraph:
        if self.model.Version() != SCHEMA_VERSION:
            raise UnsupportedModelError(f"{self.where} has schema version {self.model.Version()}; npuops reads 3")
        if self.model.SubgraphsLength() < 1:
            raise MalformedModelError(f"{self.where} holds no graph")
        main = self.model.Subgraphs(0)
        counts = (main.TensorsLength(), main.OperatorsLength(), self.model.OperatorCodesLength())
        if max(counts) > MAX_ITEMS:
            raise UnsafeModelError(f"{self.where} claims {max(counts)} entries; at most {MAX_ITEMS} are read")
        codes = [self._code(index) for index in range(counts[2])]
        inputs, outputs = self._numbers(main, "Inputs"), self._numbers(main, "Outputs")
        return TfliteGraph(
            tensors=_named([self._tensor(main.Tensors(index)) for index in range(counts[0])], (*inputs, *outputs)),
            operators=tuple(self._operator(main.Operators(index), codes) for index in range(counts[1])),
            inputs=inputs,
            outputs=outputs,
            description=self._text(self.model.Description()),
            version=self.model.Version(),
            subgraph_count=self.model.SubgraphsLength(),
        )

    def _numbers(self, table: Any, name: str) -> tuple[Any, ...]:
        length = getattr(table, f"{name}Length")()
        self.left -= length + 1
        if self.left < 0 or length > len(self.content):
            raise UnsafeModelError(f"{self.where} claims more numbers than a model can have")
        return tuple(getattr(table, f"{name}AsNumpy")().tolist()) if length else ()

    def _text(self, text: bytes | None) -> str:
        self.left -= len(text or b"")
        if self.left < 0:
            raise UnsafeModelError(f"{self.where} claims more text than a model can have")
        return (text or b"").decode(errors="replace")

    def _code(self, index: int) -> str:
        code = self.model.OperatorCodes(index)
        # Codes up to 126 are in the old one-byte field, which newer writers fill with 127 beyond.
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        if number == tflite.BuiltinOperator.CUSTOM:
            return f"CUSTOM:{self._text(code.CustomCode())[:200]}"
        return str(tflite.opcode2name(number))

    def _tensor(self, tensor: Any) -> TfliteTensor:
        name = self._text(tensor.Name())
        dtype = _DTYPES.get(tensor.Type(), "unknown")
        stored = self._numbers(tensor, "Shape")
        signature = self._numbers(tensor, "ShapeSignature")
        if len(stored) > MAX_RANK:
            raise MalformedModelError(f"{self.where}: tensor {name!r} has {len(stored)} dimensions")
        check_dims(list(stored), dtype, name)
        data = self._data(tensor.Buffer())
        sound = data is None or dtype not in NUMPY_DTYPES or tensor.Sparsity() is not None
        if data is not None and not sound and len(data) != bytes_of(dtype, math.prod(stored)):
            raise MalformedModelError(
                f"{self.where}: tensor {name!r} of shape {list(stored)[:8]} in {dtype} has {len(data)} bytes",
                advice="the file is damaged; export or download it again",
            )
        scales = self._scales(tensor.Quantization(), stored, name, dtype)
        return TfliteTensor(
            name=name,
            dtype=dtype,
            shape=stored,
            scales=scales,
            data=data,
            is_variable=bool(tensor.IsVariable()),
            signature=signature,
        )

    def _data(self, index: int) -> memoryview | None:
        if not 0 <= index < self.model.BuffersLength():
            raise IndexError(f"buffer {index}")
        buffer = self.model.Buffers(index)
        whole = memoryview(self.content)
        if buffer.Offset() > 1:  # 1 marks "filled in later"; larger: bytes after the FlatBuffer
            end = buffer.Offset() + buffer.Size()
            if end > len(whole):
                raise IndexError(f"buffer {index} ends at byte {end} of {len(whole)}")
            return whole[buffer.Offset() : end]
        length = buffer.DataLength()
        if not length:
            return None
        array = buffer.DataAsNumpy()  # raises when it reaches beyond the file
        return memoryview(array)

    def _scales(self, table: Any, shape: tuple[int, ...], name: str, dtype: str) -> Scales | None:
        if table is None or not table.ScaleLength():
            return None
        scale = self._numbers(table, "Scale")
        zero = self._numbers(table, "ZeroPoint") or (0,)
        zero = zero * len(scale) if len(zero) == 1 else zero
        axis = 0 if len(shape) == 1 else table.QuantizedDimension()  # old writers note the weight's axis at a bias
        channels = shape[axis] if 0 <= axis < len(shape) else 0
        if len(zero) != len(scale) or (len(scale) > 1 and len(scale) != channels):
            raise MalformedModelError(f"{self.where}: tensor {name!r} has {len(scale)} scales for {channels} channels")
        if not all(math.isfinite(value) and value >= 0 for value in scale):
            raise MalformedModelError(f"{self.where}: tensor {name!r} has an impossible scale")
        if dtype in _LEVELS and not all(_LEVELS[dtype][0] <= value <= _LEVELS[dtype][1] for value in zero):
            raise MalformedModelError(f"{self.where}: tensor {name!r} has a zero point that {dtype} cannot hold")
        return Scales(scale=scale, zero_point=zero, axis=axis)

    def _operator(self, operator: Any, codes: list[str]) -> TfliteOp:
        name = codes[operator.OpcodeIndex()]
        return TfliteOp(
            op=name,
            inputs=self._numbers(operator, "Inputs"),
            outputs=self._numbers(operator, "Outputs"),
            options=read_options(name, operator, self._numbers),
        )


def _named(tensors: Sequence[TfliteTensor], first: Sequence[int]) -> tuple[TfliteTensor, ...]:
    """The tensors with a name each: a file knows them by number, may repeat names, and may leave them empty.

    Those in `first` (the inputs and outputs) keep theirs before the others do.
    """
    names: dict[int, str] = {}
    taken: set[str] = set()
    known = [index for index in first if 0 <= index < len(tensors)]
    for index in dict.fromkeys((*known, *range(len(tensors)))):
        name = tensors[index].name or f"tensor_{index}"
        while name in taken:
            name = f"{name}_{index}"
        names[index] = name
        taken.add(name)
    return tuple(replace(tensor, name=names[index]) for index, tensor in enumerate(tensors))


def _check_order(graph: TfliteGraph, where: str) -> None:
    """Every tensor exists and is computed before it is read, once."""
    known = {index for index, tensor in enumerate(graph.tensors) if _is_given(tensor)} | set(graph.inputs)
    used = [*graph.inputs, *graph.outputs, *(i for op in graph.operators for i in (*op.inputs, *op.outputs))]
    if any(not -1 <= index < len(graph.tensors) for index in used) or not graph.outputs:
        raise MalformedModelError(f"{where} refers to tensors that it does not have", advice="the file is damaged")
    made: set[int] = set()
    for position, op in enumerate(graph.operators):
        for index in op.inputs:
            # The scratch memory of an Ethos-U command stream is an input that nobody fills.
            if index >= 0 and index not in known and not op.op.startswith("CUSTOM:"):
                raise MalformedModelError(
                    f"{where}: operator {position} ({op.op}) reads {graph.tensors[index].name!r} before it is computed",
                    advice="the file is damaged, or its graph runs in a circle",
                )
        if made.intersection(op.outputs) or set(graph.inputs).intersection(op.outputs):
            raise MalformedModelError(f"{where}: operator {position} ({op.op}) computes a tensor a second time")
        made.update(op.outputs)
        known.update(op.outputs)
    missing = [graph.tensors[index].name for index in graph.outputs if index not in known]
    if missing:
        raise MalformedModelError(f"{where}: nothing computes the output {missing[0]!r}", advice="the file is damaged")


def _is_given(tensor: TfliteTensor) -> bool:
    empty = tensor.shape is not None and 0 in tensor.shape
    return tensor.data is not None or tensor.is_variable or empty
