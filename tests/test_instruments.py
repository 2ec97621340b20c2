"""All telemetry of a server, wired: facts go in at one end, and come out of every other."""

from __future__ import annotations

import json
import threading
import time

from npuops.clock import SystemClock
from npuops.telemetry.instruments import Instruments, unix_offset_us
from npuops.testing import ManualClock
from serving_facts import batch_ran
from serving_story import EVERY_FACT, HELD


def test_a_scrape_shows_what_was_just_observed_and_can_be_written_in_another_thread() -> None:
    instruments = Instruments(ManualClock(2_000_000), lambda: HELD)
    for fact in EVERY_FACT:
        instruments.observe(fact)
    scrape = instruments.scrape()
    instruments.observe(batch_ran())
    written: list[bytes] = []
    thread = threading.Thread(target=lambda: written.append(scrape.expose().body))
    thread.start()
    thread.join()
    assert b'npuops_requests_total{model="mobilenet",outcome="success",version="1"} 2.0' in written[0]
    assert b'npuops_queue_requests{model="mobilenet",version="1"} 3.0' in written[0]
    instruments.close()


def test_a_beat_closes_the_second_before() -> None:
    clock = ManualClock(5_000_000)
    instruments = Instruments(clock, lambda: HELD)
    instruments.observe(batch_ran(arrived_us=(5_000_100,)))
    clock.advance(1_000_000)
    instruments.every_second()
    points = json.loads(instruments.live_figures())["points"]
    assert [point["requests"] for point in points][-1:] == [1]
    assert json.loads(instruments.live_figures(points[-1]["t"]))["points"] == []


def test_without_an_endpoint_nothing_is_traced_and_closing_twice_is_fine() -> None:
    instruments = Instruments(ManualClock(), lambda: HELD)
    assert instruments.traces is None
    instruments.close()
    instruments.close()


def test_the_offset_leads_to_the_wall_clock() -> None:
    clock = SystemClock()
    before = time.time_ns() // 1000
    moment = clock.now_us() + unix_offset_us(clock)
    assert before - 1000 <= moment <= time.time_ns() // 1000 + 1000
