"""What a firmware bug does to the outputs of a job: bits flip, and nobody is told. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from npuops.vnpu.conditions import Corruption

ONE_IN: Final = 16
"""Of so many elements one is hit, and at least one of every output."""


def flip_bits(outputs: Mapping[str, NDArray[Any]], corruption: Corruption) -> None:
    """Change the arrays in place: the same bits for the same seed.

    The bit is one of a byte in which a low bit is a small error and a high one a large error: of an integer the
    lowest, of a float the second from the top (of float32: the last of the exponent and the first 7 of the mantissa).
    Of a truth value it is the only bit there is.
    """
    chosen = np.random.default_rng(corruption.seed)
    for name in sorted(outputs):
        array = outputs[name]
        if not array.size:
            continue
        hit = chosen.choice(array.size, size=max(1, array.size // ONE_IN), replace=False)
        flat = array.reshape(-1)
        octets = np.ascontiguousarray(flat[hit]).view(np.uint8).reshape(len(hit), -1)
        place = max(0, array.itemsize - 2) if array.dtype.kind == "f" else 0
        octets[:, place] ^= np.uint8(1 if array.dtype.kind == "b" else 1 << corruption.bit)
        flat[hit] = octets.reshape(-1).view(array.dtype)
