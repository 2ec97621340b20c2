"""`npuops hostsched replay`: why each decision of a trace was taken."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from npuops.cli.hostsched_flags import PlotFlag
from npuops.cli.show import JsonFlag, console

if TYPE_CHECKING:
    from npuops.hostsched.explanation import Decision
    from npuops.hostsched.frame import Task
    from npuops.hostsched.trace_file import Header

SCHEMA = "npuops.hostsched.decision/1"


def replay(
    trace: Annotated[Path, typer.Argument(help="What --record wrote.")],
    tasks: Annotated[
        list[str] | None, typer.Option("--task", help="Only these: a thread's number, or a pattern. Can be repeated.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Also the looks in which nothing happened.")] = False,
    plot: PlotFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Tell decision by decision what was seen, proposed, refused by which rule, and done. Exits 1 if it is damaged."""
    from npuops.cli.hostsched_plot import refuse_plot, write_plot  # noqa: PLC0415 - help must not pay for it
    from npuops.cli.json_line import print_json_line  # noqa: PLC0415 - as above
    from npuops.hostsched.decision_words import names_of  # noqa: PLC0415 - as above
    from npuops.hostsched.explanation import decision_lines, decisions  # noqa: PLC0415 - as above
    from npuops.hostsched.plan import Plan  # noqa: PLC0415 - as above
    from npuops.hostsched.timeline import text_timeline, timeline  # noqa: PLC0415 - as above
    from npuops.hostsched.trace_file import read_trace  # noqa: PLC0415 - as above

    if plot is not None:
        refuse_plot(plot)
    found = read_trace(trace)
    names = {task: name for entry in found.entries for task, name in names_of(entry.frame).items()}
    if as_json:
        print_json_line({"schema": SCHEMA, "event": "header", "header": found.header})
    else:
        console().print(_head(found.header, len(found.entries)), soft_wrap=True)
    for decision in decisions(found.entries, _wanted(tasks), every=every):
        if as_json:
            print_json_line({"schema": SCHEMA, "event": "decision", **_plain(decision)})
        else:
            for words in decision_lines(decision, names):
                console().print(words, soft_wrap=True)
    looks = [(entry.frame, entry.checked.plan if entry.checked else Plan()) for entry in found.entries]
    line = timeline(looks, wanted=_wanted(tasks))
    if plot is not None:
        write_plot(plot, line)
    if as_json:
        print_json_line({"schema": SCHEMA, "event": "end", "entries": len(found.entries), "damage": found.damage})
    else:
        console().print(text_timeline(line), soft_wrap=True)
    if found.damage:
        if not as_json:
            console().print(f"damaged: {found.damage}", soft_wrap=True)
        raise typer.Exit(1)


def _wanted(tasks: list[str] | None) -> Callable[[Task], bool] | None:
    if not tasks:
        return None
    return lambda task: any(word == str(task.id.tid) or fnmatchcase(task.command, word) for word in tasks)


def _head(header: Header, entries: int) -> str:
    by = f" by {header.policy}" if header.policy else ""
    return (
        f"{header.mode}{by}, {entries} looks, {header.period_us / 1000:g} ms apart or more; "
        f"Linux {header.kernel}, {header.cpus} CPUs, npuops {header.version}"
    )


def _plain(decision: Decision) -> dict[str, object]:
    return {key: getattr(decision, key) for key in type(decision).__slots__}
