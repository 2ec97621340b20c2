"""What `npuops hostsched` tells while it runs: views for a terminal, lines for a pipe, JSON lines for programs."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from types import TracebackType
from typing import IO, Final, Self, cast

from rich.live import Live
from rich.table import Table
from rich.text import Text

from npuops.cli.json_line import encoded
from npuops.cli.lossy_output import LossyOutput
from npuops.cli.screen import Screen
from npuops.events import Event, Warned
from npuops.hostsched.agent_facts import (
    AgentStarted,
    LeftAlone,
    Mode,
    NetworkPlaced,
    NotPutBack,
    OwnPlaceChanged,
    PeriodChanged,
    Stepped,
)
from npuops.hostsched.decision_words import LevelChange, level_changes, names_of, task_words
from npuops.hostsched.live_view import COLUMNS, LiveView, View
from npuops.hostsched.plan import Plan
from npuops.hostsched.recently import Recently
from npuops.hostsched.run_summary import Summary

SCHEMA: Final = "npuops.hostsched.event/1"


def table_of(view: View) -> Table:
    """One view, for a terminal."""
    table = Table(title=Text(view.headline()), title_justify="left", box=None, pad_edge=False)
    for name in COLUMNS:
        table.add_column(name, justify="right" if name in {"task", "run", "wait", "switches/s"} else "left")
    for row in view.rows:
        table.add_row(*(Text(cell) for cell in row.cells()), style="yellow" if row.level != "normal" else None)
    return table


class Narrator:
    """An observer that tells people, or with `as_json` programs. Entered from before the agent runs to its last word.

    It never waits for whoever reads: the agent would stop with it, and all that it set would be put back.
    """

    def __init__(self, mode: Mode, *, as_json: bool, interval_us: int, quiet: bool = False) -> None:
        """`quiet`: only what is wrong, on standard error, for the terminal is somebody else's."""
        self._as_json = as_json
        self._quiet = quiet
        self._output = LossyOutput(sys.stderr if quiet else sys.stdout, self._dropped)
        self._screen = Screen(stderr=quiet, file=cast("IO[str]", self._output))
        self._interval_us = interval_us
        self._views = mode is Mode.OBSERVE
        self._live: Live | None = None
        if self._views and not as_json and not quiet and self._screen.is_terminal:
            self._live = Live(console=self._screen, auto_refresh=False, transient=True)
        self._view = LiveView()
        self._next_us: int | None = None
        self._plan = Plan()
        self._told: Recently[tuple[str, str, object]] = Recently()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the reader a moment for what it has not read yet."""
        self._output.__exit__(kind, error, trace)

    @property
    def table(self) -> AbstractContextManager[object]:
        """The screen is taken while this is entered, if there is a table to show."""
        return nullcontext() if self._live is None else self._live

    def __call__(self, event: Event) -> None:
        """Tell one fact, if it is worth telling, and what waits for the reader."""
        self._output.go_on()
        match event:
            case AgentStarted():
                self._started(event)
            case NetworkPlaced(place=place, why=why):
                self._say("placed", f"the network runs on {place}: {why}", {"place": place, "why": why})
            case Stepped():
                if self._views:
                    self._show_view(event)
                else:
                    self._tell_decision(event)
            case PeriodChanged(change=change):
                after, before = change.after_us / 1000, change.before_us / 1000
                words = f"looking every {after:g} ms instead of {before:g}: {change.why}"
                periods = {"before_us": change.before_us, "after_us": change.after_us}
                self._say("period", words, periods, loud=change.trouble)
            case OwnPlaceChanged(protection=own, why=why):
                self._say("own", f"the agent itself: {own}: {why}", {"own": own, "why": why})
            case LeftAlone(count=count, why=why):
                self._say("left alone", f"left alone: {count}: {why}", {"count": count, "why": why})
            case NotPutBack(denials=denials):
                for denial in denials:
                    found = {"what": denial.what, "rule": denial.rule, "found": denial.found, "advice": denial.advice}
                    self._say("stuck", f"not put back: {denial}", found, loud=True)
            case Warned(message=message, advice=advice):
                words = f"warning: {message}" + (f" ({advice})" if advice else "")
                self._say("warning", words, {"message": message, "advice": advice}, loud=True)
            case _:
                pass

    def plain(self, text: str) -> None:
        """Several lines as they are, of the end."""
        self._output.last_words()
        if text:
            self._print(text)

    def ended(self, summary: Summary) -> None:
        """The last word."""
        self._output.last_words()
        self._say("ended", "\n".join(summary.lines()), {"summary": summary}, loud=True)

    def _started(self, event: AgentStarted) -> None:
        policy = f" by {event.policy}" if event.policy else ""
        own = f"; the agent itself: {event.protection}" if event.protection else ""
        detail = {"mode": event.mode, "policy": event.policy, "period_us": event.period_us, "own": event.protection}
        self._say("started", f"{event.mode}{policy}, every {event.period_us / 1000:g} ms{own}", detail)

    def _show_view(self, event: Stepped) -> None:
        frame = event.state.frame
        if self._next_us is None:
            self._view.view(frame, event.plan)  # shares need something to compare with
            self._next_us = frame.at_us + self._interval_us
            return
        if frame.at_us < self._next_us:
            return
        self._next_us = max(self._next_us + self._interval_us, frame.at_us)
        view = self._view.view(frame, event.plan)
        if self._as_json:
            self._json("view", {"view": view})
        elif self._live is not None:
            if not self._output.is_behind:  # half a table would stay on the screen
                self._live.update(table_of(view), refresh=True)
        else:
            self._print(view.headline())
            for row in view.rows:
                self._print("  " + "  ".join(row.cells()))

    def _tell_decision(self, event: Stepped) -> None:
        frame, refusals = event.state.frame, event.checked.refusals if event.checked is not None else ()
        if self._plan.levels != event.plan.levels:
            for change in level_changes(self._plan, event.plan, frame):
                self._say("decision", str(change), _plain(change))
        self._plan = event.plan
        names = names_of(frame) if refusals else {}
        for refusal in refusals:
            whom = task_words(refusal.task, names)
            detail = {"rule": refusal.rule, "task": refusal.task, "why": refusal.why}
            self._once("refused", f"{whom}: {refusal.rule}: {refusal.why}", detail, (refusal.rule, refusal.task))
        applied = event.applied
        if applied is None:
            return
        for done in applied.changed:
            self._say("changed", str(done), {"what": done.what, "before": str(done.before), "after": str(done.after)})
        for denial in (*applied.denied, *applied.lost):
            found = {"what": denial.what, "rule": denial.rule, "found": denial.found, "advice": denial.advice}
            self._once("denied", str(denial), found, (denial.rule, denial.what))
        if applied.revoked:
            self._say("revoked", f"everything was put back: {applied.revoked}", {"why": applied.revoked}, loud=True)

    def _once(self, kind: str, words: str, detail: Mapping[str, object], about: tuple[str, object]) -> None:
        """What comes again at each step is told once."""
        if self._told.add((kind, *about)):
            self._say(kind, f"{kind}: {words}", detail)

    def _say(self, kind: str, words: str, detail: Mapping[str, object], *, loud: bool = False) -> None:
        if self._quiet and not loud:
            return
        if self._as_json:
            self._json(kind, detail)
        else:
            for line in words.splitlines():
                self._print(self._dated(line))

    def _dated(self, line: str) -> str:
        return f"npuops: {line}" if self._quiet else f"{datetime.now(UTC).astimezone():%H:%M:%S}  {line}"

    def _print(self, line: str) -> None:
        self._screen.print(Text(line), soft_wrap=True)

    def _json(self, kind: str, detail: Mapping[str, object]) -> None:
        self._output.write_line(_json_line(kind, detail))

    def _dropped(self, count: int) -> bytes:
        message, advice = f"{count} lines were dropped: whoever reads does not keep up", "read faster, or into a file"
        if self._as_json:
            return _json_line("warning", {"message": message, "advice": advice})
        return self._dated(f"warning: {message} ({advice})\n").encode(self._output.encoding)


def _json_line(kind: str, detail: Mapping[str, object]) -> bytes:
    return encoded({"schema": SCHEMA, "time": datetime.now(UTC), "event": kind, **detail}) + b"\n"


def _plain(change: LevelChange) -> dict[str, object]:
    return {
        "task": change.task,
        "command": change.command,
        "before": change.before,
        "after": change.after,
        "setting": change.setting,
        "why": change.why,
        "void": change.void,
    }
