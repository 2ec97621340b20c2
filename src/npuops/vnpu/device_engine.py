"""The device's one loop: clients come, speak and go; time passes; the tree is kept up to date.

Everything about the device happens in this thread, so the machine needs no lock; only the host's arithmetic runs in
threads of its own. A client that talks nonsense, stops in the middle of a message or dies costs its own connection.
"""

from __future__ import annotations

import os
import resource
import select
import socket
from collections.abc import Callable
from typing import Final, Protocol

from npuops.clock import Clock
from npuops.errors import NpuopsError
from npuops.vnpu.desk import Desk
from npuops.vnpu.device_events import DeviceEvent
from npuops.vnpu.device_telemetry import Telemetry
from npuops.vnpu.link import Link
from npuops.vnpu.numerics_worker import NumericsWorker
from npuops.vnpu.wake import Alarm, Bell, quieten
from npuops.vnpu.wire import Hello, ProtocolError, Refused

HELLO_LIMIT_US: Final = 10_000_000
"""A client that connects and does not introduce itself is in the way of others."""

CLIENTS_LIMIT: Final = 4096
_SPARE_DESCRIPTORS: Final = 64
_DESCRIPTORS_ASKED: Final = 1 << 16
_DESCRIPTORS_PER_CLIENT: Final = 3
"""Its socket, and the tensors of one or two programs."""

_ACTIVE_US: Final = 100_000
"""The tree is written at most so often, except when something happens to the device itself."""
_QUIET_US: Final = 1_000_000
"""And so often while nothing happens at all: temperature and energy go on."""


class Publisher(Protocol):
    """Shows the device to onlookers: `TreeWorker`."""

    def show(self, seen: Telemetry, events: list[DeviceEvent]) -> None:
        """Soon."""
        ...


class DeviceEngine:
    """Serves one device on a listening socket until it is told to stop."""

    def __init__(
        self,
        listener: socket.socket,
        desk: Desk,
        worker: NumericsWorker,
        publisher: Publisher,
        clock: Clock,
        *,
        lifeline: int | None = None,
        is_there: Callable[[], bool] = lambda: True,
    ) -> None:
        """Prepare.

        Args:
            listener: where clients come from.
            desk: the device.
            worker: computes for it.
            publisher: shows it.
            clock: the system's.
            lifeline: a descriptor; when its other end is closed, the device ends.
            is_there: asked now and then; a device whose folder somebody removed can be reached by nobody, and ends.
        """
        self._listener, self._desk, self._worker = listener, desk, worker
        self._publisher, self._clock, self._is_there = publisher, clock, is_there
        self._bell, self._alarm = Bell(), Alarm()
        self._links: dict[int, Link] = {}
        self._by_descriptor: dict[int, Link] = {}
        self._strangers: dict[int, int] = {}  # key of a link without a Hello → when it is hung up
        self._stuck: set[int] = set()
        self._next_key = 1
        self._limit = _clients_limit()
        self._publish_us = self._soon_us = 0
        self._worked_us = 0.0
        self._stopping = False
        self._epoll = select.epoll()
        listener.setblocking(False)
        self._lifeline = lifeline
        if lifeline is not None:
            self._epoll.register(lifeline, select.EPOLLIN)
        for each in (listener, self._bell, worker.bell, self._alarm):
            self._epoll.register(each.fileno(), select.EPOLLIN)

    def stop(self) -> None:
        """Make `run` return soon; a signal handler may call this."""
        self._stopping = True
        self._bell.ring()

    def run(self) -> None:
        """Serve until `stop`."""
        while not self._stopping:
            now_us = self._clock.now_us()
            more = self._desk.turn()
            self._deliver()
            self._publish(now_us)
            self._hang_up_strangers(now_us)
            for descriptor, events in self._epoll.poll(0 if more else self._timeout_s(now_us)):
                self._serve(descriptor, events)
        self._end()

    def _publish(self, now_us: int) -> None:
        """At once when something happened to the device, else often while it works and seldom while it rests."""
        events = self._desk.take_events()
        if not events and now_us < self._publish_us:
            return
        if not self._is_there():
            self._stopping = True
        seen = self._desk.telemetry()
        self._publisher.show(seen, events)
        works = seen.core_busy_us != self._worked_us
        self._worked_us = seen.core_busy_us
        self._soon_us = now_us + _ACTIVE_US
        self._publish_us = self._soon_us if works else now_us + _QUIET_US

    def _timeout_s(self, now_us: int) -> float:
        """Until the next thing that this loop does by itself; the alarm rings for the device's own moments."""
        self._alarm.set(self._desk.delay_us())
        next_us = min([self._publish_us, *self._strangers.values()])
        return max(0, next_us - now_us) / 1e6

    def _serve(self, descriptor: int, events: int) -> None:
        link = self._by_descriptor.get(descriptor)
        if link is not None:
            self._serve_link(link, events)
        elif descriptor == self._listener.fileno():
            self._accept()
        elif descriptor == self._lifeline:
            self._stopping = True
        else:
            quieten(descriptor)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # it gave up already, or there are no descriptors for now
            return
        link = Link(self._next_key, connection)
        self._next_key += 1
        refusal = self._refusal(link)
        if refusal is not None:
            self._dismiss(link, refusal)
            return
        self._links[link.key] = self._by_descriptor[link.fileno()] = link
        self._strangers[link.key] = self._clock.now_us() + HELLO_LIMIT_US
        self._epoll.register(link.fileno(), select.EPOLLIN)

    def _refusal(self, link: Link) -> Refused | None:
        if link.uid not in {0, os.getuid()}:
            return Refused(id=0, kind="UsageError", message="this device belongs to another user")
        if len(self._links) >= self._limit:
            advice = "close some connections, or raise the limit on open files before `npuops device up`"
            message = f"the device has {self._limit} clients, which is all it takes"
            return Refused(id=0, kind="DeviceError", message=message, advice=advice)
        return None

    def _serve_link(self, link: Link, events: int) -> None:
        try:
            if events & select.EPOLLOUT:
                link.flush()
                self._watch(link)
            if not events & ~select.EPOLLOUT:
                return
            requests = link.receive()
        except ProtocolError as error:
            self._drop(link, error)
            return
        except OSError:
            requests = None
        if requests is None:
            self._drop(link, None)
            return
        self._publish_us = min(self._publish_us, self._soon_us)
        for request in requests:
            if isinstance(request, Hello):
                self._strangers.pop(link.key, None)
            self._desk.take(link.key, link.pid, request)

    def _deliver(self) -> None:
        for key, message, descriptor in self._desk.take_outbox():
            link = self._links.get(key)
            if link is None:  # it left while its work was being done
                if descriptor is not None:
                    os.close(descriptor)
                continue
            try:
                link.send(message, descriptor)
                self._watch(link)
            except ProtocolError as error:
                self._drop(link, error)
            except OSError:
                self._drop(link, None)

    def _watch(self, link: Link) -> None:
        """Ask to be told when a socket that was full takes more."""
        if link.is_stuck != (link.key in self._stuck):
            self._stuck ^= {link.key}
            self._epoll.modify(link.fileno(), select.EPOLLIN | (select.EPOLLOUT if link.is_stuck else 0))

    def _hang_up_strangers(self, now_us: int) -> None:
        for key in [key for key, until_us in self._strangers.items() if now_us >= until_us]:
            self._drop(self._links[key], ProtocolError(f"no Hello within {HELLO_LIMIT_US // 1_000_000} s"))

    def _drop(self, link: Link, error: NpuopsError | None) -> None:
        """Everything of this client goes; of what went wrong it is told if it still listens."""
        self._strangers.pop(link.key, None)
        self._stuck.discard(link.key)
        del self._links[link.key], self._by_descriptor[link.fileno()]
        self._epoll.unregister(link.fileno())
        self._desk.leave(link.key)
        self._publish_us = min(self._publish_us, self._soon_us)
        if error is None:
            link.close()
        else:
            self._dismiss(link, Refused(id=0, kind=type(error).__name__, message=error.message, advice=error.advice))

    def _dismiss(self, link: Link, refusal: Refused) -> None:
        try:
            if not link.is_stuck:
                link.send(refusal)
        except (OSError, ProtocolError):
            return  # it is not there to hear it
        finally:
            link.close()

    def _end(self) -> None:
        for link in tuple(self._links.values()):
            self._drop(link, ProtocolError("the device is being taken down"))
        for each in (self._epoll, self._alarm, self._bell, self._listener):
            each.close()


def _clients_limit() -> int:
    """As many as there are descriptors for, after asking for all that the system grants."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    hard = _DESCRIPTORS_ASKED if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS_ASKED)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return max(1, min(CLIENTS_LIMIT, (hard - _SPARE_DESCRIPTORS) // _DESCRIPTORS_PER_CLIENT))
