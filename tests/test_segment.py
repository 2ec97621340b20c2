from __future__ import annotations

import os
import resource
from pathlib import Path

import numpy as np
import pytest

from npuops.errors import DeviceError, RunError
from npuops.vnpu.segment import Segment, make_segment
from npuops.vnpu.tensors import TensorSpec, layout_of
from virtual_devices import descriptors_of

LAYOUT = layout_of([TensorSpec("x", "float32", (2, 3))], [TensorSpec("y", "int8", (5,))], 2)


def named() -> set[Path]:
    """Shared memory that has a name."""
    place = Path("/dev/shm")  # noqa: S108 - looked at, not used
    return set(place.iterdir()) if place.is_dir() else set()


def test_both_sides_see_the_same_tensors_and_slots_are_apart() -> None:
    descriptor = make_segment(LAYOUT)
    there, here = Segment(os.dup(descriptor), LAYOUT), Segment(descriptor, LAYOUT)
    there.inputs[0]["x"][:] = 1.5
    there.outputs[1]["y"][:] = -3
    assert (here.inputs[0]["x"] == 1.5).all()
    assert (here.outputs[1]["y"] == -3).all()
    assert not here.inputs[1]["x"].any()
    assert not here.outputs[0]["y"].any()
    assert here.inputs[0]["x"].dtype == np.float32


def test_nobody_can_cut_the_memory_short_under_the_other() -> None:
    descriptor = make_segment(LAYOUT)
    for size in (0, LAYOUT.nbytes + 1):
        with pytest.raises(PermissionError):
            os.ftruncate(descriptor, size)
    os.close(descriptor)


def test_memory_that_is_not_sealed_or_of_another_size_is_refused_and_closed() -> None:
    unsealed = os.memfd_create("test")
    os.ftruncate(unsealed, LAYOUT.nbytes)
    other = make_segment(layout_of([], [TensorSpec("y", "int8", (999,))], 1))
    read_end, write_end = os.pipe()
    os.close(write_end)
    for descriptor in (unsealed, other, read_end):
        with pytest.raises(RunError):
            Segment(descriptor, LAYOUT)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


def test_without_room_for_the_memory_it_is_an_error_and_no_descriptor_is_left() -> None:
    open_before = descriptors_of(os.getpid())
    for kind, soft, words in (
        (resource.RLIMIT_FSIZE, 16, "File too large"),
        (resource.RLIMIT_NOFILE, open_before + 40, "too many files are open"),
    ):
        limits = resource.getrlimit(kind)
        resource.setrlimit(kind, (soft, limits[1]))
        try:
            with pytest.raises(DeviceError, match=words):
                make_segment(LAYOUT)
        finally:
            resource.setrlimit(kind, limits)
    assert descriptors_of(os.getpid()) <= open_before


def test_nothing_of_it_has_a_name_and_views_outlive_the_segment() -> None:
    before = named()
    view = Segment(make_segment(LAYOUT), LAYOUT).inputs[0]["x"]
    view[:] = 7
    assert (view == 7).all()
    assert named() == before
