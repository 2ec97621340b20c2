"""Train the zoo from scratch and write it, or prove that the committed one can be trained again.

    python train.py --out ../../src/npuops/models/zoo_data     # writes all, half a minute
    python train.py --check ../../src/npuops/models/zoo_data   # retrains and compares; exit 1 if it differs

One thread, one seed, deterministic kernels: the same machine gives the same bits. Another CPU adds
floats in another order, so the check compares accuracies, and reports whether the bits agreed too.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from digits import SEED, Part, load
from networks import CLASSES, DigitsCnn, DigitsTransformer
from torch import nn

OPSET = 20
"""The first with Gelu as one operator; LayerNormalization came with 17."""
BATCH = 64
TOLERANCE = 0.015
"""A retrained accuracy may differ by this much on another CPU: five of 360 images."""
LICENCE = (
    "Data: Optical Recognition of Handwritten Digits (E. Alpaydin, C. Kaynak, UCI Machine Learning Repository, 1998), "
    "CC BY 4.0, as carried by scikit-learn (BSD-3-Clause). Weights: trained here, Apache-2.0 like npuops."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How one network is trained."""

    network: type[nn.Module]
    summary: str
    epochs: int
    rate: float
    floor: float
    """The recipe fails below this accuracy on the evaluation set."""


PLANS = {
    "digits-cnn": Plan(
        network=DigitsCnn,
        summary="CNN: convolution, depthwise-separable block with a residual add, poolings, one linear layer",
        epochs=40,
        rate=4e-3,
        floor=0.985,
    ),
    "digits-transformer": Plan(
        network=DigitsTransformer,
        summary="Transformer encoder: 16 patches, two pre-norm blocks with four heads, LayerNormalization and Gelu",
        epochs=80,
        rate=3e-3,
        floor=0.96,
    ),
}


def shifted(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each image moved by -1, 0 or 1 pixel in both directions: 1437 images are few."""
    padded = nn.functional.pad(images, (1, 1, 1, 1))
    moves = torch.randint(0, 3, (len(images), 2), generator=generator).tolist()
    return torch.stack([image[:, y : y + 8, x : x + 8] for image, (y, x) in zip(padded, moves, strict=True)])


def train(plan: Plan, part: Part) -> nn.Module:
    """The trained network in evaluation mode."""
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    network = plan.network()
    images, labels = torch.from_numpy(part.images), torch.from_numpy(part.labels)
    optimizer = torch.optim.AdamW(network.parameters(), lr=plan.rate, weight_decay=0.02)
    steps = plan.epochs * -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, plan.rate, total_steps=steps)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.05)
    network.train()
    for _ in range(plan.epochs):
        for batch in torch.randperm(len(images), generator=generator).split(BATCH):
            optimizer.zero_grad()
            loss_of(network(shifted(images[batch], generator)), labels[batch]).backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def export(network: nn.Module, name: str) -> bytes:
    """The network as ONNX, batch 1, checked."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # The older exporter is chosen on purpose: it folds batch norms and names nodes after the modules.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            network,
            (torch.zeros(1, 1, 8, 8),),
            buffer,
            input_names=["image"],
            output_names=["logits"],
            opset_version=OPSET,
            dynamo=False,
        )
    model = onnx.load_from_string(buffer.getvalue())
    model.graph.name = name
    name_weights(model)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def name_weights(model: onnx.ModelProto) -> None:
    """`onnx::MatMul_210` becomes `blocks.0.attention.query.weight`: reports name what people know."""
    new = {}
    for node in model.graph.node:
        for index, old in enumerate(node.input):
            if old.startswith("onnx::"):
                kind = "weight" if index == 1 else "bias"
                new[old] = f"{'.'.join(node.name.split('/')[1:-1])}.{kind}"
                node.input[index] = new[old]
    for weight in model.graph.initializer:
        weight.name = new.get(weight.name, weight.name)


def accuracy(model: bytes, part: Part) -> float:
    """Share of right answers of the exported file, by ONNX Runtime."""
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    answers = [session.run(None, {"image": image[None]})[0].argmax() for image in part.images]
    return float(np.mean(np.array(answers) == part.labels))


def packed(part: Part) -> bytes:
    """An .npz as the sample loader reads it: `image` f32[n, 1, 1, 8, 8] (one inference a row) and `labels`."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, image=part.images[:, None], labels=part.labels)
    return buffer.getvalue()


def build() -> dict[str, bytes]:
    """File name → content of the whole zoo, with its card."""
    training, calibration, evaluation = load()
    files = {
        "digits-calibration.npz": packed(calibration),
        "digits-evaluation.npz": packed(evaluation),
        "digits-labels.txt": "".join(f"{digit}\n" for digit in range(CLASSES)).encode(),
    }
    entries = []
    for name, plan in PLANS.items():
        network = train(plan, training)
        content = export(network, name)
        right = accuracy(content, evaluation)
        weights = sum(parameter.numel() for parameter in network.parameters())
        print(f"{name}: accuracy {right:.4f} on {len(evaluation.labels)} held-out images, {len(content)} bytes")
        if right < plan.floor:
            sys.exit(f"{name}: accuracy {right:.4f} is below {plan.floor}")
        files[f"{name}.onnx"] = content
        entries.append(
            {
                "name": name,
                "summary": plan.summary,
                "model": f"{name}.onnx",
                "calibration": "digits-calibration.npz",
                "evaluation": "digits-evaluation.npz",
                "labels": "digits-labels.txt",
                "parameters": weights,
                "accuracy": right,
            }
        )
    card = {
        "schema": "npuops.zoo/1",
        "recipe": "examples/zoo/train.py",
        "seed": SEED,
        "torch": torch.__version__.partition("+")[0],
        "licence": LICENCE,
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())},
        "models": entries,
    }
    files["zoo.json"] = (json.dumps(card, indent=2) + "\n").encode()
    return files


def write(folder: Path, files: dict[str, bytes]) -> None:
    """Each file appears whole or not at all; the card comes last."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as draft:
            draft.write(content)
        Path(draft.name).chmod(0o644)
        Path(draft.name).replace(folder / name)


def check(folder: Path, files: dict[str, bytes]) -> bool:
    """Compare accuracies (they decide) and bits (reported) of the committed zoo with the retrained one."""
    old = json.loads((folder / "zoo.json").read_text(encoding="utf-8"))
    new = json.loads(files["zoo.json"])
    fine = True
    for before, after in zip(old["models"], new["models"], strict=True):
        name = after["model"]
        near = before["name"] == after["name"] and abs(before["accuracy"] - after["accuracy"]) <= TOLERANCE
        bits = "same bits" if old["sha256"][name] == new["sha256"][name] else "other bits"
        print(f"{name}: committed {before['accuracy']:.4f}, retrained {after['accuracy']:.4f}, {bits}")
        fine = fine and near
    return fine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--out", type=Path, help="write the zoo into this folder")
    what.add_argument("--check", type=Path, help="retrain and compare with the zoo in this folder")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    if arguments.out:
        write(arguments.out, build())
    elif not check(arguments.check, build()):
        sys.exit("the retrained zoo differs by more than the tolerance")


if __name__ == "__main__":
    main()
