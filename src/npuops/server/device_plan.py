"""Which devices run a version, and which of its artifacts each one gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from npuops.errors import OptionError, nearest
from npuops.server.model_options import DeviceOptions, ModelOptions
from npuops.server.version_signature import rows_of
from npuops.server.version_spec import FoundArtifact

NAMED: Final = "vnpu:"
"""Targets whose devices are told apart by a name; a session of any other one takes what its vendor's code chooses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePlan:
    """One device of a version.

    Attributes:
        name: in answers, metrics and logs: the target, or target and device; numbered where two would be the same.
        target: that its artifacts were built for.
        device: as `[[device]] name` says; "" is the target's own choice.
        artifacts: its buckets: the same model in other shapes.
        instances: worker processes.
        fallback: gets only what the fallback policy gives it.
    """

    name: str
    target: str
    device: str
    artifacts: tuple[FoundArtifact, ...]
    instances: int
    fallback: bool


def plan_devices(artifacts: Sequence[FoundArtifact], options: ModelOptions) -> tuple[DevicePlan, ...]:
    """The devices of a version. Without any `[[device]]`, each target that an artifact was built for is one.

    Raises:
        OptionError: a `[[device]]` names what the version has no artifact for, or a device where there are no names;
            all are fallbacks; or two artifacts for one device have the same shapes, so that which one answers would be
            chance.
    """
    wishes = options.device or tuple(
        DeviceOptions(target=target) for target in dict.fromkeys(item.manifest.target for item in artifacts)
    )
    if all(wish.fallback for wish in wishes):
        raise OptionError("every [[device]] is a fallback: nothing is left to fall back from")
    names: dict[str, int] = {}
    plans = []
    for wish in wishes:
        chosen = _chosen(artifacts, wish)
        target = chosen[0].manifest.target
        if wish.name and not target.startswith(NAMED):
            raise OptionError(
                f"a [[device]] is called {wish.name!r}, and {target!r} has no devices with names",
                advice=f"leave `name` away; virtual devices ({NAMED}…) have one",
            )
        base = f"{target}/{wish.name}" if wish.name else target
        names[base] = names.get(base, 0) + 1
        plans.append(
            DevicePlan(
                name=base if names[base] == 1 else f"{base}#{names[base]}",
                target=target,
                device=wish.name or "",
                artifacts=chosen,
                instances=wish.instances,
                fallback=wish.fallback,
            )
        )
    return tuple(plans)


def _chosen(artifacts: Sequence[FoundArtifact], wish: DeviceOptions) -> tuple[FoundArtifact, ...]:
    if wish.artifact is not None:
        found = tuple(item for item in artifacts if item.name == wish.artifact)
        known, word = [item.name for item in artifacts], wish.artifact
    else:
        found = tuple(item for item in artifacts if item.manifest.target == wish.target)
        known, word = [item.manifest.target for item in artifacts], str(wish.target)
    if not found:
        raise OptionError(
            f"a [[device]] wants {word!r}, which no artifact of this version is", advice=nearest(word, known)
        )
    _refuse_twins(found)
    return found


def _refuse_twins(artifacts: Sequence[FoundArtifact]) -> None:
    seen: dict[object, FoundArtifact] = {}
    for item in artifacts:
        shapes = tuple(tensor.shape for tensor in item.manifest.inputs)
        other = seen.setdefault((rows_of(item.manifest), shapes), item)
        if other is not item:
            raise OptionError(
                f"{other.name!r} and {item.name!r} are for the same target and have the same shapes",
                advice="take one away, or name the one to use: [[device]] artifact = …",
            )
