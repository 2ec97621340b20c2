"""What the load generator took of the processors."""

from __future__ import annotations

from npuops.loadgen.processor_time import ProcessorTime, processor_time


def test_time_between_two_readings_is_what_came_to_it() -> None:
    before, after = ProcessorTime(cpu_s=1.0, waited_s=2.0), ProcessorTime(cpu_s=1.5, waited_s=2.25)
    assert after.since(before) == ProcessorTime(cpu_s=0.5, waited_s=0.25)


def test_what_the_kernel_does_not_count_is_absent_and_not_zero() -> None:
    before, after = ProcessorTime(cpu_s=1.0, waited_s=None), ProcessorTime(cpu_s=1.5, waited_s=2.0)
    assert after.since(before).waited_s is None


def test_work_takes_processor_time() -> None:
    before = processor_time()
    assert sum(range(2_000_000)) > 0
    spent = processor_time().since(before)
    assert spent.cpu_s > 0
    assert spent.waited_s is None or spent.waited_s >= 0
