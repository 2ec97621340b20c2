"""Tensors in memory that two processes share and that no file names: it is gone when the last of them is.

The device makes it (`memfd_create`), seals it against shrinking and growing, and hands the descriptor over once. A
client that could cut it short would make the daemon die of SIGBUS at its next look; the seal forbids that to both.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import resource
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from npuops.errors import DeviceError, RunError
from npuops.vnpu.tensors import Layout, Placed

_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL

_SPARE_DESCRIPTORS: Final = 64

Views = dict[str, NDArray[Any]]


def make_segment(layout: Layout) -> int:
    """The descriptor of new, zeroed, sealed memory; pages are taken when they are first touched.

    Raises:
        DeviceError: there is none; also near the limit on open files, so that clients can always still connect and be
            told why.
    """
    try:
        descriptor = os.memfd_create("npuops-tensors", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    except OSError as error:
        raise _no_memory(error.strerror) from error
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        if descriptor >= limit - _SPARE_DESCRIPTORS:
            raise _no_memory("too many files are open")
        os.ftruncate(descriptor, layout.nbytes)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    except OSError as error:
        os.close(descriptor)
        raise _no_memory(error.strerror) from error
    except DeviceError:
        os.close(descriptor)
        raise
    return descriptor


def _no_memory(why: str | None) -> DeviceError:
    return DeviceError(
        f"no shared memory for the tensors: {why}",
        advice="unload programs, or raise the limits on files (ulimit -n, -f) before `npuops device up`",
    )


class Segment:
    """The memory, mapped. It stays mapped as long as anyone holds a view of it."""

    def __init__(self, descriptor: int, layout: Layout) -> None:
        """Map it; the descriptor is closed in any case.

        Raises:
            RunError: the memory is not what the layout says, or not sealed.
        """
        try:
            sealed = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & _SEALS == _SEALS
            if not sealed or os.fstat(descriptor).st_size != layout.nbytes:
                raise RunError("the device's shared memory is not sealed, or not of the agreed size")
            memory = mmap.mmap(descriptor, layout.nbytes)
        except OSError as error:
            raise RunError(f"the device's shared memory cannot be mapped: {error.strerror}") from error
        finally:
            os.close(descriptor)
        self.inputs = tuple(_views(memory, layout, slot, layout.inputs) for slot in range(layout.slots))
        self.outputs = tuple(_views(memory, layout, slot, layout.outputs) for slot in range(layout.slots))


def _views(memory: mmap.mmap, layout: Layout, slot: int, tensors: Sequence[Placed]) -> Views:
    start = slot * layout.slot_bytes
    return {
        placed.spec.name: np.ndarray(
            placed.spec.shape, np.dtype(placed.spec.dtype), buffer=memory, offset=start + placed.offset
        )
        for placed in tensors
    }
