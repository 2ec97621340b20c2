"""ONNX tensors as the file claims them: names of dtypes, sizes, and whether the bytes are really there."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import onnx

from npuops.errors import MalformedModelError, UnsafeModelError

MAX_TENSOR_BYTES: Final = 2**36
"""64 GiB: no NPU holds a tensor near that; a file that claims one wants to exhaust memory."""

MAX_RANK: Final = 64

_F, _I32, _I64, _D, _U64, _S = "float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data"
_KINDS: Final[dict[int, tuple[str, int, str]]] = {
    1: ("float32", 32, _F),
    2: ("uint8", 8, _I32),
    3: ("int8", 8, _I32),
    4: ("uint16", 16, _I32),
    5: ("int16", 16, _I32),
    6: ("int32", 32, _I32),
    7: ("int64", 64, _I64),
    8: ("string", 8, _S),
    9: ("bool", 8, _I32),
    10: ("float16", 16, _I32),
    11: ("float64", 64, _D),
    12: ("uint32", 32, _U64),
    13: ("uint64", 64, _U64),
    14: ("complex64", 64, _F),
    15: ("complex128", 128, _D),
    16: ("bfloat16", 16, _I32),
    17: ("float8_e4m3fn", 8, _I32),
    18: ("float8_e4m3fnuz", 8, _I32),
    19: ("float8_e5m2", 8, _I32),
    20: ("float8_e5m2fnuz", 8, _I32),
    21: ("uint4", 4, _I32),
    22: ("int4", 4, _I32),
    23: ("float4_e2m1", 4, _I32),
    24: ("float8_e8m0", 8, _I32),
    25: ("uint2", 2, _I32),
    26: ("int2", 2, _I32),
}
"""TensorProto.DataType → name, bits, the typed field that may hold the values (onnx.proto)."""

_BITS: Final = {name: bits for name, bits, _ in _KINDS.values()}


def dtype_name(data_type: int) -> str:
    """`1` → `float32`; `unknown` for a number that ONNX does not define."""
    return _KINDS[data_type][0] if data_type in _KINDS else "unknown"


def bits_of(dtype: str) -> int:
    """Bits of one element; a string counts 8, what is unknown 32."""
    return _BITS.get(dtype, 32)


def bytes_of(dtype: str, elements: int) -> int:
    """Bytes of a packed tensor."""
    return (elements * bits_of(dtype) + 7) // 8


def is_external(tensor: onnx.TensorProto) -> bool:
    """The values are in another file."""
    return tensor.data_location == onnx.TensorProto.EXTERNAL


def has_data(tensor: onnx.TensorProto) -> bool:
    """The values are in the file (an empty tensor needs none)."""
    if math.prod(tensor.dims) == 0 or tensor.HasField("raw_data"):
        return True
    kind = _KINDS.get(tensor.data_type)
    return kind is not None and len(getattr(tensor, kind[2])) > 0


def tensor_bytes(tensor: onnx.TensorProto) -> int:
    """Bytes that the dimensions and the dtype claim."""
    return bytes_of(dtype_name(tensor.data_type), math.prod(tensor.dims))


def check_dims(dims: list[int], dtype: str, name: str) -> None:
    """Refuse negative and absurd sizes.

    Raises:
        MalformedModelError: a negative dimension or an absurd rank.
        UnsafeModelError: more than `MAX_TENSOR_BYTES`.
    """
    if len(dims) > MAX_RANK or any(dim < 0 for dim in dims):
        raise MalformedModelError(f"tensor {name!r} has the impossible shape {dims[:8]}", advice="export it again")
    if bytes_of(dtype, math.prod(dims)) > MAX_TENSOR_BYTES:
        raise UnsafeModelError(
            f"tensor {name!r} of shape {dims[:8]} would need more than 64 GiB", advice="the file is damaged or hostile"
        )


def check_tensor(tensor: onnx.TensorProto) -> None:
    """The tensor has a known dtype, a possible shape, and exactly as many values as it claims.

    A tensor without any value passes: graphs whose weights were stripped are still worth a look.

    Raises:
        MalformedModelError: see above.
        UnsafeModelError: an absurd size.
    """
    if tensor.data_type not in _KINDS:
        raise MalformedModelError(f"tensor {tensor.name!r} has the unknown dtype {tensor.data_type}")
    name, bits, field = _KINDS[tensor.data_type]
    dims = list(tensor.dims)
    check_dims(dims, name, tensor.name)
    if tensor.HasField("segment"):
        raise MalformedModelError(f"tensor {tensor.name!r} is cut in segments, which no runtime reads")
    if is_external(tensor) or not has_data(tensor):
        return
    elements = math.prod(dims)
    raw = tensor.HasField("raw_data")
    found = len(tensor.raw_data) if raw else len(getattr(tensor, field))
    per_field = 2 if name.startswith("complex") else 1
    claimed = tensor_bytes(tensor) if raw else (elements * per_field * min(bits, 8) + 7) // 8
    if name == "string":
        claimed = elements
    if found != claimed:
        unit = "bytes" if raw else "values"
        raise MalformedModelError(
            f"tensor {tensor.name!r} of shape {dims[:8]} needs {claimed} {unit} but has {found}",
            advice="the file is damaged; export it again",
        )


def tensors_of(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor in the model: initializers and attributes, in subgraphs and functions too."""
    yield from _graph_tensors(proto.graph)
    for function in proto.functions:
        for node in function.node:
            yield from _node_tensors(node)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        yield from _node_tensors(node)


def _node_tensors(node: onnx.NodeProto) -> Iterator[onnx.TensorProto]:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        for sparse in (
            *((attribute.sparse_tensor,) if attribute.HasField("sparse_tensor") else ()),
            *attribute.sparse_tensors,
        ):
            yield from (sparse.values, sparse.indices)
        if attribute.HasField("g"):
            yield from _graph_tensors(attribute.g)
        for graph in attribute.graphs:
            yield from _graph_tensors(graph)
