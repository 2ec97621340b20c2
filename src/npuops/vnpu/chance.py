"""Chance that repeats itself: numbers that depend on a seed and a place, and on nothing that happened before. Pure.

Counted, not drawn one after the other: what the hundredth job meets doesn't depend on what was asked of the others.
"""

from __future__ import annotations

import hashlib


def draw(seed: int, *place: int | str) -> int:
    """64 bits; two places of one seed have nothing to do with each other."""
    words = ":".join(map(str, (seed, *place)))
    return int.from_bytes(hashlib.blake2b(words.encode(), digest_size=8).digest(), "big")


def chance(seed: int, *place: int | str) -> float:
    """Evenly from 0 to below 1 (53 bits, so that it cannot round to 1)."""
    return (draw(seed, *place) >> 11) / 2**53
