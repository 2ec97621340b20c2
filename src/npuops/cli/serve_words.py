"""What `npuops serve` says while it runs: where it listens, what loads, what went wrong."""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from npuops.cli.ending import SERVE_SCHEMA
from npuops.errors import UsageError
from npuops.events import Event, Warned
from npuops.report.printable import printable
from npuops.runtime.facts import BatchRan, ColdCause, DeviceChanged, WorkerEnded, WorkerStarted
from npuops.runtime.step_facts import StepProcessEnded
from npuops.runtime.version_facts import VersionChanged, VersionStandsIn
from npuops.server.serve_options import Ports, ServeOptions

_VERSION_WORDS: Final = {
    "load": "loading",
    "loaded": "ready",
    "failed": "does not load",
    "cancelled": "not loaded after all",
    "rest": "cold: the next request loads it",
    "unload": "unloading",
    "closed": "unloaded",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A line for a program; see docs/serving.md."""

    schema: str
    time: datetime
    event: str
    detail: object


class Narrator:
    """An observer that tells people on standard error, or programs on standard output."""

    def __init__(self, print_line: Callable[[object], None] | None) -> None:
        """`print_line`: for programs; None tells people."""
        self._print_line = print_line
        self._silent = False

    def __call__(self, event: Event) -> None:
        """Tell what matters to whoever started the server; requests do not."""
        if type(event) is BatchRan:
            return  # thousands a second: they must not be compared with every kind that has words
        words = _words(event)
        if words:
            self._say(type(event).__name__, event, words)

    def listening(self, ports: Ports, options: ServeOptions) -> None:
        """The ports are open."""
        scheme = "https" if options.tls else "http"
        name = f"[{options.host}]" if ":" in options.host else options.host
        where = f"{scheme}://{name}:{ports.http}"
        grpc = f", gRPC at {name}:{ports.grpc}" if ports.grpc is not None else ""
        self._say("Listening", ports, f"listening at {where}{grpc}; a page to look at: {where}/")
        if not _is_local(options.host) and not _has_keys(options):
            self(
                Warned(
                    step="serve",
                    message=f"whoever reaches {options.host} may use, load and unload the models",
                    advice="api_key_sha256 in serve.toml, or a network that only clients are on",
                )
            )

    def empty(self, source: Path) -> None:
        """There is no model yet."""
        words = f"there is no model in {source} yet; npuops build MODEL --target TARGET -o {source}/NAME/1 makes one"
        self._say("Empty", {"source": str(source)}, words)

    def configured(self, fixed: Sequence[str]) -> None:
        """The options were read again; those that are `fixed` differ, and hold after a restart."""
        words = f"options read again; only a restart brings: {', '.join(fixed)}" if fixed else "options read again"
        self._say("Configured", {"restart": list(fixed)}, words)

    def ending(self, drain_s: float) -> None:
        """Asked to end."""
        words = f"ending: requests under way have {drain_s:g} s; a second signal ends at once"
        self._say("Ending", {"drain_s": drain_s}, words)

    def ended(self) -> None:
        """All is answered and closed."""
        self._say("Ended", {}, "ended")

    def _say(self, event: str, detail: object, words: str) -> None:
        if self._silent:
            return
        try:
            if self._print_line is not None:
                self._print_said(self._print_line, event, detail, words)
            else:
                sys.stderr.write(printable(words) + "\n")
                sys.stderr.flush()
        except OSError:
            self._silent = True  # nobody reads it any more; that is no reason not to serve

    def _print_said(self, print_line: Callable[[object], None], event: str, detail: object, words: str) -> None:
        said = Said(schema=SERVE_SCHEMA, time=datetime.now(UTC), event=event, detail=detail)
        try:
            print_line(said)
        except UsageError:  # a path that is no text, which JSON cannot hold
            print_line(replace(said, detail={"message": printable(words)}))


def _words(event: Event) -> str:
    if isinstance(event, Warned):
        return f"warning: {event.message}" + (f"; {event.advice}" if event.advice else "")
    if isinstance(event, WorkerStarted) and event.cause in {ColdCause.CRASH, ColdCause.HEALTH}:
        return f"{event.model} version {event.version} is back on {event.device} after {event.seconds:.2f} s"
    if isinstance(event, WorkerEnded) and not event.wanted:
        again = f"; its {event.replayed} runs go again" if event.replayed else ""
        return f"{event.model} version {event.version} on {event.device}: {event.why}{again}"
    if isinstance(event, VersionChanged):
        took = f" after {event.seconds:.2f} s" if event.seconds is not None else ""
        waited = f", {event.waiting} requests waited for it" if event.waiting else ""
        why = f": {event.reason}" if event.reason else ""
        what = _VERSION_WORDS.get(event.event, event.event)
        return f"{event.model} version {event.version}: {what}{took}{waited}{why}"
    if isinstance(event, VersionStandsIn):
        failed = ", ".join(event.instead_of)
        return f"{event.model} version {event.version} is served in place of {failed}, until that is mended"
    if isinstance(event, StepProcessEnded):
        return f"process {event.pid}, which prepared pictures, has ended ({event.why}) and is replaced"
    if isinstance(event, DeviceChanged) and event.state == "sick":
        return f"{event.model} version {event.version}: {event.device} is sick: {event.why}"
    return ""


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _has_keys(options: ServeOptions) -> bool:
    return bool(options.api_key_env) or any(tenant.api_key_sha256 for tenant in options.tenant.values())
