"""Targets are found by entry points of the group `npuops.targets`, built-in ones too."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

from npuops.errors import ToolchainError, UnknownTargetError, nearest
from npuops.targets.protocol import Family, Target

GROUP = "npuops.targets"


def families() -> dict[str, Family]:
    """Family name → family, in alphabetical order.

    Raises:
        ToolchainError: an entry point of another package does not load, or names something else.
    """
    return {point.name: _load(point) for point in sorted(entry_points(group=GROUP), key=lambda p: p.name)}


def open_target(name: str) -> Target:
    """`family` or `family:variant` → target. The name must be given in full: nothing is chosen silently.

    Raises:
        UnknownTargetError: with the nearest known name.
    """
    family_name, _, variant = name.partition(":")
    points = {point.name: point for point in entry_points(group=GROUP)}
    if family_name not in points:
        raise UnknownTargetError(f"no target {family_name!r}", advice=nearest(family_name, points))
    return _load(points[family_name]).make(variant or None)


def unknown_variant(family: str, variant: str, known: tuple[str, ...]) -> UnknownTargetError:
    """The error that a family's `make` raises."""
    return UnknownTargetError(f"{family} has no variant {variant!r}", advice=nearest(variant, known))


def _load(point: EntryPoint) -> Family:
    try:
        family = point.load()
    except ImportError as error:
        raise ToolchainError(
            f"target {point.name!r} ({point.value}) does not import: {error}",
            advice="reinstall or remove the package that provides it",
        ) from error
    if not isinstance(family, Family):
        raise ToolchainError(f"target {point.name!r}: {point.value} is not a npuops Family")
    return family
