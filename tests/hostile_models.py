"""Model files that nobody should send: each function writes one and returns its path."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from npuops.errors import MalformedModelError, ModelError, NpuopsError, UnsafeModelError, UnsupportedModelError

F = TensorProto.FLOAT


def net(
    *nodes: onnx.NodeProto, weights: tuple[onnx.TensorProto, ...] = (), shape: tuple[int, ...] = (1, 4)
) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "hostile",
        [helper.make_tensor_value_info("x", F, shape)],
        [helper.make_tensor_value_info("y", F, None)],
        list(weights),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def relu() -> onnx.ModelProto:
    return net(helper.make_node("Relu", ["x"], ["y"]))


def external(
    location: str, *, offset: int = 0, length: int | None = None, dims: tuple[int, ...] = (4,)
) -> onnx.ModelProto:
    weight = TensorProto(name="w", data_type=F, dims=dims, data_location=TensorProto.EXTERNAL)
    pairs = {"location": location, "offset": str(offset)} | ({} if length is None else {"length": str(length)})
    for key, value in pairs.items():
        weight.external_data.add(key=key, value=value)
    return net(helper.make_node("Add", ["x", "w"], ["y"]), weights=(weight,))


def _raw(content: bytes) -> Callable[[Path], None]:
    return lambda path: _write(path, content)


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _proto(make: Callable[[], onnx.ModelProto]) -> Callable[[Path], None]:
    return lambda path: _write(path, make().SerializeToString())


def _node_that_feeds_itself() -> onnx.ModelProto:
    return net(helper.make_node("Add", ["x", "y"], ["y"]))


def _circle() -> onnx.ModelProto:
    return net(
        helper.make_node("Add", ["x", "b"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Relu", ["b"], ["y"]),
    )


def _second_definition() -> onnx.ModelProto:
    return net(helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Abs", ["x"], ["y"]))


def _input_defined_again() -> onnx.ModelProto:
    return net(helper.make_node("Relu", ["x"], ["x"]), helper.make_node("Relu", ["x"], ["y"]))


def _undefined_input() -> onnx.ModelProto:
    return net(helper.make_node("Add", ["x", "nothing"], ["y"]))


def _undefined_output() -> onnx.ModelProto:
    return net(helper.make_node("Relu", ["x"], ["z"]))


def _negative_dims() -> onnx.ModelProto:
    weight = TensorProto(name="w", data_type=F, dims=(-4,), raw_data=b"\0" * 16)
    return net(helper.make_node("Add", ["x", "w"], ["y"]), weights=(weight,))


def _more_claimed_than_there() -> onnx.ModelProto:
    weight = TensorProto(name="w", data_type=F, dims=(1000, 1000), raw_data=b"\0" * 16)
    return net(helper.make_node("MatMul", ["x", "w"], ["y"]), weights=(weight,))


def _overflowing_dims() -> onnx.ModelProto:
    weight = TensorProto(name="w", data_type=F, dims=(2**62, 2**62, 2**62))
    return net(helper.make_node("Add", ["x", "w"], ["y"]), weights=(weight,))


def _huge_fill() -> onnx.ModelProto:
    shape = numpy_helper.from_array(np.array([2**20, 2**20, 4], np.int64), "s")
    return net(
        helper.make_node("ConstantOfShape", ["s"], ["c"]), helper.make_node("Add", ["x", "c"], ["y"]), weights=(shape,)
    )


def _huge_expand() -> onnx.ModelProto:
    shape = numpy_helper.from_array(np.array([2**30, 2**30, 1, 4], np.int64), "s")
    return net(helper.make_node("Expand", ["x", "s"], ["y"]), weights=(shape,))


def _huge_tile() -> onnx.ModelProto:
    repeats = numpy_helper.from_array(np.array([2**31, 2**31], np.int64), "r")
    return net(helper.make_node("Tile", ["x", "r"], ["y"]), weights=(repeats,))


def _huge_input() -> onnx.ModelProto:
    return net(helper.make_node("Relu", ["x"], ["y"]), shape=(2**40, 2**40))


def _deep_if(depth: int = 20) -> onnx.ModelProto:
    inner = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["r0"])], "b", [], [helper.make_tensor_value_info("r0", F, None)]
    )
    for level in range(1, depth):
        name = f"r{level}"
        node = helper.make_node(
            "If",
            ["c"],
            [name],
            then_branch=inner,
            else_branch=helper.make_graph(
                [helper.make_node("Abs", ["x"], [f"e{level}"])],
                "e",
                [],
                [helper.make_tensor_value_info(f"e{level}", F, None)],
            ),
        )
        inner = helper.make_graph([node], "b", [], [helper.make_tensor_value_info(name, F, None)])
    condition = numpy_helper.from_array(np.array(True), "c")
    return net(helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner), weights=(condition,))


def _function_that_calls_itself() -> onnx.ModelProto:
    model = net(helper.make_node("F", ["x"], ["y"], domain="own"))
    model.opset_import.append(helper.make_opsetid("own", 1))
    body = [helper.make_node("F", ["a"], ["b"], domain="own")]
    model.functions.append(helper.make_function("own", "F", ["a"], ["b"], body, list(model.opset_import)))
    return model


def _functions_that_explode() -> onnx.ModelProto:
    model = net(helper.make_node("F0", ["x"], ["y"], domain="own"))
    model.opset_import.append(helper.make_opsetid("own", 1))
    for level in range(10):
        op = f"F{level + 1}" if level < 9 else "Relu"
        names = ["a", *(f"t{i}" for i in range(15)), "b"]
        body = [helper.make_node(op, [names[i]], [names[i + 1]], domain="own" if level < 9 else "") for i in range(16)]
        model.functions.append(helper.make_function("own", f"F{level}", ["a"], ["b"], body, list(model.opset_import)))
    return model


def _name_that_is_no_text() -> onnx.ModelProto:
    return onnx.ModelProto.FromString(relu().SerializeToString().replace(b"\x0a\x01x", b"\x0a\x01\xff"))


def _opset(version: int) -> Callable[[], onnx.ModelProto]:
    def make() -> onnx.ModelProto:
        model = relu()
        model.opset_import[0].version = version
        return model

    return make


def _operator_that_does_not_exist() -> onnx.ModelProto:
    return net(helper.make_node("Frobnicate", ["x"], ["y"]))


def _contradicting_shapes() -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.zeros((5, 3), np.float32), "w")
    return net(helper.make_node("MatMul", ["x", "w"], ["y"]), weights=(weight,))


def _scalar_kernel() -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.array(1, np.float32), "w")
    return net(helper.make_node("ConvTranspose", ["x", "w"], ["y"]), weights=(weight,), shape=(1, 4, 8, 8))


def _blocks_beyond_reason() -> onnx.ModelProto:
    return net(helper.make_node("DepthToSpace", ["x"], ["y"], blocksize=2**32), shape=(1, 4, 8, 8))


def _unknown_dtype() -> onnx.ModelProto:
    weight = TensorProto(name="w", data_type=99, dims=(1,), raw_data=b"\0\0\0\0")
    return net(helper.make_node("Add", ["x", "w"], ["y"]), weights=(weight,))


def _operand_left_out() -> onnx.ModelProto:
    return net(helper.make_node("Einsum", ["x", ""], ["y"], equation="ij,jk->ik"))


def _symlink(path: Path) -> None:
    (path.parent / "inner.data").symlink_to("/etc/passwd")
    _proto(lambda: external("inner.data"))(path)


def _links_in_a_circle(path: Path) -> None:
    (path.parent / "weights.data").symlink_to("weights.data")
    _proto(lambda: external("weights.data"))(path)


def _short_data(path: Path) -> None:
    (path.parent / "weights.data").write_bytes(b"\0" * 8)
    _proto(lambda: external("weights.data", length=16))(path)


def _wrong_length(path: Path) -> None:
    (path.parent / "weights.data").write_bytes(b"\0" * 64)
    _proto(lambda: external("weights.data", length=12))(path)


def _no_number(path: Path) -> None:
    model = external("weights.data")
    model.graph.initializer[0].external_data[1].value = "-5"
    (path.parent / "weights.data").write_bytes(b"\0" * 64)
    path.write_bytes(model.SerializeToString())


def _same_bytes_over_and_over(path: Path) -> None:
    (path.parent / "weights.data").write_bytes(b"\0" * 2**20)
    model = net(
        *(helper.make_node("Add", ["x", f"w{i}"], [f"a{i}"]) for i in range(9)), helper.make_node("Relu", ["a0"], ["y"])
    )
    for i in range(9):
        weight = external("weights.data", dims=(2**18,)).graph.initializer[0]
        weight.name = f"w{i}"
        model.graph.initializer.append(weight)
    path.write_bytes(model.SerializeToString())


def _nothing(path: Path) -> None:
    del path


def _folder(path: Path) -> None:
    path.mkdir()


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _million_nodes(path: Path) -> None:
    graph = b"\x0a\x00" * 5_000_000
    length = bytes([len(graph) >> shift & 127 | (128 if shift < 21 else 0) for shift in (0, 7, 14, 21)])
    path.write_bytes(b"\x08\x08\x3a" + length + graph)


HOSTILE: dict[str, tuple[Callable[[Path], None], type[NpuopsError]]] = {
    "missing": (_nothing, ModelError),
    "a folder": (_folder, ModelError),
    "a named pipe": (_pipe, ModelError),
    "empty": (_raw(b""), MalformedModelError),
    "one byte": (_raw(b"\x08"), MalformedModelError),
    "ten megabytes of zeros": (_raw(b"\0" * 10_000_000), MalformedModelError),
    "text": (_raw(b"hello, this is not a model at all\n" * 50), MalformedModelError),
    "gzip": (_raw(gzip.compress(b"model")), MalformedModelError),
    "zip": (_raw(b"PK\x03\x04" + b"\1" * 100), MalformedModelError),
    "a TFLite head and nothing else": (_raw(b"\x1c\0\0\0TFL3"), MalformedModelError),
    "a TFLite whose root points nowhere": (_raw(b"\xff\xff\xff\x7fTFL3" + b"\1" * 64), MalformedModelError),
    "five million empty nodes": (_million_nodes, UnsafeModelError),
    "a node that feeds itself": (_proto(_node_that_feeds_itself), MalformedModelError),
    "a circle": (_proto(_circle), MalformedModelError),
    "a second definition": (_proto(_second_definition), MalformedModelError),
    "an input defined again": (_proto(_input_defined_again), MalformedModelError),
    "an undefined input": (_proto(_undefined_input), MalformedModelError),
    "a required operand left out, which kills ONNX Runtime": (_proto(_operand_left_out), MalformedModelError),
    "an undefined output": (_proto(_undefined_output), MalformedModelError),
    "a negative size": (_proto(_negative_dims), MalformedModelError),
    "more claimed than there": (_proto(_more_claimed_than_there), MalformedModelError),
    "sizes that overflow": (_proto(_overflowing_dims), UnsafeModelError),
    "an unknown dtype": (_proto(_unknown_dtype), MalformedModelError),
    "a scalar as kernel, which kills onnx's inference": (_proto(_scalar_kernel), MalformedModelError),
    "blocks so large that inference divides by zero": (_proto(_blocks_beyond_reason), MalformedModelError),
    "a huge ConstantOfShape": (_proto(_huge_fill), UnsafeModelError),
    "a huge Expand": (_proto(_huge_expand), UnsafeModelError),
    "a huge Tile": (_proto(_huge_tile), UnsafeModelError),
    "a huge input": (_proto(_huge_input), UnsafeModelError),
    "If twenty deep": (_proto(_deep_if), UnsafeModelError),
    "a function that calls itself": (_proto(_function_that_calls_itself), MalformedModelError),
    "functions that explode": (_proto(_functions_that_explode), UnsafeModelError),
    "a name that is no text": (_proto(_name_that_is_no_text), MalformedModelError),
    "opset 6": (_proto(_opset(6)), UnsupportedModelError),
    "opset 25": (_proto(_opset(25)), UnsupportedModelError),
    "an operator that does not exist": (_proto(_operator_that_does_not_exist), UnsupportedModelError),
    "shapes that contradict": (_proto(_contradicting_shapes), MalformedModelError),
    "data above the folder": (_proto(lambda: external("../../etc/passwd")), UnsafeModelError),
    "data at an absolute path": (_proto(lambda: external("/etc/passwd")), UnsafeModelError),
    "data behind a link that leaves": (_symlink, UnsafeModelError),
    "data that is missing": (_proto(lambda: external("weights.data")), MalformedModelError),
    "data that is too short": (_short_data, MalformedModelError),
    "data of another length": (_wrong_length, MalformedModelError),
    "data at a negative offset": (_no_number, MalformedModelError),
    "data claimed over and over": (_same_bytes_over_and_over, UnsafeModelError),
    "data behind links in a circle": (_links_in_a_circle, MalformedModelError),
    "data at a name that is too long": (_proto(lambda: external("a" * 5000)), MalformedModelError),
    "data at a name with NUL": (_proto(lambda: external("a\0b")), MalformedModelError),
}
"""What it is → how to write it, and the error that it must give."""
