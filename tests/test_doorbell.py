from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npuops.errors import DeviceLostError, DeviceMemoryError, OptionError
from npuops.runtime import doorbell
from npuops.runtime.doorbell import NonsenseError, Place, Told
from npuops.runtime.signature import Port

U64 = st.integers(0, (1 << 64) - 1)
PLACES = st.lists(st.builds(Place, U64, U64, st.lists(U64, max_size=64).map(tuple)), max_size=20)


@given(slot=st.integers(0, 255), artifact=st.integers(0, 65_535), places=PLACES, batch=st.integers(0, (1 << 32) - 1))
def test_a_run_arrives_as_it_was_sent(slot: int, artifact: int, places: list[Place], batch: int) -> None:
    message = doorbell.pack_run(batch, doorbell.pack_work(slot, artifact, places))
    assert message[0] == doorbell.RUN
    assert doorbell.batch_of(message) == batch
    assert doorbell.unpack_work(message[doorbell.RUN_HEAD_BYTES :]) == (slot, artifact, tuple(places))


@given(places=PLACES, times=st.tuples(U64, U64, U64), batch=st.integers(0, (1 << 32) - 1))
def test_an_answer_arrives_as_it_was_sent(places: list[Place], times: tuple[int, int, int], batch: int) -> None:
    tensors = doorbell.pack_places(places)
    assert doorbell.unpack_ran(doorbell.pack_ran(batch, *times, tensors)) == (batch, *times, tensors)
    assert doorbell.unpack_places(tensors) == tuple(places)


@given(data=st.binary(max_size=200))
def test_bytes_of_no_sense_are_called_nonsense_and_nothing_else(data: bytes) -> None:
    for read in (
        doorbell.unpack_places,
        doorbell.unpack_ran,
        doorbell.unpack_failed,
        lambda message: doorbell.unpack_json(message, doorbell.Opened),
    ):
        with suppress(NonsenseError):
            read(data)


def test_a_lost_device_is_told_as_lost_and_a_full_one_is_not() -> None:
    assert doorbell.told_of(DeviceLostError("gone")).lost
    assert not doorbell.told_of(DeviceMemoryError("full")).lost
    failed = doorbell.pack_failed(3, Told(kind="RunError", message="é", advice="", lost=True))
    assert doorbell.unpack_failed(failed) == Told(kind="RunError", message="é", advice="", lost=True)


def test_what_a_message_cannot_hold_is_refused_and_what_it_can_hold_fits() -> None:
    most = 1_400
    port = Port(name="x", dtype="float32", shape=(-1, 2, 3))
    doorbell.check_sizes([port] * most, [port], 1)
    places = [Place(1 << 40, 1 << 40, (64, 2, 3))] * most
    assert len(doorbell.pack_run(1, doorbell.pack_work(2, 255, places))) <= doorbell.MESSAGE_BYTES
    with pytest.raises(OptionError, match="2000 outputs"):
        doorbell.check_sizes([port], [port] * 2000, 1)
    with pytest.raises(OptionError, match="300 outputs"):
        doorbell.check_sizes([port], [Port(name="x", dtype="float32", shape=None)] * 300, 1)
    with pytest.raises(OptionError, match="artifacts"):
        doorbell.check_sizes([port], [port], 300)
