"""Where virtual devices live on disk, and which of them are alive.

::

    HOME/                       $NPUOPS_DEVICES, $XDG_RUNTIME_DIR/npuops-devices or /tmp/npuops-devices-UID; mode 0700
      sys/class/accel/accelN/   the tree of all devices, read like /sys (`npuops devices --root HOME`)
      NAME/lock                 held by the daemon as long as it lives; the kernel frees it however the daemon ends
      NAME/device.json          the record: pid, profile, pacing, number
      NAME/socket               where clients connect
      NAME/device.pub           the device's own key, firmware.bin the image it should run, config its configuration
      logs/NAME.log             what the daemon said; kept, but that of a private device which ended in order
      keys/vendor               signs firmware images, as a chip's vendor would

Only the lock tells whether a device is up: a record or a socket may be left over from a killed daemon.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from npuops.artifacts.disk import storage_errors
from npuops.artifacts.locks import alone_in, try_lock
from npuops.errors import OptionError, StorageError, UsageError

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_ADDRESS_BYTES: Final = 107
_RESERVED: Final = frozenset({"sys", "logs", "keys"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What `device.json` says."""

    name: str
    pid: int
    profile: str
    pacing: str
    number: int
    """N of its `accelN`."""


@dataclass(frozen=True, slots=True)
class DeviceFolder:
    """The files of one device name, whether or not there is such a device."""

    home: Path
    name: str

    @property
    def root(self) -> Path:
        """The folder of this device alone."""
        return self.home / self.name

    @property
    def lock(self) -> Path:
        """Held while the daemon lives."""
        return self.root / "lock"

    @property
    def socket(self) -> Path:
        """Where clients connect."""
        return self.root / "socket"

    @property
    def log(self) -> Path:
        """What the daemon said."""
        return self.home / "logs" / f"{self.name}.log"

    @property
    def device_key(self) -> Path:
        """The public half of the key that the device signs quotes with."""
        return self.root / "device.pub"

    @property
    def firmware(self) -> Path:
        """The image that the device should run."""
        return self.root / "firmware.bin"

    @property
    def config(self) -> Path:
        """The configuration that is measured beside the image."""
        return self.root / "config"

    @property
    def vendor_key(self) -> Path:
        """Of all virtual devices of this user."""
        return self.home / "keys" / "vendor"

    @property
    def record_file(self) -> Path:
        """The record."""
        return self.root / "device.json"

    def accel(self, number: int) -> Path:
        """The folder of a device in the tree."""
        return self.home / "sys" / "class" / "accel" / f"accel{number}"

    @contextmanager
    def socket_address(self) -> Iterator[str]:
        """What to bind or connect to: the kernel takes 107 bytes, and a path may be longer."""
        path = str(self.socket)
        if len(path.encode()) <= _ADDRESS_BYTES:
            yield path
            return
        descriptor = os.open(self.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield f"/proc/self/fd/{descriptor}/{self.socket.name}"
        finally:
            os.close(descriptor)

    def is_up(self) -> bool:
        """Whether a daemon holds the lock now."""
        if not self.root.is_dir():
            return False
        with alone_in(self.home):  # so that nobody who claims the name meets our short look at its lock
            return _is_locked(self.lock)

    def stays_up(self, seconds: float) -> bool:
        """Whether a daemon still holds the lock after that time; False as soon as none does."""
        deadline = time.monotonic() + seconds
        while self.is_up():
            if time.monotonic() > deadline:
                return True
            time.sleep(0.005)
        return False

    def holder(self) -> int | None:
        """The process that holds the lock now; None when nobody does.

        Raises:
            StorageError: somebody does, and the file does not say who.
        """
        with alone_in(self.home):
            if not _is_locked(self.lock):
                return None
            words = self.lock.read_text(encoding="ascii", errors="replace")
        if not words.isdecimal():
            raise StorageError(f"{self.lock} is held, and says {words!r} for a process", advice=f"fuser {self.lock}")
        return int(words)

    def identity(self) -> int | None:
        """Of the lock that others find here: a daemon knows by it whether the folder is still its own."""
        try:
            return self.lock.stat().st_ino
        except OSError:
            return None

    def record(self) -> Record | None:
        """What the last daemon of this name wrote; None without one."""
        try:
            return msgspec.json.decode(self.record_file.read_bytes(), type=Record)
        except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
            return None

    def bury(self) -> None:
        """After a daemon was killed: what would mislead others goes, the record stays for `npuops device list`."""
        with alone_in(self.home):
            if _is_locked(self.lock):
                return
            _hide(self)
            if self.record() is None:  # killed before it had written one
                shutil.rmtree(self.root, ignore_errors=True)

    def sweep(self) -> bool:
        """Remove all that a dead daemon left, except its log; False, and nothing is removed, while one lives."""
        with alone_in(self.home):
            if _is_locked(self.lock):
                return False
            _hide(self)
            shutil.rmtree(self.root, ignore_errors=True)
            return True


def devices_home() -> Path:
    """The folder of all virtual devices of this user, made if need be.

    Raises:
        StorageError: it cannot be made, or is not a private folder of this user.
    """
    given = os.environ.get("NPUOPS_DEVICES")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    home = Path(given or (f"{runtime}/npuops-devices" if runtime else f"/tmp/npuops-devices-{os.getuid()}"))  # noqa: S108 - checked below
    home = home.absolute()
    with storage_errors("make", home):
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = home.lstat()
    # In /tmp anyone could have made it first, and would then own the sockets that we trust.
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise StorageError(
            f"{home} is not a folder that belongs to you alone (mode 0700)",
            advice="remove it, or set NPUOPS_DEVICES to a folder of your own",
        )
    return home


def device_folder(name: str) -> DeviceFolder:
    """The files of a device name.

    Raises:
        OptionError: no name of a device.
        StorageError: the home cannot be used.
    """
    if not _NAME.fullmatch(name) or name in _RESERVED:
        raise OptionError(
            f"{name!r} is no name of a device", advice="1 to 32 lower-case letters, digits, `-` and `_`, such as npu0"
        )
    return DeviceFolder(devices_home(), name)


def all_folders() -> tuple[DeviceFolder, ...]:
    """Every device that is up, or left something behind when it was killed."""
    home = devices_home()
    names = sorted(path.parent.name for path in home.glob("*/lock"))
    return tuple(DeviceFolder(home, name) for name in names if _NAME.fullmatch(name))


@contextmanager
def claimed(folder: DeviceFolder, *, profile: str, pacing: str) -> Iterator[int]:
    """Hold a device's name during the block; what a killed daemon left there is removed first.

    Gives the number of the device, the lowest that is free. The folder and the tree are removed at the end, unless
    somebody removed them before, and they may be another's by now.

    Raises:
        UsageError: a device of that name is up.
        StorageError: the home cannot be written.
    """
    with alone_in(folder.home):
        descriptor = _lock(folder)
        try:
            number = _move_in(folder, profile, pacing)
        except BaseException:
            _hide(folder)
            shutil.rmtree(folder.root, ignore_errors=True)
            os.close(descriptor)
            raise
    try:
        yield number
    finally:
        if folder.identity() == os.fstat(descriptor).st_ino:
            with alone_in(folder.home):
                shutil.rmtree(folder.accel(number), ignore_errors=True)
                shutil.rmtree(folder.root, ignore_errors=True)
        os.close(descriptor)


def _lock(folder: DeviceFolder) -> int:
    try:
        with storage_errors("make", folder.root):
            folder.root.mkdir(mode=0o700, exist_ok=True)
        descriptor = try_lock(folder.lock)
    except StorageError:
        if not _is_locked(folder.lock):
            shutil.rmtree(folder.root, ignore_errors=True)
        raise
    if descriptor is not None:
        return descriptor
    record = folder.record()
    who = f" (process {record.pid})" if record is not None else ""
    raise UsageError(
        f"{folder.name} is up already{who}", advice=f"npuops device down {folder.name}, or take another name"
    )


def _move_in(folder: DeviceFolder, profile: str, pacing: str) -> int:
    """The record before the tree, so that whoever finds the tree of a killed daemon knows whose it was."""
    _hide(folder)
    number = _free_number(folder)
    record = Record(name=folder.name, pid=os.getpid(), profile=profile, pacing=pacing, number=number)
    with storage_errors("write", folder.record_file):
        folder.record_file.write_bytes(msgspec.json.encode(record))
        folder.accel(number).mkdir(parents=True)
    return number


def _hide(folder: DeviceFolder) -> None:
    """From onlookers and clients: the tree and the socket of a daemon that is dead."""
    record = folder.record()
    if record is not None and not any(each.number == record.number for each in _live_records(folder)):
        shutil.rmtree(folder.accel(record.number), ignore_errors=True)
    folder.socket.unlink(missing_ok=True)


def _live_records(folder: DeviceFolder) -> tuple[Record, ...]:
    """Of the other devices that are up."""
    others = (DeviceFolder(folder.home, path.parent.name) for path in folder.home.glob("*/lock"))
    live = (other.record() for other in others if other.name != folder.name and _is_locked(other.lock))
    return tuple(record for record in live if record is not None)


def _free_number(folder: DeviceFolder) -> int:
    taken = {record.number for record in _live_records(folder)}
    number = min(set(range(len(taken) + 1)) - taken)
    shutil.rmtree(folder.accel(number), ignore_errors=True)  # of a killed daemon that nobody swept up
    return number


def _is_locked(lock: Path) -> bool:
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
