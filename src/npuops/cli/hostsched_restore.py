"""`npuops hostsched restore`: put back what killed agents left."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from npuops.cli.hostsched_flags import LeasesFlag
from npuops.cli.show import EXIT_NO, JsonFlag, console, print_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from npuops.hostsched.restore import Leftover

SCHEMA = "npuops.hostsched.restore/1"


def restore(leases: LeasesFlag = None, as_json: JsonFlag = False) -> None:
    """Put back what this user's agents left that were killed together with their reapers. Exits 1 if something resists.

    Every agent's start does the same; agents that live are left alone.
    """
    from npuops.hostsched.restore import restore_leftovers  # noqa: PLC0415 - help must not pay for it

    found = restore_leftovers(leases)
    if as_json:
        print_json({"schema": SCHEMA, "leftovers": [_plain(leftover) for leftover in found]})
    else:
        for line in _lines(found, leases):
            console().print(line, soft_wrap=True)
    if any(leftover.failed or leftover.problem for leftover in found):
        raise typer.Exit(EXIT_NO)


def _lines(found: tuple[Leftover, ...], leases: Path | None) -> Iterator[str]:
    if not found:
        yield "nothing was left" + (f": there is no folder {leases}" if leases and not leases.exists() else "")
    for leftover in found:
        if leftover.problem:
            yield f"not restored: {leftover.problem}"
            continue
        agent = leftover.agent.tid if leftover.agent is not None else "?"
        if leftover.alive:
            yield f"agent {agent} is alive: nothing was done (end it with SIGTERM, and it puts everything back)"
            continue
        yield f"agent {agent} was dead: {len(leftover.back)} tasks and groups have again what they had"
        for each in leftover.theirs:
            yield f"  left as it is: {each}"
        for each in leftover.failed:
            yield f"  refused: {each}" + (f" ({each.advice})" if each.advice else "")


def _plain(leftover: Leftover) -> dict[str, object]:
    return {
        "path": str(leftover.path),
        "agent": leftover.agent,
        "alive": leftover.alive,
        "problem": leftover.problem,
        "back": leftover.back,
        "theirs": leftover.theirs,
        "failed": leftover.failed,
    }
