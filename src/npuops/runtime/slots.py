"""Shared memory between the server and one worker, cut into slots: the inputs of a run, then its outputs.

No file names it, so nothing stays when both ends are gone. Pages are taken when they are first touched: slots for
models with free sizes are cut to the largest request that is allowed, and cost what is really used.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from dataclasses import dataclass
from typing import Final

from npuops.errors import OptionError, StorageError
from npuops.runtime.signature import Port, Signature

ALIGNMENT: Final = 64
"""Bytes: a cache line, and the widest vector that reads it."""
_MOST_BYTES: Final = 1 << 46
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """How the memory is cut; all in bytes.

    Attributes:
        output_offset: of the outputs, within a slot.
    """

    slots: int
    slot_bytes: int
    output_offset: int

    @property
    def total_bytes(self) -> int:
        """Of all slots."""
        return self.slots * self.slot_bytes


def geometry_of(signature: Signature, *, rows: int, slots: int, free_bytes: int) -> Geometry:
    """Slots for runs of up to `rows` rows.

    Args:
        signature: the tensors.
        rows: most rows of a run, padding included.
        slots: how many runs may be prepared or under way.
        free_bytes: room for the inputs, and again for the outputs, where a size is free.

    Raises:
        OptionError: no memory is so large.
    """
    inputs = _room(signature.inputs, rows, batched=signature.batched, free_bytes=free_bytes)
    outputs = _room(signature.outputs, rows, batched=signature.batched, free_bytes=free_bytes)
    made = Geometry(slots=slots, slot_bytes=_pages(inputs + outputs), output_offset=inputs)
    if made.total_bytes > _MOST_BYTES:
        raise OptionError(
            f"runs of {rows} rows need {made.slot_bytes} bytes of shared memory each", advice="lower batching.max_rows"
        )
    return made


def aligned(offset: int) -> int:
    """The next offset at which a tensor may begin."""
    return -(-offset // ALIGNMENT) * ALIGNMENT


class SharedMemory:
    """The memory as one process maps it.

    Attributes:
        view: all of it, writable.
    """

    def __init__(self, descriptor: int, nbytes: int) -> None:
        """Map it; the descriptor is closed in any case.

        Raises:
            StorageError: it cannot be mapped.
        """
        try:
            self._memory = mmap.mmap(descriptor, nbytes)
        except OSError as error:
            raise StorageError(f"shared memory of {nbytes} bytes cannot be mapped: {error.strerror}") from error
        finally:
            os.close(descriptor)
        self.view = memoryview(self._memory)

    def close(self) -> None:
        """Unmap it; who still holds a slice keeps it mapped until that is gone."""
        try:
            self.view.release()
            self._memory.close()
        except BufferError:
            return  # the last holder's release unmaps it


def make_memory(nbytes: int) -> int:
    """The descriptor of new, zeroed memory whose size nobody can change: a shrunk file would kill who reads it.

    Raises:
        StorageError: there is none.
    """
    try:
        descriptor = os.memfd_create("npuops-serve", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    except OSError as error:
        raise StorageError(f"no shared memory: {error.strerror}", advice="raise the limit on open files") from error
    try:
        os.ftruncate(descriptor, nbytes)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    except OSError as error:
        os.close(descriptor)
        raise StorageError(f"no shared memory of {nbytes} bytes: {error.strerror}") from error
    return descriptor


def _room(ports: tuple[Port, ...], rows: int, *, batched: bool, free_bytes: int) -> int:
    total = 0
    for port in ports:
        nbytes = _port_bytes(port, rows, batched=batched)
        if nbytes is None:
            return aligned(free_bytes) + ALIGNMENT * len(ports)  # each tensor begins at a line of its own
        total = aligned(total + nbytes)
    return max(total, ALIGNMENT)


def _port_bytes(port: Port, rows: int, *, batched: bool) -> int | None:
    if port.shape is None or not port.item_bytes:
        return None
    total = port.item_bytes
    for axis, size in enumerate(port.shape):
        if batched and axis == 0:
            total *= rows
        elif size < 0:
            return None
        else:
            total *= size
    return total


def _pages(nbytes: int) -> int:
    return -(-nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
