"""System shared memory regions that clients make in /dev/shm and register (Triton's extension). Off by default.

Data are copied with `pread` and `pwrite`, never through a mapping: a client may truncate its region at any time, and
touching a mapping beyond the end kills the process with SIGBUS, and with it all other clients' requests. It costs
0.6 µs more for a tensor of 3 KB and 60 µs more for one of 600 KB (AMD EPYC, `os.pread` against copying a mapping).

A client that may register names any region in /dev/shm that this process can open, so the extension is for machines
whose users trust each other.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from npuops.errors import DataError, NotServedError
from npuops.runtime.job import Bytes, Completion
from npuops.server.infer_plan import InferPlan
from npuops.server.infer_request import RegionRef

SHM: Final = Path("/dev/shm")  # noqa: S108 - where shm_open makes them; no file of ours is made here
OWN_PREFIX: Final = "npuops-"
"""Of our own regions, which no client may name."""

REGION_LIMIT: Final = 256
"""Each holds a descriptor, of which a process commonly has 1,024."""

NAME_LIMIT: Final = 255
_AT_ONCE_BYTES: Final = 1 << 30  # one call moves at most 2 GiB - 4 KiB


@dataclass(frozen=True, slots=True)
class RegionStatus:
    """A registered region, in the protocol's words; `offset` and `byte_size` in bytes."""

    name: str
    key: str
    offset: int
    byte_size: int


class _Memory:
    """An open region; closed when neither the register nor a request holds it."""

    def __init__(self, descriptor: int, status: RegionStatus) -> None:
        self.status = status
        self._descriptor = descriptor

    def read(self, at: int, size: int) -> bytes:
        pieces: list[bytes] = []
        left = size
        while left:
            piece = os.pread(self._descriptor, min(left, _AT_ONCE_BYTES), self.status.offset + at)
            if not piece:
                raise DataError(f"shared memory region {self.status.name!r} was truncated by its owner")
            pieces.append(piece)
            at += len(piece)
            left -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def write(self, at: int, data: Bytes) -> None:
        left = memoryview(data)
        if os.fstat(self._descriptor).st_size < self.status.offset + at + len(left):
            # Writing would make the region longer again, behind its owner's back.
            raise DataError(f"shared memory region {self.status.name!r} was truncated by its owner")
        while left:
            done = os.pwrite(self._descriptor, left[:_AT_ONCE_BYTES], self.status.offset + at)
            at += done
            left = left[done:]

    def __del__(self) -> None:
        os.close(self._descriptor)


class Held:
    """The regions of one request's outputs: usable until it is answered, whatever is unregistered meanwhile."""

    __slots__ = ("_memories", "_plan")

    def __init__(self, plan: InferPlan, memories: Mapping[str, _Memory]) -> None:
        self._plan = plan
        self._memories = memories

    def write(self, completion: Completion) -> None:
        """Put the outputs where the client wants them.

        Raises:
            DataError: an output is larger than its place, or the region was truncated.
        """
        for wanted in self._plan.wanted:
            if wanted.region is None:
                continue
            part = completion.outputs[wanted.index]
            if len(part) > wanted.region.byte_size:
                raise DataError(
                    f"output {wanted.port.name!r} has {len(part)} bytes, its place in shared memory region "
                    f"{wanted.region.region!r} has {wanted.region.byte_size}"
                )
            self._memories[wanted.region.region].write(wanted.region.offset, part)


class Regions:
    """All that clients registered. For one thread."""

    def __init__(self, folder: Path = SHM) -> None:
        self._folder = folder
        self._memories: dict[str, _Memory] = {}

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Open a region.

        Args:
            name: as requests call it.
            key: as its owner named it for `shm_open`; a leading slash may be there.
            offset: where the usable part begins, in bytes.
            byte_size: of the usable part.

        Raises:
            DataError: the name is taken, the key is no plain name, or the region is absent, closed to us or too small.
        """
        if not 0 < len(name) <= NAME_LIMIT:
            raise DataError(f"a region's name has 1 to {NAME_LIMIT} characters")
        if name in self._memories:
            raise DataError(f"shared memory region {name!r} is registered", advice="unregister it first")
        if len(self._memories) >= REGION_LIMIT:
            raise DataError(f"{REGION_LIMIT} regions are registered", advice="unregister some")
        if offset < 0 or byte_size < 1:
            raise DataError(f"region {name!r}: the offset must be 0 or more, the size 1 or more")
        status = RegionStatus(name=name, key=key, offset=offset, byte_size=byte_size)
        self._memories[name] = _Memory(self._open(status), status)

    def unregister(self, name: str = "") -> None:
        """Forget a region, or all where no name is given; requests in flight keep what they use.

        Raises:
            NotServedError: no region has that name.
        """
        if not name:
            self._memories.clear()
        else:
            self._find(name)
            del self._memories[name]

    def status(self, name: str = "") -> list[RegionStatus]:
        """Of one region, or of all by name.

        Raises:
            NotServedError: no region has that name.
        """
        if name:
            return [self._find(name).status]
        return [self._memories[each].status for each in sorted(self._memories)]

    def read(self, place: RegionRef) -> bytes:
        """A copy of what lies there.

        Raises:
            NotServedError: no such region.
            DataError: beyond its end.
        """
        return self._within(place).read(place.offset, place.byte_size)

    def hold(self, plan: InferPlan) -> Held:
        """Take what a request's outputs need, when it begins.

        Raises:
            NotServedError: no such region.
            DataError: a place beyond a region's end.
        """
        places = [wanted.region for wanted in plan.wanted if wanted.region is not None]
        return Held(plan, {place.region: self._within(place) for place in places})

    def write(self, plan: InferPlan, completion: Completion) -> None:
        """`hold` and write at once.

        Raises:
            NotServedError: no such region (any more).
            DataError: an output is larger than its place, or the place is beyond the region's end.
        """
        self.hold(plan).write(completion)

    def _find(self, name: str) -> _Memory:
        found = self._memories.get(name)
        if found is None:
            raise NotServedError(f"no shared memory region {name!r} is registered", advice="register it first")
        return found

    def _within(self, place: RegionRef) -> _Memory:
        memory = self._find(place.region)
        if place.offset + place.byte_size > memory.status.byte_size:
            raise DataError(
                f"bytes {place.offset} to {place.offset + place.byte_size} are beyond shared memory region "
                f"{place.region!r}, which has {memory.status.byte_size}"
            )
        return memory

    def _open(self, status: RegionStatus) -> int:
        file = status.key.removeprefix("/")
        if not file or file in {".", ".."} or "/" in file or "\0" in file or len(file.encode()) > NAME_LIMIT:
            raise DataError(f"{status.key[:80]!r} is no key of a shared memory region", advice="as in shm_open: /name")
        if file.startswith(OWN_PREFIX):
            raise DataError(f"shared memory keys that begin with {OWN_PREFIX!r} are the server's own")
        try:
            descriptor = os.open(self._folder / file, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            raise DataError(
                f"shared memory region {status.key!r} cannot be opened: {error.strerror}",
                advice="make it before you register it, readable and writable for the server's user",
            ) from error
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size < status.offset + status.byte_size:
            os.close(descriptor)
            raise DataError(
                f"shared memory region {status.key!r} has {found.st_size} bytes, "
                f"{status.offset + status.byte_size} are registered"
            )
        return descriptor
