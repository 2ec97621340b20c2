"""`npuops devices`: what is plugged in, how it feels, and how busy it is."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from npuops.cli.show import EXIT_NO, JsonFlag, console, print_json
from npuops.errors import UsageError

if TYPE_CHECKING:
    from npuops.devices.sampler import Sample
    from npuops.devices.tree import Tree
    from npuops.events import Event

SCHEMA = "npuops.devices/1"


def command(
    root: Annotated[
        Path, typer.Option("--root", help="A tree shaped like / or like /sys, instead of this machine.")
    ] = Path("/"),
    watch: Annotated[bool, typer.Option("--watch", help="Look again every interval, until interrupted.")] = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="A line for everything that happens, until interrupted.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Exit 1 unless there is a device and all are healthy.")
    ] = False,
    interval: Annotated[float, typer.Option("--interval", metavar="SECONDS", help="Between looks, 1 or more.")] = 1.0,
    as_json: JsonFlag = False,
) -> None:
    """Look twice, an interval apart, since counters tell only by their rise; without a device once."""
    from npuops.clock import SystemClock  # noqa: PLC0415 - help must not pay for it
    from npuops.devices.discovery import find_devices  # noqa: PLC0415 - as above
    from npuops.devices.health import Health  # noqa: PLC0415 - as above
    from npuops.devices.sampler import Sampler  # noqa: PLC0415 - as above
    from npuops.devices.sampling_worker import SamplingWorker  # noqa: PLC0415 - as above
    from npuops.devices.tree import Tree  # noqa: PLC0415 - as above

    if watch + follow + check > 1:
        raise UsageError("--watch, --follow and --check are three ways to look", advice="take one of them")
    tree, clock = Tree(root), SystemClock()
    if watch:
        _watch(tree, interval, as_json=as_json)
        return
    if follow:
        _follow(tree, interval, as_json=as_json)
        return
    worker = SamplingWorker(Sampler(tree, clock), clock, period_s=interval)
    worker.run(rounds=2 if find_devices(tree) else 1)
    if as_json:
        print_json(_plain(tree, worker.latest))
    else:
        _show(tree, worker.latest)
    if check and (not worker.latest or any(each.condition.health is not Health.HEALTHY for each in worker.latest)):
        raise typer.Exit(EXIT_NO)


def _watch(tree: Tree, interval: float, *, as_json: bool) -> None:
    """A live table on a terminal, else a page for each look; with `as_json` one line of JSON for each look."""
    from rich.live import Live  # noqa: PLC0415 - help must not pay for it

    from npuops.cli.devices_text import whole_page  # noqa: PLC0415 - as above
    from npuops.cli.json_line import print_json_line  # noqa: PLC0415 - as above
    from npuops.clock import SystemClock  # noqa: PLC0415 - as above
    from npuops.devices.sampler import DevicesSampled, Sampler  # noqa: PLC0415 - as above
    from npuops.devices.sampling_worker import SamplingWorker  # noqa: PLC0415 - as above

    clock, screen = SystemClock(), console()
    live = Live(console=screen, auto_refresh=False)

    def tell(event: Event) -> None:
        if not isinstance(event, DevicesSampled):
            return
        if as_json:
            print_json_line(_plain(tree, event.samples))
        elif screen.is_terminal:
            live.update(whole_page(tree, event.samples), refresh=True)
        else:
            screen.print(whole_page(tree, event.samples))

    worker = SamplingWorker(Sampler(tree, clock, tell), clock, period_s=interval)
    with nullcontext() if as_json or not screen.is_terminal else live:
        try:
            worker.run()
        except KeyboardInterrupt:
            return  # the way a watch ends


def _follow(tree: Tree, interval: float, *, as_json: bool) -> None:
    from npuops.cli.devices_follow import follow  # noqa: PLC0415 - help must not pay for it

    follow(tree, interval, as_json=as_json)


def _show(tree: Tree, samples: tuple[Sample, ...]) -> None:
    from npuops.cli.devices_text import whole_page  # noqa: PLC0415 - JSON must not pay for it

    console().print(whole_page(tree, samples))


def _plain(tree: Tree, samples: tuple[Sample, ...]) -> dict[str, object]:
    from npuops.devices.discovery import find_driverless, looked_in  # noqa: PLC0415 - help must not pay for it

    return {
        "schema": SCHEMA,
        "root": str(tree.root),
        "looked_in": looked_in(tree),
        "devices": [_plain_device(sample) for sample in samples],
        "driverless": find_driverless(tree),
    }


def _plain_device(sample: Sample) -> dict[str, object]:
    from npuops.devices.quantities import MEANINGS  # noqa: PLC0415 - help must not pay for it

    device, condition = sample.device, sample.condition
    return {
        "id": device.id,
        "name": device.name,
        "vendor": device.vendor,
        "model": device.model,
        "driver": device.driver,
        "driver_version": device.driver_version,
        "firmware": device.firmware,
        "address": device.address,
        "node": device.node,
        "health": {
            "level": condition.health,
            "state": condition.state,
            "why": condition.why,
            "for_seconds": (sample.taken_us - condition.since_us) / 1e6,
        },
        "suspected": sample.suspected,
        "earlier": sample.earlier,
        "interval_seconds": sample.interval_s,
        "values": {
            quantity: {
                "value": reading.value,
                "unit": MEANINGS[quantity].unit,
                "kind": MEANINGS[quantity].kind,
                "source": reading.source,
            }
            for quantity, reading in sample.values.items()
        },
        "absent": {key: why for key, why in sample.readings.absent.items() if key not in sample.values},
        "tenants": sample.tenants,
    }
