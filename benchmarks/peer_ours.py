"""One quantization by npuops, in a process of its own: MODEL CALIBRATION.npz OUT MODE [EVALUATION.npz]."""

from __future__ import annotations

import sys
from pathlib import Path

from npuops.evaluate.sample_sources import load_samples
from npuops.models.open import open_model
from npuops.quantize.mixed import find_mix
from npuops.quantize.quantize import QuantizeOptions, quantize
from npuops.targets.protocol import Precision


def main(model: Path, calibration: str, out: Path, mode: str, evaluation: str = "") -> None:
    inputs = open_model(model).inputs
    samples = load_samples(calibration, inputs)
    if mode == "mixed":
        mix = find_mix(
            model,
            samples,
            load_samples(evaluation, inputs),
            max_drop=0.01,
            metric="cosine",
            options=QuantizeOptions(layernorm_gamma_uint8=True),
            out=out,
        )
        print(f"{mix.share_16bit:.1%} of activations at 16 bits, {len(mix.trials)} trials, met: {mix.met}")
        return
    quantize(model, samples, QuantizeOptions(precision=Precision(mode), layernorm_gamma_uint8=True), out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), *sys.argv[4:])
