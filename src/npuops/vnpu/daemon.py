"""The process of one virtual NPU. `device_switch.up` starts it; nobody else does.

::

    up ──fork, exec──▶ keeper ──fork──▶ daemon
     ◀────────── ready, or an error ──────┘

The daemon is the device. The keeper waits for its end and removes what a killed process leaves: the socket and the
tree that onlookers read. Should both be killed, the lock still tells that the device is gone.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass
from typing import Final

import msgspec

from npuops.artifacts.disk import storage_errors
from npuops.clock import SystemClock
from npuops.errors import NpuopsError
from npuops.vnpu.desk import Desk, Identity
from npuops.vnpu.device_engine import DeviceEngine
from npuops.vnpu.device_folder import DeviceFolder, claimed, device_folder
from npuops.vnpu.factory import outfit
from npuops.vnpu.fault_plan import parse_plan
from npuops.vnpu.life import Life
from npuops.vnpu.machine import Machine
from npuops.vnpu.numerics_worker import NumericsWorker
from npuops.vnpu.pacing import DeviceTime, Pacing
from npuops.vnpu.spec import MachineSpec
from npuops.vnpu.sysfs import SysfsTree
from npuops.vnpu.tree_worker import TreeWorker

BACKLOG: Final = 1024
_BOOT_POLL_S: Final = 0.005

_log = logging.getLogger("npuops.vnpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What `up` wants, as JSON on standard input."""

    name: str
    spec: MachineSpec
    pacing: Pacing = Pacing.REALTIME
    seed: int = 0
    plan: str = ""
    """A fault plan in TOML."""
    private: bool = False
    """End when whoever ordered it ends: it holds the other end of the ready pipe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the daemon says once, on the ready pipe: it is up, or why not."""

    error: str = ""
    """Class of our error tree."""
    message: str = ""
    advice: str = ""


def main() -> None:
    """Keep, or be, the device."""
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    ready = _Ready(int(sys.argv[1]), keep=order.private)
    if os.fork():
        os._exit(0)  # so that the keeper is nobody's child: whoever called `up` need not wait for it
    folder = device_folder(order.name)
    os.chdir("/")  # neither of the two may keep the caller's folder from being unmounted
    daemon = os.fork()
    if daemon:
        os.close(ready.descriptor)
        _keep(daemon, folder)
    else:
        _be(order, folder, ready)


def _keep(daemon: int, folder: DeviceFolder) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _, status = os.waitpid(daemon, 0)
    if os.WIFSIGNALED(status):
        sys.stderr.write(f"{folder.name} was killed by {signal.Signals(os.WTERMSIG(status)).name}\n")
    if folder.root.is_dir():
        folder.bury()


class _Ready:
    """The pipe to whoever ordered the device: one report goes over it."""

    def __init__(self, descriptor: int, *, keep: bool) -> None:
        """With `keep` it stays open after the report: its end tells that nobody needs the device any more."""
        self.descriptor, self._keep = descriptor, keep
        self._has_told = False

    def tell(self, report: Report) -> bool:
        """Whether somebody is there to hear it.

        The second report and all later ones go nowhere: the number may be another file's by then.
        """
        if self._has_told:
            return False
        self._has_told = True
        try:
            os.write(self.descriptor, msgspec.json.encode(report) + b"\n")
        except OSError:
            return False
        finally:
            if not self._keep:
                os.close(self.descriptor)
        return True


def _be(order: Order, folder: DeviceFolder, ready: _Ready) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    try:
        with claimed(folder, profile=order.spec.name, pacing=order.pacing) as number:
            _serve(order, folder, number, ready)
    except NpuopsError as error:
        _log.error("%s", error.message)
        ready.tell(Report(error=type(error).__name__, message=error.message, advice=error.advice))
    except BaseException:  # noqa: BLE001 - the last words of this process
        _log.exception("the daemon failed")
        sys.stderr.flush()
        os._exit(1)
    if order.private:  # whoever had the device has had its errors, and a log for each run would pile up
        folder.log.unlink(missing_ok=True)
    # The host's arithmetic may be in the middle of something; nobody waits for it any more.
    sys.stderr.flush()
    os._exit(0)


def _serve(order: Order, folder: DeviceFolder, number: int, ready: _Ready) -> None:
    born, clock = folder.identity(), SystemClock()
    pace = DeviceTime(order.pacing, clock.now_us())
    kit = outfit(order.spec, folder)
    plan = parse_plan(order.plan, where="fault plan")
    machine = Machine(order.spec, order.seed, plan=plan, rom=kit.rom)
    worker = NumericsWorker()
    identity = Identity(order.name, order.spec.name, order.spec.released.compiler, kit.key)
    desk = Desk(machine, pace, identity, worker, clock)
    _boot(desk, pace, order.spec, clock)
    tree = TreeWorker(SysfsTree(folder.accel(number), order.name))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    with storage_errors("make", folder.socket), folder.socket_address() as address:
        listener.bind(address)
    listener.listen(BACKLOG)
    lifeline = ready.descriptor if order.private else None

    def is_there() -> bool:
        return folder.identity() == born

    engine = DeviceEngine(listener, desk, worker, tree, clock, lifeline=lifeline, is_there=is_there)
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signal_number, lambda *_: engine.stop())
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        if ready.tell(Report()):
            _log.info("%s is up: %s, pacing %s, seed %d", order.name, order.spec.name, order.pacing, order.seed)
            engine.run()
        else:
            _log.error("whoever ordered %s did not wait for it", order.name)
    finally:
        if is_there():
            folder.socket.unlink(missing_ok=True)
            tree.close()
        worker.close()
    _log.info("%s is down", order.name)


def _boot(desk: Desk, pace: DeviceTime, spec: MachineSpec, clock: SystemClock) -> None:
    """Whoever ordered the device gets one that has booted, in its own time, or that says why it has not."""
    if pace.pacing is not Pacing.REALTIME:
        pace.jump_to(spec.boot_us, clock.now_us())
    while desk.telemetry().life is Life.BOOTING:
        time.sleep(_BOOT_POLL_S)


if __name__ == "__main__":
    main()
