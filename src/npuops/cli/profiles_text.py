"""Chip profiles for people: the table of all, and the page of one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from npuops.vnpu.figures import Figure
    from npuops.vnpu.profile import Profile
    from npuops.vnpu.profile_sections import Effective


def table_of(profiles: Sequence[Profile]) -> Table:
    """One line a chip."""
    table = _table("name", "title")
    for heading in ("peak TOPS", "SRAM KiB", "DRAM GB/s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("formats", "fitted error"):
        table.add_column(heading, overflow="fold")
    for profile in profiles:
        table.add_row(
            Text(profile.name),
            Text(profile.title),
            f"{profile.compute.peak_int8_tops.value:g}",
            f"{profile.memory.sram_kib.value:g}",
            f"{profile.memory.dram_gbps.value:g}",
            " ".join(profile.formats),
            _fitted(profile.effective),
        )
    return table


def page_of(profile: Profile) -> RenderableType:
    """Every figure with its source, what the sources are, and the fitted rates."""
    figures = [figure for section in profile.figures.values() for figure in section.values()]
    origins = Counter(figure.origin for figure in figures)
    counts = ", ".join(f"{count} {origin}" for origin, count in sorted(origins.items()))
    lines = [
        f"{profile.name}: {profile.title}",
        f"formats {' '.join(profile.formats)}; {len(figures)} figures: {counts}",
        f"stands for the published rows of {', '.join(profile.published_device) or 'no device'}",
    ]
    parts: list[RenderableType] = [Text("\n".join([*lines, *([profile.notes] if profile.notes else [])])), Text()]
    parts += [_figures(profile), Text(), _sources(figures), Text()]
    parts += [_rates(profile, profile.effective) if profile.effective else Text(_NO_RATES)]
    return Group(*parts)


_NO_RATES = "nobody fitted this profile yet: the predictor computes with priors, and says so"


def _fitted(effective: Effective | None) -> str:
    if effective is None:
        return "-"
    return "unknown" if effective.error is None else f"{effective.error.mape:.0%} ({effective.error.rows} rows)"


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _figures(profile: Profile) -> Table:
    table = _table("figure")
    table.add_column("value", justify="right", overflow="fold")
    for heading in ("origin", "from"):
        table.add_column(heading, no_wrap=True)
    for section, figures in profile.figures.items():
        for key, figure in figures.items():
            table.add_row(f"{section}.{key}", Text(_words(figure)), str(figure.origin), Text(figure.key))
    return table


def _words(figure: Figure[object]) -> str:
    value = figure.value
    if isinstance(value, tuple):
        return " ".join(f"{number:g}" for number in value)
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def _sources(figures: Sequence[Figure[object]]) -> Table:
    table = _table("from", "is")
    for key, source in {figure.key: figure.source for figure in figures}.items():
        table.add_row(Text(key), Text(source))
    return table


def _rates(profile: Profile, effective: Effective) -> RenderableType:
    table = _table("effective rate")
    for heading in ("µs", "nominal", "utilisation"):
        table.add_column(heading, justify="right", no_wrap=True)
    shares = profile.utilisation
    nominal = profile.nominal_rates
    for name, rate in effective.rates.items():
        beside = (f"{nominal[name]:.4g}", f"{shares[name]:.1%}") if name in nominal else ("", "")
        table.add_row(name, f"{rate:.4g}", *beside)
    interval, error = effective.interval, effective.error
    lines = [
        effective.source,
        f"four of five truths lie within {interval.low:g} to {interval.high:g} times the prediction",
    ]
    if error is not None:
        lines.append(
            f"error for new models: mean {error.mape:.1%}, median {error.median:.1%}, "
            f"{error.within_10:.0%} within ±10 % ({error.rows} rows, {error.how})"
        )
    return Group(table, Text("\n".join(lines)))
