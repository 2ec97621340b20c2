"""What `npuops serve` says while it runs: where it listens, what loads, what went wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

from npuops.events import Event, Warned
from npuops.report.printable import printable
from npuops.runtime.facts import ColdCause, DeviceChanged, WorkerEnded, WorkerStarted
from npuops.runtime.version_facts import VersionChanged
from npuops.server.serve_options import Ports, ServeOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A line for a program; see docs/serving.md."""

    event: str
    detail: Event | Ports


class Narrator:
    """An observer that tells people, or with `--json` programs."""

    def __init__(self, print_line: Callable[[object], None] | None) -> None:
        """`print_line`: for programs; None tells people on standard error."""
        self._print_line = print_line

    def __call__(self, event: Event) -> None:
        """Tell what matters to whoever started the server; requests do not."""
        words = _words(event)
        if words:
            self._say(type(event).__name__, event, words)

    def listening(self, ports: Ports, options: ServeOptions) -> None:
        """The ports are open."""
        scheme = "https" if options.tls else "http"
        where = f"{scheme}://{options.host}:{ports.http}"
        grpc = f", gRPC at {options.host}:{ports.grpc}" if ports.grpc is not None else ""
        self._say("Listening", ports, f"listening at {where}{grpc}; a page to look at: {where}/")

    def ending(self, drain_s: float) -> None:
        """Asked to end."""
        if self._print_line is None:
            sys.stderr.write(f"ending: requests under way have {drain_s:g} s; no new ones are taken\n")

    def _say(self, event: str, detail: Event | Ports, words: str) -> None:
        if self._print_line is not None:
            self._print_line(Said(event=event, detail=detail))
        else:
            sys.stderr.write(printable(words) + "\n")
            sys.stderr.flush()


def _words(event: Event) -> str:
    if isinstance(event, Warned):
        return f"warning: {event.message}" + (f"; {event.advice}" if event.advice else "")
    if isinstance(event, WorkerStarted) and event.cause is ColdCause.CRASH:
        return f"{event.model} version {event.version} is back on {event.device} after {event.seconds:.2f} s"
    if isinstance(event, WorkerEnded) and not event.wanted:
        again = f"; its {event.replayed} runs go again" if event.replayed else ""
        return f"{event.model} version {event.version} on {event.device}: {event.why}{again}"
    if isinstance(event, VersionChanged):
        took = f" in {event.seconds:.2f} s" if event.seconds is not None else ""
        why = f": {event.reason}" if event.reason else ""
        return f"{event.model} version {event.version}: {event.event}{took}{why}"
    if isinstance(event, DeviceChanged) and event.state == "sick":
        return f"{event.model} version {event.version}: {event.device} is sick: {event.why}"
    return ""
