"""The story of the demo's device for people, and as plain values for JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.table import Table
from rich.text import Text

from npuops.cli.show import print_hanging
from npuops.devices.health import Health
from npuops.devices.uevents import Missed, Uevent
from npuops.units import Basis, format_us

if TYPE_CHECKING:
    from npuops.cli.demo_device import Reset, Stage, Story
    from npuops.cli.screen import Screen

_COLOURS: Final = {Health.HEALTHY: "green", Health.DEGRADED: "yellow", Health.UNHEALTHY: "red", Health.GONE: "red"}


def show_story(screen: Screen, story: Story) -> None:
    """A table of the stages, what became of heat and reset, and the events."""
    spec = story.spec
    screen.print(
        f"\nIt runs on a virtual {spec.name}, {spec.cores} cores in a case at {spec.thermal.ambient_c:g} °C,"
        f" with {spec.cores} neighbours that never rest:",
        style="bold",
    )
    screen.print(_table(story))
    told = [("heat", _heat(story)), ("reset", _reset(story.reset)), ("answers", _answers(story))]
    for label, words in (*_suspected(story), *told):
        print_hanging(screen, f"{label:8}", words)
    for event in story.uevents:
        print_hanging(screen, "uevent  ", _event(event))
    screen.print(
        "\nTime, heat and power are modelled, with the device's clock moved by hand; the answers are computed.",
        style="dim",
    )


def plain_story(story: Story) -> dict[str, object]:
    """Times in the device's own time; `heated_s` and `cooled_s` are null for what never happened."""
    return {
        "profile": story.spec.name,
        "cores": story.spec.cores,
        "ambient_c": story.spec.thermal.ambient_c,
        "basis": Basis.MODELLED,
        "stages": [_plain(stage) for stage in story.stages],
        "heated_s": story.heated_s,
        "reset": story.reset,
        "cooled_s": story.cooled_s,
        "patience_s": story.patience_s,
        "uevents": story.uevents,
        "as_promised": story.is_as_promised,
    }


def _plain(stage: Stage) -> dict[str, object]:
    seen = stage.seen
    return {
        "title": stage.title,
        "inferences": len(stage.latencies_us),
        "p50_us": stage.percentile_us(50),
        "p99_us": stage.percentile_us(99),
        "same_answers": stage.same,
        "neighbours_per_s": stage.neighbours_per_s,
        "busy": stage.busy,
        "clock_mhz": seen.cap_mhz,
        "temperature_c": seen.temperature_c,
        "power_w": seen.power_w,
        "throttles": seen.throttles,
        "resets": seen.resets,
        "health": stage.looked.condition.health,
        "why": stage.looked.condition.why,
        "suspected": stage.looked.suspected,
    }


def _table(story: Story) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for heading in ("p50", "p99", "neighbours", "busy", "clock", "heat", "power"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("health")
    for stage in story.stages:
        seen = stage.seen
        table.add_row(
            stage.title,
            format_us(stage.percentile_us(50)),
            format_us(stage.percentile_us(99)),
            f"{stage.neighbours_per_s:.0f}/s" if stage.neighbours_per_s else "–",
            f"{stage.busy:.0%}",
            f"{seen.cap_mhz:.0f} MHz",
            f"{seen.temperature_c:.0f} °C",
            f"{seen.power_w:.1f} W",
            _health(stage),
        )
    return table


def _health(stage: Stage) -> Text:
    health = stage.looked.condition.health
    words = (health, *(each.mode for each in stage.looked.suspected))
    return Text(" ".join(words), style=_COLOURS.get(health, ""))


def _suspected(story: Story) -> list[tuple[str, str]]:
    """Each failure mode when it was first suspected, with what spoke for it."""
    found: dict[str, str] = {}
    for stage in story.stages:
        for each in stage.looked.suspected:
            found.setdefault(each.mode, f"{each.name}: {'; '.join(each.evidence)} ({stage.title})")
    return list(found.items())


def _event(event: Uevent | Missed) -> str:
    if isinstance(event, Missed):
        return f"{event.count} lines were over before they were read"
    return " ".join((f"{event.at_us / 1e6:8.3f} s", event.action, *map("=".join, event.fields.items())))


def _heat(story: Story) -> str:
    """In words, also when it did not happen."""
    thermal = story.spec.thermal
    if story.heated_s is None:
        warmest_c = max(stage.seen.temperature_c for stage in story.stages)
        return (
            f"it did not throttle in {story.patience_s // 60} minutes of full load: it reached {warmest_c:.1f} °C,"
            f" its trip point is at {thermal.throttle_c:g} °C"
        )
    steps = story.stages[-1].seen.throttles
    throttled = (
        f"throttled after {story.heated_s:.0f} s of full load, at {thermal.throttle_c:g} °C, {steps} times in all"
    )
    if story.cooled_s is None:
        return f"{throttled}; {story.patience_s // 60} minutes after the load its clock was still held down"
    return f"{throttled}; its full clock was back {story.cooled_s:.0f} s after the load"


def _reset(reset: Reset) -> str:
    contexts = f"{reset.contexts_lost or 'none'} of {reset.contexts} contexts"
    ours = "ours had to be opened again" if reset.opened_again else "ours went on as it was"
    return f"{reset.jobs_lost} jobs on the cores were lost, {contexts}; {ours}; online after {format_us(reset.away_us)}"


def _answers(story: Story) -> str:
    asked, same = (sum(values) for values in zip(*((len(s.latencies_us), s.same) for s in story.stages), strict=True))
    if asked == same:
        return f"{asked} inferences: cool, hot and after the reset the same bits for the same picture"
    return f"{asked - same} of {asked} answers differ from the first ones to the same picture"
