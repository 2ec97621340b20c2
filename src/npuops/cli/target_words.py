"""Completion of target names in the shell."""

from __future__ import annotations

from npuops.targets.protocol import Family
from npuops.targets.registry import families


def complete_target(incomplete: str) -> list[str]:
    """Every full target name that begins so: `qnn-htp:sm86` → `qnn-htp:sm8650`."""
    whole = [family for family in families().values() if isinstance(family, Family)]
    names = [f"{family.name}:{variant}" for family in whole for variant in family.variants]
    names += [family.name for family in whole if not family.variants]
    return sorted(name for name in names if name.startswith(incomplete))
