"""`npuops targets`: the matrix of what is here, what it can do, and why not."""

from __future__ import annotations

from typing import Annotated

import typer

from npuops.cli.show import JsonFlag, console, print_hanging, print_json
from npuops.errors import ToolchainError
from npuops.targets.protocol import Family, Probe, Traits
from npuops.targets.registry import families

SCHEMA = "npuops.targets/1"


def command(
    variants: Annotated[bool, typer.Option("--variants", help="Also list every variant (SoC, configuration).")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Probe every family; nothing of a vendor is imported."""
    found = families()
    rows = [(family, *_look(family)) for family in found.values() if isinstance(family, Family)]
    broken = {name: error for name, error in found.items() if isinstance(error, ToolchainError)}
    if as_json:
        plain = {name: {"message": error.message, "advice": error.advice} for name, error in broken.items()}
        print_json({"schema": SCHEMA, "targets": [_plain(*row) for row in rows], "broken": plain})
        return
    _table(rows)
    for error in broken.values():
        print_hanging(console(), "broken: ", f"{error.message}; {error.advice}", style="red")
    if variants:
        for family, _, _ in rows:
            if family.variants:
                console().print()
                print_hanging(console(), f"{family.name}: ", " ".join(family.variants))


def _look(family: Family) -> tuple[Probe, Traits]:
    target = family.make(family.variants[0] if family.variants else None)
    return target.probe(), target.traits


def _plain(family: Family, probe: Probe, traits: Traits) -> dict[str, object]:
    return {
        "family": family.name,
        "summary": family.summary,
        "example": probe.target,
        "variants": family.variants,
        "available": probe.available,
        "why_not": probe.why_not,
        "install": probe.install,
        "toolchain": probe.toolchain,
        "can_run": probe.can_run,
        "run_basis": traits.run_basis,
        "precisions": traits.precisions,
        "vendor_options": traits.vendor_options,
        "licence_note": traits.licence_note,
    }


def _table(rows: list[tuple[Family, Probe, Traits]]) -> None:
    from rich.table import Table  # noqa: PLC0415 - help must not pay for it
    from rich.text import Text  # noqa: PLC0415 - as above

    table = Table(box=None, pad_edge=False)
    for heading in ("target", "here", "precisions", "runs here"):
        table.add_column(heading, overflow="fold")
    for family, probe, traits in rows:
        runs = f"{probe.can_run} ({traits.run_basis})" if probe.can_run and traits.run_basis else probe.can_run
        here = Text("yes", style="green") if probe.available else Text("no", style="red")
        table.add_row(_name(family), here, " ".join(traits.precisions), runs or "–")
    screen = console()
    screen.print(table)
    screen.print("\ntoolchain, or what to do")
    width = max(len(_name(family)) for family, _, _ in rows)
    for family, probe, _ in rows:
        versions = ", ".join(f"{name} {version}" for name, version in probe.toolchain.items())
        words = versions if probe.available else f"{probe.why_not}: {probe.install}"
        print_hanging(screen, f"{_name(family):<{width}} ", words)


def _name(family: Family) -> str:
    return f"{family.name}:…" if family.variants else family.name
