"""Which orders of axes an RKNPU2 can swap, as data. Pure.

Source: the Transpose entries of chapter 3 of the RKNN compiler's operator list V2.3.2 (see `rules_rockchip`). In the
formulas n, c, h and w are the sizes before, `a` is the alignment (16 for int8, 8 for 16 bits), and `p` and `q` are the
chip's limits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from npuops.models.model import Layer
from npuops.targets.rules import Rule
from npuops.vnpu.layer_view import first_in, first_out, integers

Fits = Callable[[int, int, int, int, int, int, int], bool]
"""Of n, c, h, w, a, p, q."""

_RIGHTS: Final[Mapping[tuple[int, ...], Fits]] = {
    (0, 1, 3, 2): lambda _n, _c, h, w, a, p, q: h % a == 0 and h * w < min(a * p, 2 * q),
    (0, 2, 3, 1): lambda _n, c, h, w, a, p, _q: c < 8192 and h * w % 8 == 0 and w * c < a * p,
    (0, 2, 1, 3): lambda _n, c, h, w, a, p, q: h % a == 0 and h * w < min(a * p, 2 * q) and c * w < p,
    (0, 3, 1, 2): lambda _n, c, h, w, _a, p, _q: h * w < p and w < 8192 and h * c < p,
    (0, 3, 2, 1): lambda _n, c, h, w, a, p, q: h % a == 0 and h * w < min(a * p, 2 * q) and c < a * p,
    (1, 0, 2, 3): lambda n, _c, h, w, _a, p, _q: n < 8192 and h * w < p,
    (1, 0, 3, 2): lambda _n, c, h, w, a, p, q: h % a == 0 and c * h * w < a * p and h * w < 2 * q,
    (1, 2, 0, 3): lambda n, c, h, w, a, p, _q: n * w < a * p and c * h * w < p and w % a == 0,
    (1, 2, 3, 0): lambda n, c, h, w, a, p, _q: h * w < p and max(n, c * h * w, n * w) < a * p,
    (1, 3, 0, 2): lambda n, c, h, w, a, p, _q: c * w < 8192 and n * h < p and w % a == 0,
    (1, 3, 2, 0): lambda n, c, h, w, a, p, _q: max(c * h * w, n * h) < p and w < 8192 and w % a == 0,
    (2, 1, 0, 3): lambda n, c, h, w, _a, p, _q: c < 8192 and c * h * w < p and n * w < p,
    (2, 1, 3, 0): lambda n, c, h, w, a, p, _q: c * h * w < p and n * w < a * p and c < 8192 and n * w % 4 == 0,
    (2, 0, 3, 1): lambda _n, c, h, w, _a, p, _q: c < 8192 and c * h * w < p,
    (2, 0, 1, 3): lambda n, c, h, w, a, p, _q: n * c * h * w < p and h * w % a == 0,
    (2, 3, 1, 0): lambda n, c, h, w, a, p, _q: max(c * h * w, n * c) < p and h * w < 8192 and h * w % a == 0,
    (2, 3, 0, 1): lambda n, c, h, w, _a, p, _q: h * w < 8192 and n * c < p,
    (3, 0, 2, 1): lambda n, c, h, w, a, p, _q: max(h * w, c * h) < p and max(n * c, n * w) < 8192 and n * w % a == 0,
    (3, 0, 1, 2): lambda n, c, h, w, a, p, _q: (
        max(h * w, c * h) < p and max(n * c, n * w) < 8192 and n * h * w % a == 0
    ),
    (3, 2, 0, 1): lambda n, c, h, w, _a, p, _q: max(h * w, n * c * w) < p and n * c < 8192,
    (3, 2, 1, 0): lambda n, c, h, w, a, p, q: (
        c * h * w < p and h * w < 8192 and 2 * h * w < q and n * c < a * p and h % a == 0
    ),
    (3, 1, 0, 2): lambda n, c, h, w, _a, p, _q: max(h * w, n * h) < p and c * w < 8192,
    (3, 1, 2, 0): lambda n, c, h, w, _a, p, _q: max(h * w, n * h, n * c * w) < p and n * c < 8192,
}
_LIMITS: Final = {"rk3588": (8192, 2048), "rk3576": (268_435_456, 65_536)}


def _rk3566(shape: tuple[int, ...], perm: tuple[int, ...]) -> bool:
    """Four orders only, and only along a line."""
    n, c, h, w = shape
    if perm not in {(2, 1, 0, 3), (2, 1, 3, 0), (3, 1, 0, 2), (3, 1, 2, 0)} or max(c, n, h * w) >= 8192:
        return False
    line = h if perm[0] == 2 else w
    return (h == w == 1 and n % 4 == 0) or (n == h == 1 and line % 4 == 0)


def transposes(chip: str, number_format: str) -> Rule:
    """Whether the NPU of `chip` does a Transpose; one that moves only axes of size 1 is a Reshape."""
    align = 16 if number_format == "int8" else 8

    def broken(layer: Layer) -> str:
        shape = first_in(layer)
        perm = integers(layer, "perm", _order(shape, first_out(layer)))
        if len(perm) != len(shape) or _only_ones_move(shape, perm):
            return ""
        found = f"{list(shape)} by {list(perm)}"
        missing = 4 - len(shape)
        padded = (1,) * missing + shape if missing > 0 else shape
        order = (*range(missing), *(axis + missing for axis in perm)) if missing > 0 else perm
        if len(padded) != 4:
            return found
        if chip == "rk3566":
            return "" if _rk3566(padded, order) else found
        fits = _RIGHTS.get(order)
        return "" if fits is None or fits(*padded, align, *_LIMITS[chip]) else found

    return Rule("the sizes must be within the chip's limits for this order of axes", broken)


def _order(before: tuple[int, ...], after: tuple[int, ...]) -> tuple[int, ...]:
    """The order that the shapes tell where the file keeps it in a constant (TFLite); empty where they don't."""
    if len(set(before)) != len(before) or sorted(before) != sorted(after):
        return ()
    return tuple(before.index(size) for size in after)


def _only_ones_move(shape: tuple[int, ...], perm: tuple[int, ...]) -> bool:
    busy = [axis for axis in perm if shape[axis] != 1]
    return busy == sorted(busy)
