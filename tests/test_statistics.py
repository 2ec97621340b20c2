"""Triton's statistics extension, from the runtime's facts."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npuops.runtime.facts import BatchRan, RequestFailed, RequestShed, ShedReason
from npuops.runtime.version_facts import VersionChanged
from npuops.server.statistics import ModelStatistics, StatisticDuration, Statistics
from serving_facts import batch_ran

VERSION = ("mobilenet", "1")


def folded(*batches: BatchRan) -> ModelStatistics:
    statistics = Statistics(unix_offset_us=0)
    for batch in batches:
        statistics(batch)
    return statistics.of([VERSION])[0]


def test_a_request_counts_its_own_time_in_the_queue_and_its_batchs_time_on_the_device() -> None:
    found = folded(batch_ran(arrived_us=(1_000, 1_300), queue_us=100, dma_in_us=20, compute_us=700, dma_out_us=30))
    stats = found.inference_stats
    assert stats.queue == StatisticDuration(count=2, ns=(400 + 100) * 1000)
    assert stats.compute_input == StatisticDuration(count=2, ns=2 * 20_000)
    assert stats.compute_infer == StatisticDuration(count=2, ns=2 * 700_000)
    assert stats.compute_output == StatisticDuration(count=2, ns=2 * 30_000)
    assert stats.success == StatisticDuration(count=2, ns=(1150 + 850) * 1000)


def test_inferences_are_rows_executions_are_batches_and_batch_statistics_count_executions() -> None:
    found = folded(batch_ran(rows=4, arrived_us=(1, 2)), batch_ran(rows=4), batch_ran(rows=1))
    assert (found.inference_count, found.execution_count) == (9, 3)
    assert [(batch.batch_size, batch.compute_infer) for batch in found.batch_stats] == [
        (1, StatisticDuration(count=1, ns=700_000)),
        (4, StatisticDuration(count=2, ns=1_400_000)),
    ]


def test_what_was_refused_and_what_failed_are_failures() -> None:
    statistics = Statistics(unix_offset_us=0)
    statistics(RequestShed(model="mobilenet", version="1", tenant="a", reason=ShedReason.DEADLINE))
    statistics(RequestFailed(model="mobilenet", version="1", tenant="a", device="npu0", error="RunError"))
    assert statistics.of([VERSION])[0].inference_stats.fail == StatisticDuration(count=2, ns=0)


def test_the_last_inference_is_a_date() -> None:
    statistics = Statistics(unix_offset_us=1_700_000_000_000_000)
    statistics(batch_ran(arrived_us=(5_000, 9_000)))
    statistics(batch_ran(arrived_us=(9_500,)))
    assert statistics.of([VERSION])[0].last_inference == 1_700_000_000_009


def changed(event: str, state: str) -> VersionChanged:
    return VersionChanged(model="mobilenet", version="1", state=state, event=event, reason="", seconds=None, waiting=0)


LOADED = (changed("load", "LOADING"), changed("loaded", "READY"))
CLOSED = (changed("unload", "UNLOADING"), changed("closed", "UNAVAILABLE"))
REST = changed("rest", "COLD")


@pytest.mark.parametrize(
    ("life", "count"),
    [
        ((), 1),
        (CLOSED, 1),
        ((*CLOSED, *LOADED), 0),
        ((*CLOSED, REST, *LOADED), 1),
        ((*CLOSED, REST, changed("unload", "UNAVAILABLE"), *LOADED), 0),
        ((changed("loaded", "READY"),), 1),
        ((changed("failed", "READY"),), 1),
    ],
    ids=["lives", "unloaded", "loaded again", "rested", "unloaded at rest", "replaced", "not replaced"],
)
def test_only_a_version_that_was_unloaded_and_is_loaded_again_begins_anew(
    life: Sequence[VersionChanged], count: int
) -> None:
    statistics = Statistics(unix_offset_us=0)
    for event in (*LOADED, batch_ran(), *life):
        statistics(event)
    assert statistics.of([VERSION])[0].inference_count == count


def test_a_version_that_never_ran_has_zeros() -> None:
    assert Statistics(unix_offset_us=0).of([("new", "3")]) == (ModelStatistics(name="new", version="3"),)


def test_the_document_has_the_protocols_names() -> None:
    statistics = Statistics(unix_offset_us=0)
    statistics(batch_ran())
    model = json.loads(json.dumps(statistics.document(*VERSION)))
    assert set(model) >= {"name", "version", "last_inference", "inference_count", "execution_count", "batch_stats"}
    assert set(model["inference_stats"]) == {
        *("success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss")
    }
    assert model["batch_stats"][0]["compute_infer"] == {"count": 1, "ns": 700_000}


@given(st.lists(st.lists(st.integers(0, 10**9), min_size=1, max_size=5), min_size=1, max_size=1200))
def test_nothing_is_lost_however_many_batches_are_folded_at_once(arrivals: Sequence[Sequence[int]]) -> None:
    found = folded(*(batch_ran(arrived_us=moments) for moments in arrivals))
    total_ns = sum((max(moments) + 850 - moment) * 1000 for moments in arrivals for moment in moments)
    requests = sum(len(moments) for moments in arrivals)
    assert found.inference_stats.success == StatisticDuration(count=requests, ns=total_ns)
    assert sum(batch.compute_infer.count for batch in found.batch_stats) == len(arrivals)
