"""`npuops cache`: what the compile cache holds, and making room."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from npuops.cli.show import JsonFlag, console, print_json
from npuops.errors import UsageError
from npuops.units import format_bytes

if TYPE_CHECKING:
    from npuops.artifacts.entry import Entry

SCHEMA = "npuops.cache/1"


def command(
    prune: Annotated[
        str | None, typer.Option("--prune", help="Remove what was used longest ago until this is left, e.g. 2GiB.")
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Remove everything that no build is using.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """List the entries, last used first; with --prune or --clear remove some and list the rest."""
    from npuops.artifacts.cache_limit import cache_limit, parse_bytes  # noqa: PLC0415 - help must not pay for it
    from npuops.artifacts.store import DirectoryStore  # noqa: PLC0415 - as above

    if clear and prune is not None:
        raise UsageError("--clear and --prune contradict each other", advice="--clear is --prune 0")
    limit, store = cache_limit(), DirectoryStore()
    keep = 0 if clear else None if prune is None else parse_bytes(prune)
    removed = () if keep is None else store.prune(keep)
    entries = store.list()
    if as_json:
        print_json(
            {
                "schema": SCHEMA,
                "root": str(store.root),
                "bytes": sum(entry.bytes for entry in entries),
                "limit_bytes": limit,
                "entries": [_plain(entry) for entry in entries],
                "removed": [_plain(entry) for entry in removed],
            }
        )
        return
    _show(entries)
    screen = console()
    total = format_bytes(sum(entry.bytes for entry in entries))
    words = f"{len(entries)} entries, {total} of {format_bytes(limit)}, in {store.root}"
    screen.print(words, soft_wrap=True)
    if keep is not None:
        screen.print(f"removed {len(removed)} entries, {format_bytes(sum(entry.bytes for entry in removed))}")


def _plain(entry: Entry) -> dict[str, object]:
    return {
        "key": entry.key,
        "digest": entry.digest,
        "target": entry.target,
        "model": entry.model,
        "bytes": entry.bytes,
        "used": _used(entry),
    }


def _used(entry: Entry) -> str:
    moment = datetime.fromtimestamp(entry.used_ns // 1_000_000_000, UTC)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def _show(entries: tuple[Entry, ...]) -> None:
    from rich.table import Table  # noqa: PLC0415 - JSON must not pay for it

    if not entries:
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("key", no_wrap=True)
    for heading in ("target", "model"):
        table.add_column(heading, overflow="fold")
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("last use", no_wrap=True)
    for entry in entries:
        kind, _, digest = entry.key.partition("-")
        key = f"{kind} {digest[:8]}" if entry.key else "damaged"
        table.add_row(key, entry.target, entry.model, format_bytes(entry.bytes), _used(entry))
    console().print(table)
