"""Chance that repeats itself: numbers that depend on a seed and a count, and on nothing that happened before. Pure.

Counted, not drawn one after the other: what the hundredth job meets doesn't depend on what was asked of the others.
"""

from __future__ import annotations

import hashlib


def draw(seed: int, number: int) -> int:
    """64 bits."""
    return int.from_bytes(hashlib.blake2b(f"{seed}:{number}".encode(), digest_size=8).digest(), "big")


def chance(seed: int, number: int) -> float:
    """Evenly from 0 to below 1 (53 bits, so that it cannot round to 1)."""
    return (draw(seed, number) >> 11) / 2**53
