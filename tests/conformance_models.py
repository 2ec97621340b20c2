"""A repository with something of everything that the protocol talks about."""

from __future__ import annotations

import shutil
from pathlib import Path

from onnx import TensorProto, helper

from served_artifacts import identity, ort_artifact, save, tiny_cnn

KINDS = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}


def conformance_repository(folder: Path) -> Path:
    """`simple` twice, `every` datatype, `brain` for BF16, `cold`, `tiny`, `wide`, and `half` with a broken canary."""
    made = folder / "made"
    made.mkdir(parents=True)
    repository = folder / "repository"
    simple = ort_artifact(made / "simple", _simple(made / "simple.onnx"))
    every = ort_artifact(made / "every", _every(made / "every.onnx"))
    tiny = ort_artifact(made / "tiny", tiny_cnn(made / "tiny.onnx"))
    brain = ort_artifact(made / "brain", identity(made / "brain.onnx", TensorProto.BFLOAT16, shape=("N", 3)))
    wide = ort_artifact(made / "wide", identity(made / "wide.onnx", TensorProto.FLOAT, shape=("N", "W")))
    for model, version, artifact in (
        ("simple", "1", simple),
        ("simple", "3", simple),
        ("every", "1", every),
        ("tiny", "1", tiny),
        ("cold", "1", tiny),
        ("half", "1", tiny),
        ("wide", "1", wide),
        ("brain", "1", brain),
    ):
        shutil.copytree(artifact.root, repository / model / version)
    (repository / "simple" / "model.toml").write_text('versions = "all"\n')
    (repository / "cold" / "model.toml").write_text("[idle]\nprewarm = false\n")
    shutil.copytree(tiny.root, repository / "half" / "2")
    next((repository / "half" / "2").glob("*.onnx")).write_bytes(b"broken")
    (repository / "half" / "model.toml").write_text('versions = ["1"]\ncanary = ["2"]\n')
    (repository / "no name" / "1").mkdir(parents=True)
    return repository


def _simple(path: Path) -> Path:
    """Sum and difference of two INT32[N,16], as Triton's example of that name."""
    names = [f"INPUT{at}" for at in (0, 1)], [f"OUTPUT{at}" for at in (0, 1)]
    inputs, outputs = (
        [helper.make_tensor_value_info(name, TensorProto.INT32, ["N", 16]) for name in some] for some in names
    )
    nodes = [helper.make_node(kind, names[0], [name]) for kind, name in zip(("Add", "Sub"), names[1], strict=True)]
    return save(path, helper.make_graph(nodes, "simple", inputs, outputs))


def _every(path: Path) -> Path:
    """Each input comes back, one of each datatype; BF16 cannot come out where text goes in."""
    nodes = [helper.make_node("Identity", [f"in_{word}"], [f"out_{word}"]) for word in KINDS]
    inputs, outputs = (
        [helper.make_tensor_value_info(f"{end}_{word}", kind, ["N", 3]) for word, kind in KINDS.items()]
        for end in ("in", "out")
    )
    return save(path, helper.make_graph(nodes, "every", inputs, outputs))
