"""Targets are found by entry points of the group `npuops.targets`, built-in ones too."""

from __future__ import annotations

import sys
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points

from npuops.errors import ToolchainError, UnknownTargetError, nearest
from npuops.targets.protocol import Family, Target

GROUP = "npuops.targets"


def families() -> dict[str, Family | ToolchainError]:
    """Family name → family, in alphabetical order; one that does not load is its error, and hides no other.

    Raises:
        ToolchainError: two packages claim one name.
    """
    found: dict[str, Family | ToolchainError] = {}
    for name, point in sorted(_points().items()):
        try:
            found[name] = _load(point)
        except ToolchainError as error:
            found[name] = error
    return found


def open_target(name: str) -> Target:
    """`family` or `family:variant` → target. The name must be given in full: nothing is chosen silently.

    Raises:
        UnknownTargetError: with the nearest known name.
        ToolchainError: the package that provides it is broken, or two packages do.
    """
    family_name, _, variant = name.partition(":")
    points = _points()
    if family_name not in points:
        raise UnknownTargetError(f"no target {family_name!r}", advice=nearest(family_name, points))
    return _load(points[family_name]).make(variant or None)


def unknown_variant(family: str, variant: str, known: tuple[str, ...]) -> UnknownTargetError:
    """The error that a family's `make` raises."""
    advice = nearest(variant, known) if known else f"it has none: the name is {family!r}"
    return UnknownTargetError(f"{family} has no variant {variant!r}", advice=advice)


def _points() -> dict[str, EntryPoint]:
    return _points_on(tuple(sys.path))


@lru_cache(maxsize=4)
def _points_on(_path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """Of the packages that this process can import: reading their metadata takes 10 ms, and a server asks often."""
    points: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP):
        other = points.setdefault(point.name, point)
        if other.value != point.value:
            raise ToolchainError(
                f"two packages provide the target {point.name!r}: {other.value} and {point.value}",
                advice="remove one of them: which one would work is chance",
            )
    return points


def _load(point: EntryPoint) -> Family:
    try:
        family = point.load()
    except Exception as error:
        raise ToolchainError(
            f"target {point.name!r} ({point.value}) does not import: {type(error).__name__}: {error}",
            advice="reinstall or remove the package that provides it",
        ) from error
    if not isinstance(family, Family):
        raise ToolchainError(f"target {point.name!r}: {point.value} is not a npuops Family")
    return family
