"""How far two sets of outputs are apart: cosine, SQNR, largest difference, top-1 agreement.

All functions take arrays whose first axis is the sample, of equal shape, and count in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from npuops.artifacts.evidence import OutputParity

Array = NDArray[Any]


def cosine(got: Array, wanted: Array) -> float | None:
    """Mean over samples of the cosine similarity of the flattened outputs, in -1..1.

    Samples that are equal count as exactly 1, also when they are zero on both sides; None when a sample is zero on
    one side only, or when a value is not finite.
    """
    a, b = _rows(got), _rows(wanted)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    equal = (a == b).all(axis=1)
    if not np.isfinite(norms).all() or ((norms == 0) & ~equal).any():
        return None
    # Rounding must not leave equal rows below 1, nor any above.
    cosines = np.clip(np.einsum("ij,ij->i", a, b) / np.where(norms == 0, 1.0, norms), -1.0, 1.0)
    return float(np.mean(np.where(equal, 1.0, cosines)))


def sqnr_db(got: Array, wanted: Array) -> float | None:
    """Signal to quantization noise, 10·log10(Σ wanted² / Σ (got - wanted)²), in decibels.

    None when the two are equal (the noise is zero) or a value is not finite; -inf never comes out:
    a wanted signal of zero with noise gives -200.
    """
    a, b = _rows(got), _rows(wanted)
    noise = float(np.sum((a - b) ** 2))
    signal = float(np.sum(b**2))
    if noise == 0 or not np.isfinite(noise) or not np.isfinite(signal):
        return None
    return max(-200.0, 10 * float(np.log10(max(signal, 1e-300) / noise)))


def max_abs(got: Array, wanted: Array) -> float:
    """Largest absolute difference of finite values; 0 where there are none."""
    a, b = _rows(got), _rows(wanted)
    return float(np.max(np.abs(a - b))) if a.size else 0.0


def top1_agreement(got: Array, wanted: Array) -> float | None:
    """Share of samples with the same argmax over the last axis; None unless each is one vector of ≥ 2 values."""
    if got.ndim < 2 or got.shape[-1] < 2 or got[0].size != got.shape[-1]:
        return None
    return float(np.mean(_rows(got).argmax(axis=1) == _rows(wanted).argmax(axis=1)))


def output_parity(name: str, got: Array, wanted: Array) -> OutputParity:
    """All figures for one output.

    Raises:
        ValueError: the shapes differ.
    """
    if got.shape != wanted.shape:
        raise ValueError(f"output {name}: shape {got.shape} against {wanted.shape}")
    finite = bool(np.isfinite(_rows(got)).all() and np.isfinite(_rows(wanted)).all())
    return OutputParity(
        output=name,
        cosine=cosine(got, wanted) if finite else None,
        sqnr_db=sqnr_db(got, wanted) if finite else None,
        max_abs=max_abs(got, wanted) if finite else None,
        top1_agreement=top1_agreement(got, wanted) if finite else None,
        finite=finite,
    )


def _rows(array: Array) -> NDArray[np.float64]:
    return np.asarray(array, dtype=np.float64).reshape(len(array), -1)
