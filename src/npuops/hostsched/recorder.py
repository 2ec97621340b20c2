"""Keeps what the agent did in a trace file, as an observer."""

from __future__ import annotations

from npuops.errors import StorageError
from npuops.events import Event, Observer, Warned
from npuops.hostsched.agent_facts import Stepped
from npuops.hostsched.trace_file import TraceWriter
from npuops.hostsched.trace_wire import Entry


class Recorder:
    """Writes each step, until the disk is full: then it says so, once, and the agent goes on without it.

    Others rely on the agent by then; what was written can be read up to its last whole entry.
    """

    def __init__(self, writer: TraceWriter, tell: Observer) -> None:
        """`tell` learns of its end; the writer stays the caller's to close."""
        self._writer: TraceWriter | None = writer
        self._tell = tell

    def __call__(self, event: Event) -> None:
        """Keep a step."""
        if self._writer is None or not isinstance(event, Stepped):
            return
        try:
            self._writer.write(entry_of(event))
        except StorageError as error:
            self._writer = None
            self._tell(Warned(step="record", message=error.message, advice=error.advice))


def entry_of(event: Stepped) -> Entry:
    """A step as a trace keeps it: in `observe` there is no plan."""
    decided = event.checked is not None
    return Entry(
        frame=event.state.frame,
        proposed=event.proposed if decided else None,
        checked=event.checked,
        applied=event.applied,
        late_us=event.late_us,
    )
