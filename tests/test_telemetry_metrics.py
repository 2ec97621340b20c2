"""What is counted of a server's facts, and what a scrape shows of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from npuops.events import Event, StepStarted
from npuops.runtime.facts import ColdCause, RequestFailed, RequestShed, ShedReason, WorkerStarted
from npuops.runtime.step_facts import StepProcessEnded, StepsRan
from npuops.runtime.version_facts import VersionChanged
from npuops.telemetry.exposition import expose
from npuops.telemetry.intake import PENDING, Intake
from npuops.telemetry.metrics import KEPT_S, MAX_TENANTS, Metrics
from npuops.telemetry.serving_snapshot import ServingSnapshot
from serving_facts import batch_ran
from serving_story import EVERY_FACT

WHERE = {"model": "mobilenet", "version": "1", "device": "npu0"}


class Scraped:
    """What a scraper reads after these facts."""

    def __init__(self, *facts: Event, now_us: int = 2_000_000, tenants: Sequence[str] = ()) -> None:
        metrics = Metrics(tenants)
        observe = Intake([metrics])
        for fact in facts:
            observe(fact)
        observe.flush()
        text = expose(metrics.take(now_us), ServingSnapshot()).body.decode()
        self.samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float | None:
        return self.samples.get((name, frozenset(labels.items())))

    def labels(self, name: str, label: str) -> set[str]:
        return {dict(labels)[label] for found, labels in self.samples if found == name}


def stage(scraped: Scraped, name: str, part: str, **labels: str) -> float | None:
    return scraped.value(f"npuops_request_stage_seconds_{part}", stage=name, **WHERE, **labels)


def test_a_request_has_its_own_time_in_the_queue_and_its_batchs_time_in_the_other_stages() -> None:
    scraped = Scraped(batch_ran(arrived_us=(1_000, 1_300), queue_us=100, dma_in_us=20, compute_us=700, dma_out_us=30))
    sums = {name: stage(scraped, name, "sum") for name in ("queue", "dma_in", "compute", "dma_out", "total")}
    assert {name: round(found * 1e6) for name, found in sums.items() if found is not None} == {
        "queue": 500,
        "dma_in": 40,
        "compute": 1400,
        "dma_out": 60,
        "total": 2000,
    }
    assert [stage(scraped, name, "count") for name in sums] == [2] * 5


def test_buckets_are_cumulative_and_their_ends_belong_to_them() -> None:
    times = (50, 51, 1_000, 20_000_000)
    scraped = Scraped(*(batch_ran(queue_us=0, dma_in_us=0, compute_us=us, dma_out_us=0) for us in times))
    ends = {"5e-05": 1, "0.0001": 2, "0.001": 3, "10.0": 3, "+Inf": 4}
    assert {end: stage(scraped, "total", "bucket", le=end) for end in ends} == ends


def test_outcomes_are_successes_failures_and_sheds() -> None:
    shed = RequestShed(model="mobilenet", version="1", tenant="a", reason=ShedReason.DEADLINE)
    failed = RequestFailed(**WHERE, tenant="a", error="RunError")
    scraped = Scraped(batch_ran(arrived_us=(1, 2, 3)), shed, shed, failed)
    version = {"model": "mobilenet", "version": "1"}
    assert {
        outcome: scraped.value("npuops_requests_total", **version, outcome=outcome)
        for outcome in ("success", "shed", "failure")
    } == {"success": 3, "shed": 2, "failure": 1}
    assert scraped.value("npuops_requests_shed_total", **version, reason="deadline") == 2
    assert scraped.value("npuops_request_failures_total", **WHERE, error="RunError") == 1
    assert scraped.value("npuops_tenant_requests_shed_total", tenant="a", reason="deadline") == 2
    assert scraped.value("npuops_tenant_requests_total", tenant="a", outcome="failure") == 1
    assert scraped.value("npuops_tenant_requests_total", tenant="default", outcome="success") == 3


def test_padding_and_fallback_are_counted_and_their_ratios_are_of_the_last_minute() -> None:
    old = batch_ran(arrived_us=(1_000_000,), rows=1, padded_rows=0, elements=10)
    new = [
        batch_ran(arrived_us=(100_000_000,), rows=3, padded_rows=5, elements=30, padded_elements=130),
        batch_ran(
            arrived_us=(100_000_000,) * 3, rows=3, padded_rows=5, elements=60, padded_elements=20, fell_back=True
        ),
    ]
    scraped = Scraped(old, *new, now_us=101_000_000)
    assert scraped.value("npuops_padded_rows_total", **WHERE) == 10
    assert scraped.value("npuops_input_elements_total", **WHERE) == 100
    assert scraped.value("npuops_padded_elements_total", **WHERE) == 150
    assert scraped.value("npuops_padding_ratio", **WHERE) == 150 / 240
    assert scraped.value("npuops_fallback_requests_total", **WHERE) == 3
    assert scraped.value("npuops_fallback_ratio", model="mobilenet", version="1") == 0.75
    assert scraped.value("npuops_batch_rows_sum", **WHERE) == 7
    quiet = Scraped(old, now_us=500_000_000)
    assert Scraped(batch_ran(device="chain")).value("npuops_padding_ratio", **{**WHERE, "device": "chain"}) is None
    assert quiet.value("npuops_padding_ratio", **WHERE) is None, "nothing ran in the last minute: unknown, not 0"


def test_series_without_padding_begin_at_nothing() -> None:
    scraped = Scraped(batch_ran(device="a"), batch_ran(device="b", padded_rows=2))
    padded = [scraped.value("npuops_padded_rows_total", **{**WHERE, "device": device}) for device in "ab"]
    assert padded == [0, 2]


def test_tenants_are_bounded_and_those_of_the_configuration_come_first() -> None:
    many = [batch_ran(tenants=(f"stranger-{number}",)) for number in range(80)]
    scraped = Scraped(*many, batch_ran(tenants=("camera",)), tenants=("camera",))
    names = scraped.labels("npuops_tenant_requests_total", "tenant")
    assert len(names) == MAX_TENANTS + 1
    assert {"camera", "other", "stranger-0"} <= names
    assert scraped.value("npuops_tenant_requests_total", tenant="other", outcome="success") == 80 - (MAX_TENANTS - 1)
    assert scraped.value("npuops_tenant_request_seconds_count", tenant="camera") == 1


def test_parts_of_requests_are_nobodys_and_count_for_their_model_alone() -> None:
    scraped = Scraped(
        batch_ran(arrived_us=(1_000_000, 1_000_000, 1_000_000), tenants=("", "t", "")),
        RequestFailed(model="mobilenet", version="1", tenant="", device="npu0", error="RunError"),
        RequestShed(model="mobilenet", version="1", tenant="", reason=ShedReason.DEADLINE),
    )
    outcomes = {
        outcome: scraped.value("npuops_requests_total", model="mobilenet", version="1", outcome=outcome)
        for outcome in ("success", "failure", "shed")
    }
    assert outcomes == {"success": 3, "failure": 1, "shed": 1}
    for name in ("requests_total", "request_seconds_count", "requests_shed_total"):
        assert scraped.labels(f"npuops_tenant_{name}", "tenant") <= {"t"}
    assert scraped.value("npuops_tenant_requests_total", tenant="t", outcome="success") == 1


def test_a_sentence_is_no_error_label_and_neither_is_one_class_too_many() -> None:
    sentence = RequestFailed(**WHERE, tenant="a", error="shape [1, 3] is wrong for request 17")
    classes = [RequestFailed(**WHERE, tenant="a", error=f"Error{number}") for number in range(80)]
    scraped = Scraped(sentence, *classes)
    assert len(scraped.labels("npuops_request_failures_total", "error")) <= 51
    assert (scraped.value("npuops_request_failures_total", **WHERE, error="other") or 0) >= 1


def test_cold_starts_are_told_with_their_phases_and_crashes_as_restarts() -> None:
    scraped = Scraped(*EVERY_FACT)
    where = {"model": "mobilenet", "version": "1", "device": "npu0"}
    assert scraped.value("npuops_cold_start_seconds_count", **where, cause="load") == 1
    assert scraped.value("npuops_cold_start_seconds_count", **where, cause="crash") == 1
    assert scraped.value("npuops_cold_start_phase_seconds_sum", **where, phase="open") == 0.5
    assert scraped.value("npuops_cold_start_waiting_requests_total", **where) == 3
    assert scraped.value("npuops_worker_restarts_total", **where) == 1
    assert scraped.value("npuops_worker_exits_total", **where, wanted="false") == 1
    assert scraped.value("npuops_replayed_batches_total", **where) == 2
    assert scraped.value("npuops_retried_requests_total", **where) == 4
    assert scraped.value("npuops_device_state_changes_total", **where, state="sick") == 1


def test_pictures_wait_and_are_prepared_in_a_time_that_no_device_spends() -> None:
    where = {"model": "mobilenet", "version": "1"}
    steps = StepsRan(**where, tenant="camera", requested_us=1_000, arrived_us=1_100, started_us=1_600, ended_us=4_600)
    scraped = Scraped(steps, steps, StepProcessEnded(pid=8, why="signal 11"))
    assert scraped.value("npuops_preprocessing_seconds_sum", **where, stage="queue") == 0.001
    assert scraped.value("npuops_preprocessing_seconds_sum", **where, stage="steps") == 0.006
    assert scraped.value("npuops_preprocessing_seconds_count", **where, stage="steps") == 2
    assert scraped.value("npuops_preprocessing_process_exits_total") == 1
    assert stage(scraped, "total", "count") is None


def changed(version: str, event: str) -> VersionChanged:
    state = "UNAVAILABLE" if event == "closed" else "LOADING"
    return VersionChanged(model="digits", version=version, state=state, event=event, reason="", seconds=None, waiting=0)


def test_a_version_that_is_gone_for_long_has_no_series_and_the_others_keep_theirs() -> None:
    metrics, later_us = Metrics(), KEPT_S * 1_000_000
    intake = Intake([metrics])

    def told(now_us: int) -> set[str]:
        metrics.sweep(now_us)
        text = expose(metrics.take(now_us), ServingSnapshot()).body.decode()
        return set(re.findall(r'version="(\w)"', text))

    for version in "123":
        intake(batch_ran(model="digits", version=version))
        intake(RequestFailed(model="digits", version=version, tenant="t", device="d", error="RunError"))
        intake(
            WorkerStarted(
                model="digits",
                version=version,
                device="d",
                cause=ColdCause.LOAD,
                seconds=0.1,
                phases={"open": 0.1},
                waiting=0,
                pid=1,
            )
        )
    intake.flush()
    intake(changed("1", "closed"))
    intake(changed("2", "closed"))
    assert told(0) == {"1", "2", "3"}
    intake(changed("2", "load"))
    assert told(later_us) == {"1", "2", "3"}
    assert told(later_us + 1) == {"2", "3"}
    intake(batch_ran(model="digits", version="1"))
    intake.flush()
    assert told(later_us + 2) == {"1", "2", "3"}


def test_a_fact_of_another_kind_is_nobodys_metric() -> None:
    names = {name for name, _ in Scraped(StepStarted(step="compile")).samples}
    assert {name for name in names if name.startswith("npuops_")} == {
        "npuops_build_info",
        "npuops_loaded_model_versions",
    }


@given(st.lists(st.integers(1, 6), min_size=1, max_size=PENDING + 40))
def test_no_request_is_lost_however_many_wait_to_be_folded(sizes: list[int]) -> None:
    scraped = Scraped(*(batch_ran(arrived_us=(1_000,) * size) for size in sizes))
    total: Any = stage(scraped, "total", "count")
    assert total == sum(sizes)
