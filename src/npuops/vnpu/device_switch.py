"""Switch virtual devices on and off: start a daemon and see that it is ready, end it and see that it is gone."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import BinaryIO, Final

import msgspec

from npuops.artifacts.disk import storage_errors
from npuops.errors import DeviceError, DeviceLostError, UsageError, nearest
from npuops.vnpu.daemon import Order, Report
from npuops.vnpu.device_folder import DeviceFolder, Record, all_folders, device_folder
from npuops.vnpu.wire import error_of

START_LIMIT_S: Final = 60.0
END_LIMIT_S: Final = 10.0
_LAST_WORDS: Final = 2000


def up(order: Order, *, timeout_s: float = START_LIMIT_S) -> Record:
    """Start a device that lives on by itself, and return when it takes clients.

    Whoever is interrupted here (Ctrl-C, a kill) leaves no device behind: one that nobody waits for ends.

    Raises:
        UsageError: a device of that name is up.
        OptionError: the name, or the fault plan.
        DeviceError: the daemon did not come up; its last words are in the message.
        StorageError: the devices' home cannot be written.
    """
    record, lifeline = _start(order, timeout_s)
    lifeline.close()
    return record


@contextmanager
def up_private(order: Order, *, timeout_s: float = START_LIMIT_S) -> Iterator[Record]:
    """A device for a block; it goes down with the block, or with this process, however that ends.

    Raises:
        NpuopsError: as `up`.
    """
    record, lifeline = _start(replace(order, private=True), timeout_s)
    with lifeline:
        try:
            yield record
        finally:
            lifeline.shutdown(socket.SHUT_WR)
            lifeline.settimeout(END_LIMIT_S)
            with suppress(TimeoutError):  # then it ends when nobody waits for it
                lifeline.recv(1)  # the end of the stream: its process is through


def down(name: str, *, timeout_s: float = END_LIMIT_S) -> bool:
    """End a device, by force if it does not listen; False when it was dead already and was only swept up.

    Raises:
        UsageError: there is no such device, alive or dead.
        DeviceError: it does not end.
    """
    folder = device_folder(name)
    if not folder.root.is_dir():
        raise UsageError(f"there is no device {name!r}", advice=nearest(name, _names()) if _names() else "none is up")
    holder = folder.holder()
    if holder is None:
        folder.sweep()
        return False
    _end(folder, holder, timeout_s)
    return True


def _names() -> list[str]:
    return [folder.name for folder in all_folders()]


def _start(order: Order, timeout_s: float) -> tuple[Record, socket.socket]:
    folder = device_folder(order.name)
    ours, theirs = socket.socketpair()
    try:
        with storage_errors("write", folder.log):
            folder.log.parent.mkdir(mode=0o700, exist_ok=True)
            log = folder.log.open("ab")
        said_before = folder.log.stat().st_size
        with log, theirs:
            _launch(order, theirs, log)
        _await_report(ours, folder, said_before, timeout_s)
        return _record(folder), ours
    except BaseException:
        ours.close()
        theirs.close()
        raise


def _record(folder: DeviceFolder) -> Record:
    record = folder.record()
    if record is None:
        raise DeviceLostError(f"{folder.name} went down at once", advice=f"its log is {folder.log}")
    return record


def _launch(order: Order, ready: socket.socket, log: BinaryIO) -> None:
    # -P: whatever lies in the folder that we are called in must not be taken for one of our modules.
    command = [sys.executable, "-P", "-m", "npuops.vnpu.daemon", str(ready.fileno())]
    try:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=[ready.fileno()],
            start_new_session=True,
        )
    except OSError as error:
        raise DeviceError(f"cannot start the process of {order.name}: {error.strerror}") from error
    process.communicate(msgspec.json.encode(order))


def _await_report(ready: socket.socket, folder: DeviceFolder, said_before: int, timeout_s: float) -> None:
    ready.settimeout(timeout_s)
    line = b""
    try:
        while not line.endswith(b"\n"):
            piece = ready.recv(65536)
            if not piece:
                raise DeviceError(f"the daemon of {folder.name} died at its start{_last_words(folder, said_before)}")
            line += piece
    except TimeoutError:
        raise DeviceError(
            f"{folder.name} did not come up within {timeout_s:g} s{_last_words(folder, said_before)}",
            advice=f"it ends by itself; look into {folder.log}",
        ) from None
    report = msgspec.json.decode(line, type=Report)
    if report.error:
        raise error_of(report.error, report.message, report.advice)


def _last_words(folder: DeviceFolder, said_before: int) -> str:
    with folder.log.open("rb") as file:
        file.seek(said_before)
        words = file.read().decode("utf-8", "replace").strip()
    return f"; it said:\n{words[-_LAST_WORDS:]}" if words else "; it said nothing"


def _end(folder: DeviceFolder, holder: int, timeout_s: float) -> None:
    try:
        process = os.pidfd_open(holder)
    except ProcessLookupError:
        folder.sweep()
        return
    try:
        # Only now is the number sure to mean the process that holds the lock.
        if folder.holder() == holder and not _ended(process, signal.SIGTERM, timeout_s):
            _ended(process, signal.SIGKILL, timeout_s)
    finally:
        os.close(process)
    deadline = time.monotonic() + timeout_s
    while folder.root.exists() and not folder.sweep():
        if time.monotonic() > deadline:
            raise DeviceError(f"{folder.name} does not end", advice=f"its process is {holder}")
        time.sleep(0.01)


def _ended(process: int, how: signal.Signals, timeout_s: float) -> bool:
    signal.pidfd_send_signal(process, how)
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))
