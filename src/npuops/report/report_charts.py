"""The report's drawings, as inline SVG: the strip of nodes on two lanes, and the bars in the tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from npuops.models.placement import RunsOn
from npuops.report.report_page import Markup, element, join, text

WIDTH: Final = 1000.0
LANE: Final = 26.0
MOST_SEGMENTS: Final = 800
"""More nodes than that are drawn as islands: narrower than a pixel they would tell nothing."""
MOST_EDGES: Final = 90
"""Up to so many segments get a visible edge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One node of the strip."""

    label: str
    runs_on: RunsOn
    weight: float
    """Its part of the width, in any unit."""


def strip(segments: Sequence[Segment], names: Mapping[RunsOn, str], *, caption: str, alternative: str) -> Markup:
    """All nodes in order, on the device's lane or the CPU's, as wide as their weight."""
    drawn = segments if len(segments) <= MOST_SEGMENTS else _merged(segments, names)
    total = sum(segment.weight for segment in drawn)
    scale = WIDTH / total if total > 0 else 0.0
    edge = " edge" if len(drawn) <= MOST_EDGES else ""
    shapes: list[str] = []
    left = 0.0
    for segment in drawn:
        width = segment.weight * scale
        top = 0.0 if segment.runs_on is RunsOn.NPU else LANE
        shapes.append(
            f'<rect class="{segment.runs_on}{edge}" x="{left:.2f}" y="{top + 2:g}" width="{max(width, 0.4):.2f}"'
            f' height="{LANE - 4:g}"><title>{text(segment.label)}</title></rect>'
        )
        left += width
    lanes = "".join(
        f'<rect class="lane" x="0" y="{top + 2:g}" width="{WIDTH:g}" height="{LANE - 4:g}"/>' for top in (0.0, LANE)
    )
    picture = Markup(
        f'<svg viewBox="0 0 {WIDTH:g} {2 * LANE:g}" preserveAspectRatio="none" role="img"'
        f' aria-label="{text(alternative)}">{lanes}{"".join(shapes)}</svg>'
    )
    lane_names = join(element("span", name, aria_hidden="true") for name in (names[side] for side in RunsOn))
    return element("figure", element("figcaption", caption), element("div", lane_names, picture, class_="lanes"))


def _merged(segments: Sequence[Segment], names: Mapping[RunsOn, str]) -> list[Segment]:
    islands = [(side, list(group)) for side, group in groupby(segments, key=lambda segment: segment.runs_on)]
    return [
        Segment(
            label=f"{len(group)} nodes on {names[side]}, {group[0].label} to {group[-1].label}",
            runs_on=side,
            weight=sum(segment.weight for segment in group),
        )
        for side, group in islands
    ]


def bar(*parts: tuple[RunsOn, float]) -> Markup:
    """A horizontal bar of shares (0 to 1 together) on a track; the number stands in the next cell."""
    left = 0.0
    shapes = ['<rect class="lane" x="0" y="0" width="100" height="12"/>']
    for side, share in parts:
        width = max(0.0, min(share, 1.0)) * 100
        shapes.append(f'<rect class="{side}" x="{left:.2f}" y="0" width="{width:.2f}" height="12"/>')
        left += width
    frame = '<svg class="bar" viewBox="0 0 100 12" preserveAspectRatio="none" aria-hidden="true">'
    return Markup(f"{frame}{''.join(shapes)}</svg>")


def key(side: RunsOn, name: str) -> Markup:
    """The colour of a side with its name."""
    square = Markup(f'<svg viewBox="0 0 12 12" aria-hidden="true"><rect class="{side}" width="12" height="12"/></svg>')
    return element("span", square, name, class_="key")
