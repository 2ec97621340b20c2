"""Predicted against published, per chip, as an SVG.

python benchmarks/predictor/plot.py ANSWERS.json OUT.svg [TITLE]
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

SIDE, GAP, MARGIN, COLUMNS = 190, 26, 46, 5
LOW_MS, HIGH_MS = 0.1, 1000.0
DEFAULT = "(a) seen chip, unseen family"


def main(answers: Path, out: Path, title: str = DEFAULT) -> None:
    chips = {name: found for name, found in json.loads(answers.read_text())[title].items() if found}
    rows = math.ceil(len(chips) / COLUMNS)
    width, height = MARGIN + COLUMNS * (SIDE + GAP), MARGIN + rows * (SIDE + GAP) + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"',
        ' font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="{MARGIN}" y="18" font-size="14" fill="#1a1a1a">{title}: predicted against published, ms</text>',
    ]
    for index, (name, found) in enumerate(chips.items()):
        left = MARGIN + (index % COLUMNS) * (SIDE + GAP)
        top = 36 + (index // COLUMNS) * (SIDE + GAP)
        parts += panel(name, found, left, top)
    out.write_text("\n".join([*parts, "</svg>"]) + "\n", encoding="utf-8")


def panel(name: str, found: list[dict[str, float]], left: int, top: int) -> list[str]:
    error = sorted(abs(one["predicted_us"] / one["measured_us"] - 1) for one in found)[len(found) // 2]
    parts = [f'<rect x="{left}" y="{top}" width="{SIDE}" height="{SIDE}" fill="#f7f7f7" stroke="#cccccc"/>']
    for decade in (0.1, 1.0, 10.0, 100.0, 1000.0):
        at = place(decade)
        parts.append(line(left + at, top, left + at, top + SIDE, "#e2e2e2"))
        parts.append(line(left, top + SIDE - at, left + SIDE, top + SIDE - at, "#e2e2e2"))
        if decade < HIGH_MS:  # the next panel's axis begins there
            parts.append(f'<text x="{left + at - 8:.0f}" y="{top + SIDE + 12}" fill="#666666">{decade:g}</text>')
    for factor, colour in ((1.0, "#444444"), (1.2, "#bbbbbb"), (1 / 1.2, "#bbbbbb")):
        shift = math.log(factor) / math.log(HIGH_MS / LOW_MS) * SIDE
        parts.append(
            f'<path d="M{left + max(0, -shift)},{top + SIDE - max(0, shift)}'
            f'L{left + SIDE - max(0, shift)},{top + max(0, -shift)}" stroke="{colour}" fill="none"/>'
        )
    for one in found:
        x, y = (place(one[key] / 1e3) for key in ("measured_us", "predicted_us"))
        parts.append(
            f'<circle cx="{left + x:.1f}" cy="{top + SIDE - y:.1f}" r="2.6" fill="#1f6fb2" fill-opacity="0.6"/>'
        )
    label = f"{name}: {len(found)} rows, median {error:.0%}"
    parts.append(f'<text x="{left + 6}" y="{top + 14}" fill="#1a1a1a">{label}</text>')
    return parts


def place(ms: float) -> float:
    """Pixels from the axis; what lies outside sticks to the border."""
    share = math.log(min(max(ms, LOW_MS), HIGH_MS) / LOW_MS) / math.log(HIGH_MS / LOW_MS)
    return share * SIDE


def line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
