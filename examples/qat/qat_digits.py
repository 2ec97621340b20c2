"""Quantization-aware training of the zoo's CNN: float training, a few quantized epochs, one QDQ ONNX file.

    python qat_digits.py --out digits-cnn-qat.onnx

The route: torchao PT2E (export → prepare_qat_pt2e → train → convert_pt2e) → torch.onnx.export(dynamo=True)
→ biases as int32, because NPUs add them in the accumulator and refuse float ones. Under a minute on two cores.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import numpy_helper
from torch import nn
from torch.fx import GraphModule
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchao.quantization.pt2e import move_exported_model_to_eval, move_exported_model_to_train
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_qat_pt2e

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "zoo"))

from digits import SEED, Part, load
from networks import DigitsCnn
from npu_quantizer import NpuQuantizer
from train import BATCH, PLANS, shifted, train

OPSET = 20
EPOCHS = 4
RATE = 1e-3
FLOOR = 0.985


def folded(network: DigitsCnn) -> DigitsCnn:
    """The same function with each batch norm inside its convolution: one less thing that training can move."""
    for name, module in list(network.named_children()):
        if isinstance(module, nn.Sequential):
            parts = list(module)
            parts[:2] = [fuse_conv_bn_eval(parts[0], parts[1])]
            setattr(network, name, nn.Sequential(*parts))
    return network


def train_quantized(network: nn.Module, part: Part) -> GraphModule:
    """Fine-tune with fake quantization in the graph; the result has integer weights and explicit Q/DQ."""
    images, labels = torch.from_numpy(part.images), torch.from_numpy(part.labels)
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(network, (images[:BATCH],), dynamic_shapes=({0: batch},))
    model = prepare_qat_pt2e(program.module(), NpuQuantizer())
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.05)
    generator = torch.Generator().manual_seed(SEED)
    move_exported_model_to_train(model)
    for epoch in range(EPOCHS):
        losses = []
        for chosen in torch.randperm(len(images), generator=generator).split(BATCH):
            optimizer.zero_grad()
            loss = loss_of(model(shifted(images[chosen], generator)), labels[chosen])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        print(f"quantized epoch {epoch + 1}/{EPOCHS}: loss {np.mean(losses):.4f}")
    move_exported_model_to_eval(model)
    return convert_pt2e(model)


def export(model: GraphModule) -> onnx.ModelProto:
    """QDQ ONNX, batch 1, integer weights and biases."""
    program = torch.onnx.export(
        model,
        (torch.zeros(1, 1, 8, 8),),
        input_names=["image"],
        output_names=["logits"],
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    return with_integer_biases(program.model_proto)


def with_integer_biases(model: onnx.ModelProto) -> onnx.ModelProto:
    """Each float bias of a Conv or Gemm becomes int32, whose scale is that of the input times that of the weights."""
    graph = model.graph
    constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    makers = {output: node for node in graph.node for output in node.output}
    for node in [node for node in graph.node if node.op_type in {"Conv", "Gemm"} and node.input[2] in constants]:
        sources = [makers[name] for name in node.input[:2]]
        scales = [np.asarray(constants[source.input[1]], np.float64) for source in sources]
        scale = (scales[0] * scales[1]).astype(np.float32)
        whole = np.round(constants[node.input[2]].astype(np.float64) / scale)
        name = node.input[2]
        values = np.clip(whole, -(2**31), 2**31 - 1).astype(np.int32)
        graph.initializer.append(numpy_helper.from_array(values, f"{name}_int32"))
        graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))
        graph.initializer.append(numpy_helper.from_array(np.zeros(scale.shape, np.int32), f"{name}_zero"))
        inputs = [f"{name}_int32", f"{name}_scale", f"{name}_zero"]
        dequantize = onnx.helper.make_node(
            "DequantizeLinear", inputs, [f"{name}_dequantized"], f"{name}_dequantize", axis=0
        )
        graph.node.insert(list(graph.node).index(node), dequantize)
        node.input[2] = dequantize.output[0]
    used = {name for node in graph.node for name in node.input}
    for item in [item for item in graph.initializer if item.name not in used]:
        graph.initializer.remove(item)
    onnx.checker.check_model(model, full_check=True)
    return model


def accuracy(model: onnx.ModelProto, part: Part) -> float:
    """Share of right answers of the file, by ONNX Runtime."""
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    answers = [session.run(None, {"image": image[None]})[0].argmax() for image in part.images]
    return float(np.mean(np.array(answers) == part.labels))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("digits-cnn-qat.onnx"))
    out = parser.parse_args().out
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    warnings.simplefilter("ignore", DeprecationWarning)
    training, _, evaluation = load()
    plan = PLANS["digits-cnn"]
    network = folded(train(plan, training))
    with torch.no_grad():
        answers = network(torch.from_numpy(evaluation.images)).argmax(1).numpy()
    print(f"float accuracy {np.mean(answers == evaluation.labels):.4f} on {len(evaluation.labels)} held-out images")
    model = export(train_quantized(network, training))
    right = accuracy(model, evaluation)
    print(f"quantized accuracy {right:.4f}, {len(model.graph.node)} nodes")
    if right < FLOOR:
        sys.exit(f"accuracy {right:.4f} is below {FLOOR}")
    with tempfile.NamedTemporaryFile(dir=out.parent, delete=False) as draft:
        draft.write(model.SerializeToString(deterministic=True))
    Path(draft.name).chmod(0o644)
    Path(draft.name).replace(out)
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
