"""From raw outcomes to the report of `npuops bench`, whose JSON is a contract (docs/bench.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from npuops.loadgen.outcomes import Outcomes, code_words
from npuops.loadgen.percentiles import LatencySummary, PercentileRow, percentile_table, summary

SCHEMA: Final = "npuops.bench/1"
LAG_SHARE: Final = 0.1
"""The client counts as too slow when its own lag at p99 is more than this share of the p99 that it reports …"""
LAG_FLOOR_MS: Final = 1.0
"""… and more than this: below, it is the operating system's wake-up."""
CPU_SHARE: Final = 0.9
"""… or when it used more of a core than this, or waited for one: then latencies hold its own work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one stage puts on the server: so many requests in flight, or so many in a second."""

    kind: Literal["closed", "open"]
    concurrency: int | None = None
    rate: float | None = None
    arrivals: str | None = None

    @property
    def words(self) -> str:
        """`concurrency 8` or `400 req/s`."""
        return f"concurrency {self.concurrency}" if self.kind == "closed" else f"{self.rate:g} req/s"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCost:
    """What the load generator itself used in the stage, its warm-up included.

    Attributes:
        cpu_s: processor seconds of all its processes.
        cpu_share: of one core for each process, in the busiest one; None where it was not measured.
        cpu_wait_share: of the time, in which it was ready to work and got no processor; None where nobody counts it.
        lag_p50_ms: the client came to its requests so much later than scheduled; None in a closed loop.
        keeps_up: False where the figures are the client's as much as the server's.
        reconnects: connections that were opened again.
        received_bytes: headers included; None for gRPC.
        waited: requests that were due while every connection was busy; an open loop's latency includes that.
    """

    cpu_s: float
    cpu_share: float | None
    cpu_wait_share: float | None
    lag_p50_ms: float | None
    lag_p99_ms: float | None
    lag_max_ms: float | None
    keeps_up: bool
    reconnects: int
    received_bytes: int | None
    waited: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Of all client processes in one stage, before it is judged."""

    cpu_s: float
    cpu_share: float | None
    reconnects: int
    received_bytes: int | None
    waited: int = 0
    cpu_wait_share: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Answers compared with the first one for the same input.

    Attributes:
        compared: answers.
        differing: of them, beyond the tolerance.
        largest_difference: of one number, in any of them; None where none could be told.
        first_difference: what differed first, in words.
    """

    compared: int
    differing: int
    largest_difference: float | None
    first_difference: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantResult:
    """One tenant's part of a stage."""

    name: str
    weight: float
    requests: int
    ok: int
    shed: int
    failed: int
    throughput: float
    goodput: float
    latency: LatencySummary | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StageResult:
    """One stage.

    Attributes:
        window_s: seconds that count: after the warm-up, until the last request was due.
        requests: that were due in the window.
        ok: of them, answered with tensors. `shed` (429, 503, 504), `errors` (other statuses) and `transport` (no
            answer) count the rest, by their word.
        throughput: good answers in a second of the window.
        goodput: those of them within the SLO; without one, the same.
        latency: of good answers.
        shed_latency: of refusals.
        unanswered: in flight when the stage was cut off (Ctrl-C, or the server was gone); counted nowhere else.
        ended_early: why, or empty.
    """

    load: Load
    window_s: float
    requests: int
    ok: int
    shed: dict[str, int]
    errors: dict[str, int]
    transport: dict[str, int]
    throughput: float
    goodput: float
    latency: LatencySummary | None
    shed_latency: LatencySummary | None
    client: ClientCost
    tenants: tuple[TenantResult, ...] = ()
    agreement: Agreement | None = None
    percentiles: tuple[PercentileRow, ...] = ()
    unanswered: int = 0
    ended_early: str = ""

    @property
    def failed(self) -> int:
        """Requests that ended in an error or without an answer; what was shed does not count."""
        return sum(self.errors.values()) + sum(self.transport.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """The highest rate that held.

    Attributes:
        rate: requests in a second; None where not even the lowest trial held.
        limit: what gave way above it.
    """

    rate: float | None
    slo_ms: float
    limit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorForm:
    """An input as it was sent."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchReport:
    """The whole run.

    Attributes:
        format: `binary`, `json`, `grpc` or `body`.
        interrupted: `SIGINT` or `SIGTERM`, where one ended it.
    """

    schema: str
    url: str
    model: str
    version: str
    format: str
    request_bytes: int
    inputs: tuple[TensorForm, ...]
    distinct_inputs: int
    seed: int
    processes: int
    timeout_s: float
    warmup_s: float
    slo_ms: float | None
    stages: tuple[StageResult, ...]
    capacity: Capacity | None
    interrupted: str | None
    warnings: tuple[str, ...]

    @property
    def good(self) -> bool:
        """Each stage ran to its end and got good answers, none differs, and a capacity was found where wanted."""
        differing = any(stage.agreement is not None and stage.agreement.differing for stage in self.stages)
        # The search ends in a rate that does not hold: there a stage without a good answer is no failure.
        answered = (
            all(stage.ok and not stage.ended_early for stage in self.stages)
            if self.capacity is None
            else self.capacity.rate is not None
        )
        return answered and not differing


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """How outcomes become a result.

    Attributes:
        begin_s: the window begins, in seconds since the stage began …
        end_s: … and ends.
        tenants: names; empty where there are none.
        weights: of them.
        inputs: distinct inputs, so that a kind tells its tenant.
        slo_s: None for no SLO.
        percentiles: add the whole table.
    """

    begin_s: float
    end_s: float
    inputs: int
    tenants: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    slo_s: float | None = None
    percentiles: bool = False


def fold(
    load: Load,
    outcomes: Outcomes,
    how: Fold,
    usage: Usage,
    *,
    agreement: Agreement | None = None,
    unanswered: int = 0,
    ended_early: str = "",
) -> StageResult:
    """Count and summarise what was due in the window.

    Throughput counts the good answers that *ended* in it, whenever they were due: long requests at both edges then
    cancel out, where counting by the beginning would need a longer window.
    """
    due = outcomes.where((outcomes.started_s >= how.begin_s) & (outcomes.started_s < how.end_s))
    throughput, goodput = _rates(outcomes, how)
    latency = summary(due.latency_s[due.ok])
    shed = due.shed
    return StageResult(
        load=load,
        window_s=how.end_s - how.begin_s,
        requests=len(due),
        ok=int(due.ok.sum()),
        shed=_by_word(due.where(shed)),
        errors=_by_word(due.where(~due.ok & ~shed & (due.code > 0))),
        transport=_by_word(due.where(due.code < 0)),
        throughput=throughput,
        goodput=goodput,
        latency=latency,
        shed_latency=summary(due.latency_s[shed]),
        client=_cost(load, due, usage, latency),
        tenants=tuple(_tenants(outcomes, due, how)),
        agreement=agreement,
        percentiles=percentile_table(due.latency_s[due.ok]) if how.percentiles else (),
        unanswered=unanswered,
        ended_early=ended_early,
    )


def _rates(outcomes: Outcomes, how: Fold) -> tuple[float, float]:
    seconds = how.end_s - how.begin_s
    if seconds <= 0:
        return 0.0, 0.0
    ended_s = outcomes.started_s + outcomes.latency_s
    answered = outcomes.ok & (ended_s >= how.begin_s) & (ended_s < how.end_s)
    good = answered if how.slo_s is None else answered & (outcomes.latency_s <= how.slo_s)
    return float(answered.sum()) / seconds, float(good.sum()) / seconds


def _by_word(outcomes: Outcomes) -> dict[str, int]:
    codes, counts = np.unique(outcomes.code, return_counts=True)
    return {code_words(int(code)): int(count) for code, count in zip(codes, counts, strict=True)}


def _cost(load: Load, due: Outcomes, usage: Usage, latency: LatencySummary | None) -> ClientCost:
    lag = summary(due.lag_s) if load.kind == "open" else None
    reported_ms = 0.0 if latency is None else latency.tail_ms
    # Of fewer than 100 requests the median must do: one pause of the machine is not the client's pace.
    typical_ms = None if lag is None else lag.p50_ms if lag.p99_ms is None else lag.p99_ms
    late = typical_ms is not None and typical_ms > max(LAG_FLOOR_MS, LAG_SHARE * reported_ms)
    busy = (usage.cpu_share or 0.0) + (usage.cpu_wait_share or 0.0) > CPU_SHARE
    return ClientCost(
        cpu_s=usage.cpu_s,
        cpu_share=usage.cpu_share,
        cpu_wait_share=usage.cpu_wait_share,
        lag_p50_ms=None if lag is None else lag.p50_ms,
        lag_p99_ms=None if lag is None else lag.p99_ms,
        lag_max_ms=None if lag is None else lag.max_ms,
        keeps_up=not late and not busy,
        reconnects=usage.reconnects,
        received_bytes=usage.received_bytes,
        waited=usage.waited,
    )


def _tenants(outcomes: Outcomes, due: Outcomes, how: Fold) -> Sequence[TenantResult]:
    found = []
    for number, (name, weight) in enumerate(zip(how.tenants, how.weights, strict=True)):
        mine = due.where(due.kind // how.inputs == number)
        throughput, goodput = _rates(outcomes.where(outcomes.kind // how.inputs == number), how)
        ok, shed = int(mine.ok.sum()), int(mine.shed.sum())
        found.append(
            TenantResult(
                name=name,
                weight=weight,
                requests=len(mine),
                ok=ok,
                shed=shed,
                failed=len(mine) - ok - shed,
                throughput=throughput,
                goodput=goodput,
                latency=summary(mine.latency_s[mine.ok]),
            )
        )
    return found
