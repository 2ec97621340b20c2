"""The one observer of telemetry: frequent facts wait and are handed on in bulk, rare ones go on at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from npuops.events import Event
from npuops.runtime.facts import DeviceChanged, RequestShed, ShedReason
from npuops.telemetry.batch_table import BatchTable
from npuops.telemetry.intake import PENDING, Intake, ShedKey
from serving_facts import batch_ran

SHED = RequestShed(model="mobilenet", version="1", tenant="a", reason=ShedReason.QUOTA)


class Kept:
    """A folder that keeps what it gets."""

    def __init__(self) -> None:
        self.tables: list[BatchTable] = []
        self.sheds: list[Mapping[ShedKey, int]] = []
        self.events: list[Event] = []

    def fold_batches(self, table: BatchTable) -> None:
        self.tables.append(table)

    def fold_sheds(self, sheds: Mapping[ShedKey, int]) -> None:
        self.sheds.append(sheds)

    def note(self, event: Event) -> None:
        self.events.append(event)


def test_batches_wait_until_there_are_many_or_somebody_flushes() -> None:
    kept = Kept()
    observe = Intake([kept])
    for _ in range(PENDING + 3):
        observe(batch_ran())
    assert [len(table.series) for table in kept.tables] == [PENDING]
    observe.flush()
    assert [len(table.series) for table in kept.tables] == [PENDING, 3]
    observe.flush()
    assert len(kept.tables) == 2


def test_sheds_are_handed_on_as_counts_and_rare_facts_at_once_to_every_folder() -> None:
    first, second = Kept(), Kept()
    observe = Intake([first, second])
    rare = DeviceChanged(model="mobilenet", version="1", device="npu0", state="ready", why="")
    for _ in range(PENDING - 1):
        observe(SHED)
    observe(rare)
    assert (first.sheds, first.events) == ([], [rare])
    observe(SHED)
    assert first.sheds == second.sheds == [{("mobilenet", "1", "a", "quota"): PENDING}]
    assert second.events == [rare]


def test_a_series_keeps_its_number_over_all_tables() -> None:
    kept = Kept()
    observe = Intake([kept])
    for device in ("npu0", "cpu", "npu0"):
        observe(batch_ran(device=device, arrived_us=(1, 2)))
    observe.flush()
    observe(batch_ran(device="cpu"))
    observe.flush()
    first, second = kept.tables
    assert first.series.tolist() == [0, 1, 0]
    assert first.owner.tolist() == [0, 0, 1, 1, 2, 2]
    assert second.series.tolist() == [1]
    assert list(second.names) == [("mobilenet", "1", "npu0"), ("mobilenet", "1", "cpu")]


def test_a_batch_whose_requests_were_all_cancelled_is_a_batch_without_requests() -> None:
    kept = Kept()
    observe = Intake([kept])
    observe(batch_ran(arrived_us=(5,), rows=1))
    observe(replace(batch_ran(), arrived_us=(), tenants=()))
    observe.flush()
    assert kept.tables[0].requests.tolist() == [1, 0]
    assert kept.tables[0].queue_us.tolist() == [100]
