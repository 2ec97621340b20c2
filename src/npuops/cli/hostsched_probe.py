"""`npuops hostsched probe`: what may be seen and set here, and why not the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from npuops.cli.show import JsonFlag, console, print_json

if TYPE_CHECKING:
    from rich.table import Table

    from npuops.hostsched.capabilities import Capabilities

SCHEMA = "npuops.hostsched.probe/1"


def probe(as_json: JsonFlag = False) -> None:
    """Try every knob on a child that ends afterwards, and tell what this user may do here."""
    from npuops.hostsched.capabilities import probe as look  # noqa: PLC0415 - help must not pay for it

    found = look()
    if as_json:
        print_json({"schema": SCHEMA, **found.document()})
        return
    console().print(_head(found), soft_wrap=True)
    console().print(_table(found))


def _head(found: Capabilities) -> str:
    words = [f"Linux {found.kernel} on {found.machine}", f"{found.cpus} CPUs"]
    if found.hz is not None:
        words.append(f"{found.hz} Hz")
    if found.base_slice_us is not None:
        words.append(f"base slice {found.base_slice_us / 1000:g} ms")
    if found.lockdown:
        words.append(f"lockdown {found.lockdown}")
    words.append("privileged" if found.privileged else "not privileged: only what can be taken back is done")
    return ", ".join(words)


def _table(found: Capabilities) -> Table:
    from rich.table import Table  # noqa: PLC0415 - JSON must not pay for it
    from rich.text import Text  # noqa: PLC0415 - as above

    table = Table(box=None, pad_edge=False)
    for name in ("", "usable", "found"):
        table.add_column(name, overflow="fold")
    for each in found.list:
        usable = Text("yes", style="green") if each.usable else Text("no", style="yellow")
        table.add_row(Text(each.name), usable, Text(each.found))
    return table
