from __future__ import annotations

from npuops.devices.uevents import parse_uevent
from npuops.devices.vnpu_tree import EVENT_LIMIT, EVENTS_KEPT
from npuops.vnpu.device_events import ClockChanged, DeviceEvent, FaultBegan, LifeChanged, MemoryErrors
from npuops.vnpu.faults import Kind
from npuops.vnpu.life import Life
from npuops.vnpu.uevent_ring import UeventRing


def told(*events: DeviceEvent) -> list[str]:
    """What the events add to the first line."""
    ring = UeventRing("npu0")
    for event in events:
        ring.hear(event)
    return ring.text.splitlines()[1:]


def changed(before: Life, after: Life, why: str, at_us: float = 8) -> LifeChanged:
    return LifeChanged(at_us=at_us, before=before, after=after, why=why)


def test_it_begins_with_the_devices_arrival() -> None:
    assert UeventRing("npu0").text == "0 add SEQNUM=1 DRIVER=vnpu VNPU_NAME=npu0\n"


def test_what_an_onlooker_can_see_is_a_line_with_the_next_number() -> None:
    slower = ClockChanged(at_us=9, before_mhz=1000, after_mhz=700, temperature_c=85.5)
    faster = ClockChanged(at_us=9, before_mhz=700, after_mhz=1000, temperature_c=77.9)
    assert told(
        changed(Life.READY, Life.RESETTING, "reset by command", at_us=7.4),
        changed(Life.RESETTING, Life.READY, "booted"),
        slower,
        faster,
        MemoryErrors(at_us=9, corrected=3),
    ) == [
        "7 change SEQNUM=2 STATUS=resetting WHY=reset_by_command",
        "8 online SEQNUM=3 STATUS=online WHY=booted",
        "9 change SEQNUM=4 THROTTLED_MHZ=700 TEMP=85500",
        "9 change SEQNUM=5 CE=3 UE=0",
    ]


def test_the_name_of_a_fault_is_never_told() -> None:
    lines = told(FaultBegan(at_us=9, kind=Kind.OFFLINE), changed(Life.READY, Life.OFF, "fault: offline"))
    assert lines == ["8 offline SEQNUM=2 STATUS=offline"]


def test_a_device_that_leaves_and_comes_back_goes_on_counting() -> None:
    lines = told(changed(Life.READY, Life.GONE, "fault: driver_crash"), changed(Life.GONE, Life.BOOTING, "reset"))
    assert lines == [
        "8 remove SEQNUM=2 STATUS=offline",
        "8 add SEQNUM=3 DRIVER=vnpu VNPU_NAME=npu0",
        "8 change SEQNUM=4 STATUS=resetting WHY=reset",
    ]


def test_it_keeps_the_last_lines_however_many_come() -> None:
    ring = UeventRing("npu0")
    for number in range(100_000):
        ring.hear(MemoryErrors(at_us=number, corrected=1))
    lines = ring.text.splitlines()
    assert len(lines) == EVENTS_KEPT
    assert lines[-1] == "99999 change SEQNUM=100001 CE=1 UE=0"
    assert lines[0].split()[2] == f"SEQNUM={100_001 - EVENTS_KEPT + 1}"


def test_words_from_outside_cannot_break_a_line_or_make_it_endless() -> None:
    hostile = "version \x1b[2J\n9 online SEQNUM=99 é" + "é" * 2000
    (line,) = told(changed(Life.BOOTING, Life.OFF, hostile))
    assert len(line.encode()) < EVENT_LIMIT
    assert line.isprintable()
    event = parse_uevent(line)
    assert event is not None
    assert (event.seqnum, event.fields["STATUS"]) == (2, "offline")
