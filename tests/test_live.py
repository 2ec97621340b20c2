"""The figures behind the live page: a point for each second, right and without a gap."""

from __future__ import annotations

import json
from typing import Any

from live_scenes import SECOND_US, UNIX_S, busy_live, lost_worker, snapshot
from npuops.runtime.facts import RequestFailed, RequestShed, ShedReason
from npuops.telemetry.intake import Intake
from npuops.telemetry.live import EVENTS, Live
from npuops.telemetry.live_figures import WINDOW_S
from npuops.telemetry.serving_snapshot import ServingSnapshot, VersionGauges
from npuops.testing import ManualClock
from serving_facts import batch_ran


class Scene:
    """A live ring on a clock that stands at the beginning of a second."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.live = Live(self.clock, UNIX_S * SECOND_US)
        self.observe = Intake([self.live])

    def pass_seconds(self, seconds: float = 1, shown: ServingSnapshot | None = None) -> None:
        self.clock.advance(int(seconds * SECOND_US))
        self.observe.flush()
        self.live.sample(shown or snapshot())

    def points(self, since: int = 0) -> list[dict[str, Any]]:
        answer = json.loads(self.live.answer(since))
        assert answer["schema"] == "npuops.live/1"
        points: list[dict[str, Any]] = answer["points"]
        return points


def test_a_request_counts_in_the_second_in_which_it_was_answered() -> None:
    scene = Scene()
    scene.observe(batch_ran(arrived_us=(999_900,), queue_us=50, dma_in_us=0, compute_us=100, dma_out_us=0))
    scene.observe(batch_ran(arrived_us=(500_000, 500_010), rows=4, padded_rows=4))
    scene.pass_seconds(2.5)
    first, second = scene.points()
    assert [(point["t"], point["requests"]) for point in (first, second)] == [(UNIX_S, 2), (UNIX_S + 1, 1)]
    (series,) = first["series"]
    assert {key: series[key] for key in ("batches", "rows", "padded_rows", "fell_back")} == {
        "batches": 1,
        "rows": 4,
        "padded_rows": 4,
        "fell_back": 0,
    }


def test_percentiles_are_those_of_the_second_within_nine_percent() -> None:
    scene = Scene()
    for step in range(1, 101):
        scene.observe(batch_ran(arrived_us=(1_000,), queue_us=0, dma_in_us=0, compute_us=step * 1000, dma_out_us=0))
    scene.pass_seconds(1)
    latency = scene.points()[0]["latency"]
    for name, true_ms in (("p50_ms", 50), ("p95_ms", 95), ("p99_ms", 99)):
        assert abs(latency[name] - true_ms) <= 0.09 * true_ms


def test_a_second_without_an_answer_has_no_latency_rather_than_zero() -> None:
    scene = Scene()
    scene.pass_seconds(1)
    assert scene.points()[0]["latency"] == {"p50_ms": None, "p95_ms": None, "p99_ms": None}


def test_the_queue_of_a_version_that_is_gone_is_unknown_while_its_sheds_are_told() -> None:
    scene = Scene()
    scene.observe(RequestShed(model="gone", version="9", tenant="a", reason=ShedReason.NOT_READY))
    scene.observe(RequestFailed(model="gone", version="9", tenant="a", device="npu0", error="RunError"))
    scene.pass_seconds(1)
    (gone,) = [one for one in scene.points()[0]["versions"] if one["model"] == "gone"]
    assert gone == {"model": "gone", "version": "9", "queue": None, "in_flight": None, "shed": 1, "failed": 1}


def many(count: int) -> ServingSnapshot:
    """So many versions, of which the last has a queue."""
    return ServingSnapshot(
        versions=tuple(
            VersionGauges(model=f"m{n}", version="1", ready=True, queue_requests=int(n == count - 1), queue_bytes=0)
            for n in range(count)
        )
    )


def test_a_version_that_does_nothing_takes_no_room_in_the_seconds() -> None:
    scene = Scene()
    scene.pass_seconds(1, many(500))
    (point,) = scene.points()
    assert point["loaded"] == 500
    assert [(one["model"], one["queue"]) for one in point["versions"]] == [("m499", 1)]


def test_padding_is_told_in_elements_too() -> None:
    scene = Scene()
    scene.observe(batch_ran(rows=1, padded_rows=0, elements=10, padded_elements=6))
    scene.observe(batch_ran(rows=1, padded_rows=3, elements=10, padded_elements=54))
    scene.pass_seconds(2)
    (series,) = scene.points()[1]["series"]
    assert (series["elements"], series["padded_elements"], series["padded_rows"]) == (20, 60, 3)


def test_a_reader_gets_only_the_seconds_that_it_does_not_know() -> None:
    scene = Scene()
    for _ in range(5):
        scene.pass_seconds(1)
    assert [point["t"] - UNIX_S for point in scene.points(since=UNIX_S + 2)] == [3, 4]
    assert scene.points(since=UNIX_S + 4) == []


def test_seconds_have_no_gap_when_sampling_is_late_and_the_ring_stays_small() -> None:
    scene = Scene()
    scene.pass_seconds(7.2)
    assert [point["t"] - UNIX_S for point in scene.points()] == list(range(7))
    scene.pass_seconds(10_000)
    assert len(scene.points()) == WINDOW_S


def test_a_late_batch_of_a_closed_second_is_left_out_and_memory_stays_bounded_without_a_sampler() -> None:
    scene = Scene()
    scene.pass_seconds(3)
    scene.observe(batch_ran(arrived_us=(100,)))
    scene.pass_seconds(1)
    assert sum(point["requests"] for point in scene.points()) == 0
    for second in range(4, 2000):
        scene.observe(batch_ran(arrived_us=(second * SECOND_US,)))
    scene.observe.flush()
    assert len(scene.live._open) <= WINDOW_S


def test_what_happened_is_told_newest_first_with_the_phases_of_a_cold_start() -> None:
    events = json.loads(busy_live(60).answer())["events"]
    assert [event["kind"] for event in events] == ["device_changed", "cold_start", "device_changed", "worker_ended"]
    assert [event["trouble"] for event in events] == [False, True, True, True]
    assert events[1]["phases"] == {"spawn": 0.11, "verify": 0.03, "open": 0.34, "warm_up": 0.16}
    assert "killed by signal 9; 2 batches run again" in events[3]["text"]


def test_only_the_last_events_are_kept() -> None:
    scene = Scene()
    for _ in range(EVENTS):
        for fact in lost_worker("m"):
            scene.observe(fact)
    assert len(json.loads(scene.live.answer())["events"]) == EVENTS
