"""The story of the demo's server for people, and as plain values for JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from npuops.cli.show import print_hanging
from npuops.units import Basis, format_us

if TYPE_CHECKING:
    from npuops.cli.demo_serve import ServedStage, ServingStory
    from npuops.cli.screen import Screen


def show_serving(screen: Screen, story: ServingStory, clients: int) -> None:
    """A table of the stages, and what became of the worker and the versions."""
    screen.print(f"\nIt is served over HTTP ({story.first}), and {clients} clients ask all the time:", style="bold")
    screen.print(_table(story.stages))
    swapped = f"{story.second} answered {story.swap_s:.2f} s after it was asked for, and the old one till then"
    told = (("killed", _killed(story)), ("swapped", swapped), ("lost", _lost(story)))
    for label, words in told:
        print_hanging(screen, f"{label:8}", words)


def plain_serving(story: ServingStory) -> dict[str, object]:
    """As the story; latencies by the clients' clock."""
    return {
        "first": story.first,
        "second": story.second,
        "basis": Basis.MEASURED,
        "ready_s": story.ready_s,
        "stages": [_plain(stage) for stage in story.stages],
        "recovery_s": story.recovery_s,
        "replayed": story.replayed,
        "swap_s": story.swap_s,
        "version": story.version,
        "ended": story.ended,
        "as_promised": story.is_as_promised,
    }


def _plain(stage: ServedStage) -> dict[str, object]:
    return {
        "title": stage.title,
        "asked": stage.asked,
        "answered": stage.answered,
        "lost": stage.lost,
        "differing": stage.differing,
        "per_s": stage.per_s,
        "p50_ms": stage.p50_ms,
        "p99_ms": stage.p99_ms,
        "max_ms": stage.max_ms,
    }


def _table(stages: tuple[ServedStage, ...]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for heading in ("asked", "lost", "answers", "p50", "p99", "longest"):
        table.add_column(heading, justify="right", no_wrap=True)
    for stage in stages:
        table.add_row(
            stage.title,
            str(stage.asked),
            str(stage.lost),
            f"{stage.per_s:.0f}/s",
            *(format_us(ms * 1000) for ms in (stage.p50_ms, stage.p99_ms, stage.max_ms)),
        )
    return table


def _killed(story: ServingStory) -> str:
    if story.recovery_s is None:
        return "the worker did not come back"
    again = "1 run" if story.replayed == 1 else f"{story.replayed} runs"
    return f"the worker, by SIGKILL: {again} of it went again; another one was ready after {story.recovery_s:.2f} s"


def _lost(story: ServingStory) -> str:
    asked, lost = (sum(values) for values in zip(*((s.asked, s.lost) for s in story.stages), strict=True))
    differing = sum(stage.differing or 0 for stage in story.stages)
    wrong = f"; {differing} answers differ from the first ones to the same input" if differing else ""
    return f"{lost or 'none'} of {asked} requests{wrong}"
