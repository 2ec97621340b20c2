"""The report's pictures of the graph: who runs where, why, and where the time goes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from npuops.artifacts.manifest import Manifest
from npuops.models.placement import Placement, RunsOn
from npuops.report.profile import Island, cost_words, islands, slowest, type_shares
from npuops.report.report_charts import Segment, bar, key, strip
from npuops.report.report_page import Markup, element, join, section, table
from npuops.targets.protocol import Profile
from npuops.units import Basis

SLOWEST_SHOWN: Final = 20
NAMES_SHOWN: Final = 12
ISLANDS_SHOWN: Final = 40

_BASIS_WORDS: Final = {
    Basis.MEASURED: "Measured with a clock on the engine that is named.",
    Basis.EMULATED: "Ticks of an emulator on the host: only the shares mean something, and not those of silicon.",
    Basis.VENDOR_ESTIMATE: "Estimated by the vendor's own performance model, not measured.",
    Basis.MODELLED: "Computed by our performance model, not measured.",
}


def side_names(target: str) -> Mapping[RunsOn, str]:
    """What to call the two sides: not every target's device is an NPU, so it goes by its family's name."""
    return {RunsOn.NPU: target.partition(":")[0], RunsOn.CPU: "CPU"}


def placement_section(manifest: Manifest) -> Markup:
    """The strip of nodes, the operators by type, and every node that fell back with its rule."""
    nodes, names = manifest.placement.nodes, side_names(manifest.target)
    runs = islands(nodes)
    cpu_islands = [island for island in runs if island.runs_on is RunsOn.CPU]
    count = Counter(node.runs_on for node in nodes)
    summary = (
        f"{len(nodes)} nodes: {count[RunsOn.NPU]} on {names[RunsOn.NPU]}, {count[RunsOn.CPU]} fell back to the CPU, "
        f"in {len(runs)} {'island' if len(runs) == 1 else 'islands'}."
    )
    segments = [Segment(label=f"{n.name} ({n.op})", runs_on=n.runs_on, weight=1.0) for n in nodes]
    parts: list[str] = [
        element("p", summary, " As the vendor's compiler decided it."),
        strip(
            segments,
            names,
            caption="Nodes in order, each as wide as the next",
            alternative=f"Graph strip. {summary}",
        ),
        _histogram(nodes, names),
    ]
    if count[RunsOn.CPU]:
        parts.append(_fallbacks(nodes))
        parts.append(_island_table(cpu_islands))
    return section("Placement", *parts)


def _histogram(nodes: Sequence[Placement], names: Mapping[RunsOn, str]) -> Markup:
    by_type = Counter(node.op for node in nodes)
    here = Counter((node.op, node.runs_on) for node in nodes)
    most = max(by_type.values(), default=1)
    rows = [
        (
            op,
            bar((RunsOn.NPU, here[op, RunsOn.NPU] / most), (RunsOn.CPU, here[op, RunsOn.CPU] / most)),
            str(here[op, RunsOn.NPU]),
            str(here[op, RunsOn.CPU]),
        )
        for op, _ in by_type.most_common()
    ]
    head = ("Operator", "Nodes", *(key(side, names[side]) for side in RunsOn))
    return table("Operators by type", head, rows, numbers=(2, 3), bars=(1,))


def _fallbacks(nodes: Sequence[Placement]) -> Markup:
    groups: dict[tuple[str, str, str], list[str]] = {}
    for node in nodes:
        if node.runs_on is RunsOn.CPU:
            groups.setdefault((node.op, node.rule, node.found), []).append(node.name)
    rows = [(op, str(len(names)), rule, found or "–", _names(names)) for (op, rule, found), names in groups.items()]
    return table("On the CPU, and why", ("Operator", "Nodes", "Rule", "Found", "Names"), rows, numbers=(1,))


def _names(names: Sequence[str]) -> Markup:
    rest = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return element("span", ", ".join(names[:NAMES_SHOWN]) + rest, class_="mono")


def _island_table(cpu_islands: Sequence[Island]) -> Markup:
    rest = f", the first {ISLANDS_SHOWN} of them" if len(cpu_islands) > ISLANDS_SHOWN else ""
    rows = [(island.first, island.last, str(island.nodes), str(island.work)) for island in cpu_islands[:ISLANDS_SHOWN]]
    caption = f"{len(cpu_islands)} CPU {'island' if len(cpu_islands) == 1 else 'islands'}{rest}"
    head = ("From node", "To node", "Nodes", "That compute")
    return table(caption, head, rows, numbers=(2, 3))


def profile_section(profile: Profile | None, target: str) -> Markup:
    """The strip by cost, the slowest operators, and the cost by type."""
    if profile is None:
        words = "Not profiled yet: `npuops profile ARTIFACT -o report.html` adds the cost of every operator."
        return section("Cost per operator", element("p", words))
    names = side_names(target)
    total = f"{cost_words(profile.total)} {profile.unit}"
    about = f"{total} in {len(profile.ops)} operators, {profile.basis}, by {profile.source}."
    segments = [
        Segment(label=f"{op.name} ({op.op}): {cost_words(op.cost)} {profile.unit}", runs_on=op.runs_on, weight=op.cost)
        for op in profile.ops
    ]
    caption = f"Operators in order, as wide as their cost in {profile.unit} ({profile.basis})"
    return section(
        "Cost per operator",
        element("p", about, " ", _BASIS_WORDS[profile.basis]),
        strip(segments, names, caption=caption, alternative=f"Cost strip. {about}"),
        _slowest(profile, names),
        _by_type(profile, names),
    )


def _slowest(profile: Profile, names: Mapping[RunsOn, str]) -> Markup:
    ops = slowest(profile, SLOWEST_SHOWN)
    largest = max((op.share for op in ops), default=0.0) or 1.0
    rows = [
        (
            join((op.name, " ", element("span", op.op, class_="note"))),
            bar((op.runs_on, op.share / largest)),
            f"{op.share:.1%}",
            cost_words(op.cost),
            key(op.runs_on, names[op.runs_on]),
        )
        for op in ops
    ]
    head = ("Operator", "Cost", "Share", profile.unit, "Runs on")
    together = sum(op.share for op in ops)
    caption = (
        f"The {len(ops)} most expensive operators, {together:.0%} of the whole, in {profile.unit} ({profile.basis})"
    )
    return table(caption, head, rows, numbers=(2, 3), bars=(1,))


def _by_type(profile: Profile, names: Mapping[RunsOn, str]) -> Markup:
    groups = type_shares(profile)
    largest = max((group.share for group in groups), default=0.0) or 1.0
    rows = [
        (
            join((group.op, " ", element("span", f"×{group.count}", class_="note"))),
            bar((group.runs_on, group.share / largest)),
            f"{group.share:.1%}",
            cost_words(group.cost),
            key(group.runs_on, names[group.runs_on]),
        )
        for group in groups
    ]
    head = ("Type", "Cost", "Share", profile.unit, "Runs on")
    return table(f"By type, in {profile.unit} ({profile.basis})", head, rows, numbers=(2, 3), bars=(1,))
