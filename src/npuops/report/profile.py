"""Where an artifact's time goes: the target's profile, taken in a child process, and what can be read from it.

Absolute figures mean what `Profile.basis` says. Shares are of the profile's own total.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from npuops.artifacts.manifest import Artifact
from npuops.errors import ToolchainError
from npuops.events import Observer, ignore
from npuops.models.model import QDQ_OPS
from npuops.models.placement import Placement, RunsOn
from npuops.targets.child import call
from npuops.targets.inputs import check_inputs
from npuops.targets.protocol import OpCost, Profile, Tensors
from npuops.targets.registry import open_target
from npuops.units import Basis

SCHEMA = "npuops.profile/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpShare:
    """One operator of the profile, with its part of the total (0 to 1)."""

    name: str
    op: str
    runs_on: RunsOn
    cost: float
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeShare:
    """All operators of one type on one side."""

    op: str
    runs_on: RunsOn
    count: int
    cost: float
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Island:
    """Consecutive nodes on one side. Each CPU island between NPU islands costs two crossings."""

    runs_on: RunsOn
    first: str
    last: str
    nodes: int
    work: int
    """Nodes that compute; the others only change the number format."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileAnswer:
    """The JSON of `npuops profile`."""

    schema: str = SCHEMA
    artifact: str
    target: str
    input: str
    """Where the input came from."""
    basis: Basis
    unit: str
    source: str
    total: float
    ops: tuple[OpShare, ...]
    """In execution order."""
    by_type: tuple[TypeShare, ...]
    """Most expensive first."""
    islands: tuple[Island, ...]
    """In graph order, as the compiler placed the nodes."""


def profile_artifact(artifact: Artifact, inputs: Tensors, *, timeout_s: float, observe: Observer = ignore) -> Profile:
    """The target's profile of one inference of a verified artifact.

    Raises:
        DataError: a name, dtype or shape of `inputs` is not the model's.
        ToolchainError: the target cannot profile, crashed, took too long, or gave figures that are none.
    """
    check_inputs(inputs, artifact.manifest.inputs)
    target = artifact.manifest.target
    arguments = {"artifact": artifact, "inputs": dict(inputs)}
    reply = call(_profile, arguments, what=f"{target} profile", timeout_s=timeout_s, observe=observe)
    profile = reply.value
    assert isinstance(profile, Profile)  # noqa: S101 - for the type checker: _profile returns nothing else
    bad = [op.name for op in profile.ops if not (np.isfinite(op.cost) and op.cost >= 0)]
    if bad:
        raise ToolchainError(f"{target}: the profile holds costs that are no numbers, first at {bad[0]!r}")
    if not profile.ops:
        raise ToolchainError(f"{target}: the profile is empty", advice="the toolchain gave no figure for any operator")
    return profile


def _profile(artifact: Artifact, inputs: Tensors) -> Profile:
    return open_target(artifact.manifest.target).profile(artifact, inputs)


def op_shares(profile: Profile) -> tuple[OpShare, ...]:
    """Every operator with its share, in execution order."""
    return tuple(
        OpShare(name=op.name, op=op.op, runs_on=op.runs_on, cost=op.cost, share=_share(op.cost, profile.total))
        for op in profile.ops
    )


def type_shares(profile: Profile) -> tuple[TypeShare, ...]:
    """Operators grouped by type and side, most expensive first."""
    groups: dict[tuple[str, RunsOn], list[OpCost]] = {}
    for op in profile.ops:
        groups.setdefault((op.op, op.runs_on), []).append(op)
    shares = [
        TypeShare(op=op, runs_on=side, count=len(members), cost=cost, share=_share(cost, profile.total))
        for (op, side), members in groups.items()
        for cost in [sum(member.cost for member in members)]
    ]
    return tuple(sorted(shares, key=lambda group: (-group.cost, group.op)))


def slowest(profile: Profile, top: int) -> tuple[OpShare, ...]:
    """The `top` most expensive operators, most expensive first."""
    return tuple(sorted(op_shares(profile), key=lambda op: -op.cost)[:top])


def islands(nodes: Iterable[Placement]) -> tuple[Island, ...]:
    """Runs of consecutive nodes on the same side, in graph order."""
    groups: list[list[Placement]] = []
    for node in nodes:
        if groups and groups[-1][-1].runs_on is node.runs_on:
            groups[-1].append(node)
        else:
            groups.append([node])
    return tuple(
        Island(
            runs_on=group[0].runs_on,
            first=group[0].name,
            last=group[-1].name,
            nodes=len(group),
            work=sum(node.op not in QDQ_OPS for node in group),
        )
        for group in groups
    )


def profile_answer(artifact: Artifact, profile: Profile, *, name: str, source: str) -> ProfileAnswer:
    """All that `npuops profile --json` prints."""
    return ProfileAnswer(
        artifact=name,
        target=artifact.manifest.target,
        input=source,
        basis=profile.basis,
        unit=profile.unit,
        source=profile.source,
        total=profile.total,
        ops=op_shares(profile),
        by_type=type_shares(profile),
        islands=islands(artifact.manifest.placement.nodes),
    )


def cost_words(cost: float) -> str:
    """`101,175,000` or `15.91`: all digits of a large count, four of a small one."""
    return f"{cost:,.0f}" if cost >= 1000 else f"{cost:.4g}"


def _share(cost: float, total: float) -> float:
    return cost / total if total > 0 else 0.0
