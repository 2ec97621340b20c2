"""The access log: a thread of its own writes what the event loop only appends, so no disk ever holds up a request.

When records come faster than the disk takes them, or it is full, they are dropped and counted; the server goes on.
"""

from __future__ import annotations

import os
import stat
import sys
import threading
from collections import deque
from pathlib import Path
from typing import Final

from npuops.errors import StorageError
from npuops.telemetry.access_record import AccessRecord, line_of

PENDING: Final = 65_536
"""Records that wait at most: about a second of the fastest traffic, some 30 MB."""
REST_S: Final = 0.1
"""The writer gathers for so long, so that a busy server's lines are written hundreds at a time."""
CLOSE_S: Final = 5.0
"""A disk that hangs holds up the server's end for so long."""
STANDARD_OUTPUT: Final = "-"


class AccessLog:
    """Lines of JSON in a file, or on standard output.

    The file is opened anew when it was renamed or deleted (as logrotate does), and by `reopen` (for SIGHUP).

    Args:
        path: of the file, or `-`; its folder must exist.
        rest_s: how long lines are gathered before they are written.

    Raises:
        StorageError: the file cannot be opened.
    """

    def __init__(self, path: str, *, rest_s: float = REST_S) -> None:
        self._path = path
        self._rest_s = rest_s
        self._records: deque[AccessRecord] = deque()
        self._overflown = 0
        self._unwritten = 0
        self._torn = False
        self._ending = False
        self._reopening = False
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self._waiting: deque[threading.Event] = deque()
        try:
            self._file = self._open()
        except OSError as error:
            raise StorageError(
                f"the access log {path} cannot be opened: {error.strerror}", advice="make its folder, or its permission"
            ) from error
        self._thread = threading.Thread(target=self._work, name="access-log", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Records that were not written, since the start."""
        return self._overflown + self._unwritten

    def log(self, record: AccessRecord) -> None:
        """Take a record; never waits."""
        if len(self._records) >= PENDING:
            self._overflown += 1
            return
        self._records.append(record)
        if not self._wake.is_set():
            self._wake.set()

    def reopen(self) -> None:
        """Close the file and open its path again, after what was logged before; never waits."""
        self._reopening = True
        self._call()

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Wait until what was logged before is written, or dropped; False where that takes longer."""
        done = threading.Event()
        self._waiting.append(done)
        self._call()
        return done.wait(timeout_s)

    def close(self) -> None:
        """Write the rest, for `CLOSE_S` at most, and end the thread. A second call does nothing."""
        self._ending = True
        self._call()
        self._thread.join(CLOSE_S)

    def _call(self) -> None:
        self._hurry.set()
        self._wake.set()

    def _work(self) -> None:
        ending = False
        while not ending:
            self._wake.wait()
            self._hurry.wait(self._rest_s)
            # Cleared before anything is looked at: whoever asks after this line gets another round.
            self._wake.clear()
            self._hurry.clear()
            ending, reopening = self._ending, self._reopening
            waiting = [self._waiting.popleft() for _ in range(len(self._waiting))]
            self._write_pending()
            if reopening:
                self._reopening = False
                self._open_anew()
            for done in waiting:
                done.set()
        self._close()

    def _write_pending(self) -> None:
        if self._was_moved():
            self._open_anew()
        while self._records:
            taken = [self._records.popleft() for _ in range(min(len(self._records), 1024))]
            self._write([line_of(record) for record in taken])

    def _write(self, lines: list[bytes]) -> None:
        """All lines, or as many as the disk takes; a line that was cut is ended before the next one begins."""
        data = memoryview((b"\n" if self._torn else b"") + b"".join(lines))
        written = 0
        try:
            while written < len(data):
                written += os.write(self._file, data[written:])
        except OSError:
            whole = bytes(data[:written]).count(b"\n") - (1 if self._torn and written else 0)
            self._unwritten += len(lines) - max(whole, 0)
            self._torn = self._torn if not written else bytes(data[written - 1 : written]) != b"\n"
            return
        self._torn = False

    def _open(self) -> int:
        if self._path == STANDARD_OUTPUT:
            return os.dup(sys.stdout.fileno())
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def _open_anew(self) -> None:
        """Where the path cannot be opened, the old file goes on being written: nothing is lost."""
        try:
            opened = self._open()
        except OSError:
            return
        self._close()
        self._file, self._torn = opened, False

    def _was_moved(self) -> bool:
        if self._path == STANDARD_OUTPUT:
            return False
        ours = os.fstat(self._file)
        if not stat.S_ISREG(ours.st_mode):
            return False
        try:
            there = Path(self._path).stat()
        except OSError:
            return True
        return (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino)

    def _close(self) -> None:
        os.close(self._file)
