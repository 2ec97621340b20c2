"""Completion of target names in the shell."""

from __future__ import annotations

from npuops.targets.registry import families


def complete_target(incomplete: str) -> list[str]:
    """Every full target name that begins so: `qnn-htp:sm86` → `qnn-htp:sm8650`."""
    names = [f"{family.name}:{variant}" for family in families().values() for variant in family.variants] + [
        family.name for family in families().values() if not family.variants
    ]
    return sorted(name for name in names if name.startswith(incomplete))
