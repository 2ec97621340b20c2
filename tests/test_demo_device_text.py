from __future__ import annotations

from dataclasses import replace
from io import StringIO

import numpy as np
import pytest

from npuops.cli.demo_device import Reset, Stage, Story, enclosed
from npuops.cli.demo_device_text import plain_story, show_story
from npuops.cli.screen import Screen
from npuops.devices.discovery import Device
from npuops.devices.failure_modes import Mode
from npuops.devices.health import Condition, State
from npuops.devices.readings import Readings
from npuops.devices.sampler import Sample
from npuops.devices.suspicions import Suspicion
from npuops.devices.uevents import Missed, Uevent
from npuops.vnpu.machine import Machine

SPEC = enclosed("vnpu:rk3588")
SEEN = Machine(SPEC, seed=0, start_us=0).telemetry(1_000_000)
LOOKED = Sample(
    device=Device(
        id="vnpu/demo",
        name="accel0",
        vendor="npuops",
        model=None,
        driver="vnpu",
        driver_version=None,
        firmware=None,
        address="demo",
        node=None,
        places={},
    ),
    taken_us=0,
    interval_s=None,
    readings=Readings(values={}, absent={}),
    values={},
    condition=Condition(state=State.THROTTLED, why="hot", since_us=0),
    suspected=(Suspicion(mode=Mode.THROTTLE, name="thermal throttle", evidence=("2 throttle events",)),),
)
STAGE = Stage(
    title="alone",
    latencies_us=np.linspace(1.0, 101.0, 101),
    same=101,
    busy=0.5,
    neighbours_per_s=0.0,
    seen=SEEN,
    looked=LOOKED,
)
STORY = Story(
    spec=SPEC,
    stages=(STAGE,),
    heated_s=61.0,
    reset=Reset(away_us=20_000, jobs_lost=3, contexts=4, contexts_lost=0, opened_again=False),
    cooled_s=2.0,
    patience_s=600,
    uevents=(Uevent(seqnum=1, at_us=150_000, action="online", fields={"STATUS": "online"}), Missed(count=7)),
)


def shown(story: Story) -> str:
    """Words and single spaces, however wide the terminal is."""
    screen = Screen(stderr=False)
    screen.file = StringIO()
    show_story(screen, story)
    return " ".join(screen.file.getvalue().split())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {},
            f"after 61 s of full load, at {SPEC.thermal.throttle_c:g} °C, 0 times in all; its full clock was back 2 s",
        ),
        ({"heated_s": None}, f"in 10 minutes of full load: it reached {SEEN.temperature_c:.1f} °C"),
        ({"cooled_s": None}, "10 minutes after the load its clock was still held down"),
        ({}, "101 inferences: cool, hot and after the reset the same bits"),
        ({"stages": (replace(STAGE, same=99),)}, "2 of 101 answers differ"),
        ({}, "3 jobs on the cores were lost, none of 4 contexts; ours went on as it was; online after 20.00 ms"),
        ({"reset": replace(STORY.reset, contexts_lost=4, opened_again=True)}, "4 of 4 contexts; ours had to be opened"),
        ({}, "0.150 s online STATUS=online"),
        ({}, "7 lines were over before they were read"),
        ({}, "degraded F2"),
        ({}, "thermal throttle: 2 throttle events (alone)"),
        ({}, "51 µs"),
        ({}, "100 µs"),
    ],
)
def test_people_read_what_happened_and_what_did_not(change: dict[str, object], words: str) -> None:
    assert words in shown(replace(STORY, **change))  # type: ignore[arg-type]


def test_programs_read_null_for_what_never_happened() -> None:
    plain = plain_story(replace(STORY, heated_s=None))
    assert plain["heated_s"] is None
    assert plain["as_promised"] is False
    assert plain["basis"] == "modelled"
    assert plain_story(STORY)["as_promised"] is True
