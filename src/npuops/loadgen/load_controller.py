"""`npuops bench`: all stages, one after the other, over all load processes; or the search for the capacity."""

from __future__ import annotations

import asyncio
import math
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from npuops.errors import OptionError
from npuops.events import Observer, StepFinished, StepProgressed, StepStarted, Warned
from npuops.loadgen.answers import agreed
from npuops.loadgen.arrivals import ORDER_LENGTH, Arrivals, schedule, turns
from npuops.loadgen.capacity import Trial, highest, judge, next_rate
from npuops.loadgen.load_engine import StagePlan
from npuops.loadgen.load_worker import LocalWorker, ProcessWorker, Worker, WorkerAnswer, run_loop
from npuops.loadgen.outcomes import NO_SOCKET, TRANSPORT, Outcomes, merged
from npuops.loadgen.request_source import Requests, Tenant
from npuops.loadgen.results import CPU_SHARE, SCHEMA, BenchReport, Capacity, Fold, Load, StageResult, Usage, fold

_START_DELAY_S: Final = 0.05
"""Several processes that are ready begin at one instant, when all have heard of it."""
_FIRST_LANES: Final = 8
_LANE_SECONDS: Final = 0.02
"""An open loop begins with connections for answers that take so long, and opens more when they are all busy."""
DEFAULT_CONCURRENCY: Final = (1, 8, 32)
"""Where neither concurrency nor rate is given: alone, busy, and beyond."""
_LONGEST_S: Final = 1e6
_SECOND_SIGNAL_S: Final = 0.5
"""`timeout`, make and other wrappers pass a Ctrl-C on that the terminal has sent, too: that is not a second one."""
_LEAST_TIMED_S: Final = 0.01
"""A shorter run has no share of a core: its clock is too coarse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """How much load, how long, and what counts.

    Attributes:
        concurrency: one closed stage for each; `DEFAULT_CONCURRENCY` where no rate is given either.
        rates: one open stage for each, in requests a second.
        arrivals: of the open stages.
        duration_s: of a stage, after its warm-up.
        warmup_s: of each stage; what is due in it does not count.
        timeout_s: for each request.
        requests: a closed stage ends after so many, or None.
        find_capacity: search the highest rate that holds the SLO, instead of stages.
        slo_ms: goodput counts answers within it, and the capacity keeps p99 within it.
        connections: the most that an open stage opens.
        processes: that share the load.
        percentiles: report the whole table.
    """

    concurrency: tuple[int, ...] = ()
    rates: tuple[float, ...] = ()
    arrivals: Arrivals = Arrivals.POISSON
    duration_s: float = 5.0
    warmup_s: float = 1.0
    timeout_s: float = 10.0
    requests: int | None = None
    find_capacity: bool = False
    slo_ms: float | None = None
    connections: int = 512
    processes: int = 1
    seed: int = 0
    tenants: tuple[Tenant, ...] = ()
    percentiles: bool = False

    def __post_init__(self) -> None:
        positive = {
            "--duration": self.duration_s,
            "--timeout": self.timeout_s,
            "--slo": 1 if self.slo_ms is None else self.slo_ms,
            "--requests": 1 if self.requests is None else self.requests,
            "--processes": self.processes,
            "--connections": self.connections,
            **{f"--concurrency {value}": value for value in self.concurrency},
            **{f"--rate {value:g}": value for value in self.rates},
            **{f"--tenant {tenant.name}": tenant.weight for tenant in self.tenants},
        }
        for name, value in positive.items():
            if not 0 < value < math.inf:
                raise OptionError(f"{name} must be a positive number, not {value:g}")
        if not 0 <= self.warmup_s < math.inf:
            raise OptionError(f"--warmup must be 0 or more seconds, not {self.warmup_s:g}")
        if self.duration_s + self.warmup_s > _LONGEST_S:
            raise OptionError(f"a stage lasts at most {_LONGEST_S:g} s")
        if self.find_capacity and self.slo_ms is None:
            raise OptionError("--find-capacity needs a limit for p99", advice="for example --slo 20 (milliseconds)")
        if self.find_capacity and (self.concurrency or len(self.rates) > 1 or self.requests is not None):
            raise OptionError(
                "--find-capacity chooses the load by itself",
                advice="leave --concurrency and --requests out; one --rate says where to begin",
            )
        if self.requests is not None and self.rates:
            raise OptionError("--requests counts a closed loop; an open one has --rate and --duration")


def bench(requests: Requests, options: BenchOptions, observe: Observer) -> BenchReport:
    """Run it all. SIGINT and SIGTERM end the stage that runs; the report then says which.

    Raises:
        ServingError: a load process died.
        OptionError: more requests than can be scheduled.
    """
    report: BenchReport = run_loop(lambda: Controller(requests, options, observe).run())
    return report


class Controller:
    """One run of the bench, within one loop."""

    def __init__(self, requests: Requests, options: BenchOptions, observe: Observer) -> None:
        self._requests = requests
        self._options = options
        self._observe = observe
        self._workers: list[Worker] = []
        self._stages: list[StageResult] = []
        self._interrupted: str | None = None
        self._warnings = list(requests.warnings)

    async def run(self) -> BenchReport:
        """As `bench`."""
        options, capacity = self._options, None
        for warning in self._warnings:
            self._observe(Warned(step="inputs", message=warning))
        async with StopSignals(self._stop):
            self._workers = (
                [LocalWorker(self._requests)]
                if options.processes == 1
                else [ProcessWorker(self._requests) for _ in range(options.processes)]
            )
            try:
                await asyncio.gather(*(worker.ready() for worker in self._workers))
                if options.find_capacity:
                    capacity = await self._search()
                else:
                    for load in self._loads():
                        await self._stage(load)
                        if self._interrupted or self._stages[-1].ended_early:
                            break
            finally:
                await asyncio.gather(*(worker.close() for worker in self._workers))
        return self._report(capacity)

    def _stop(self, by: signal.Signals) -> None:
        self._interrupted = by.name
        for worker in self._workers:
            worker.stop()

    def _loads(self) -> list[Load]:
        options = self._options
        closed = options.concurrency or (() if options.rates else DEFAULT_CONCURRENCY)
        return [Load(kind="closed", concurrency=lanes) for lanes in closed] + [
            self._open_load(rate) for rate in options.rates
        ]

    def _open_load(self, rate: float) -> Load:
        return Load(kind="open", rate=rate, arrivals=self._options.arrivals.value)

    async def _search(self) -> Capacity:
        """Begin at half of what one client gets by asking again and again, unless a rate is given."""
        slo_ms = self._options.slo_ms or 0.0
        start = self._options.rates[0] if self._options.rates else None
        if start is None:
            alone = await self._stage(Load(kind="closed", concurrency=1))
            start = max(alone.throughput / 2, 1.0)
        trials: list[Trial] = []
        while not self._interrupted and (rate := next_rate(trials, start)) is not None:
            load = self._open_load(float(f"{rate:.3g}"))
            why = judge(await self._stage(load), slo_ms)
            if why and not self._interrupted and not self._stages[-1].ended_early:
                # Once more: on a shared machine one pause of somebody else must not end the search.
                why = judge(await self._stage(load), slo_ms)
            if not self._interrupted:
                trials.append(Trial(rate=load.rate or rate, why=why))
            if self._stages[-1].ended_early:
                break
        rate, limit = highest(trials)
        return Capacity(rate=rate, slo_ms=slo_ms, limit="interrupted" if self._interrupted else limit)

    async def _stage(self, load: Load) -> StageResult:
        began_s = time.perf_counter()
        self._observe(StepStarted(step="load", detail=load.words))
        plans = self._plans(load)
        ticker = asyncio.create_task(self._tick(load))
        try:
            workers = self._workers[: len(plans)]
            await asyncio.gather(*(worker.open(plan) for worker, plan in zip(workers, plans, strict=True)))
            start_s = time.perf_counter() + _START_DELAY_S if len(workers) > 1 else 0.0
            answers = await asyncio.gather(*(worker.run(start_s) for worker in workers))
        finally:
            ticker.cancel()
        result = self._folded(load, answers)
        self._stages.append(result)
        seconds = time.perf_counter() - began_s
        self._observe(StepFinished(step="load", seconds=seconds, detail=f"{load.words}: {_words(result)}"))
        if not result.client.keeps_up:
            message = f"at {load.words} the client itself was too slow: the latencies are partly its own"
            starved = result.client.cpu_share is not None and result.client.cpu_share < CPU_SHARE
            advice = "run it on a machine of its own" if starved else "give it more --processes"
            self._warn(message, advice)
        if TRANSPORT[NO_SOCKET] in result.transport:
            message = f"at {load.words} this machine had no descriptor or port left: those requests were never sent"
            self._warn(message, "raise `ulimit -n`, or ask for fewer connections")
        if result.ended_early:
            self._warn(f"{load.words} ended early: {result.ended_early}", "")
        return result

    def _warn(self, message: str, advice: str) -> None:
        self._warnings.append(message)
        self._observe(Warned(step="load", message=message, advice=advice))

    async def _tick(self, load: Load) -> None:
        counted = self._options.requests is not None  # how long it takes is what it finds out
        total = 0 if counted else math.ceil(self._options.warmup_s + self._options.duration_s)
        done = 0
        while True:
            self._observe(
                StepProgressed(
                    step="load", done=done if counted else min(done, total), total=total, detail=f"s  {load.words}"
                )
            )
            await asyncio.sleep(1)
            done += 1

    def _plans(self, load: Load) -> list[StagePlan]:
        """The load in equal parts, one for each process; together they are exactly the load."""
        options, requests = self._options, self._requests
        end_s = options.warmup_s + options.duration_s
        weights = [tenant.weight for tenant in options.tenants] or [1.0]
        processes = options.processes if load.concurrency is None else min(options.processes, load.concurrency)
        common = StagePlan(
            lanes=0,
            most_lanes=max(options.connections // processes, 1),
            due_s=None,
            kinds=turns(weights, requests.inputs, ORDER_LENGTH, options.seed),
            end_s=end_s if options.requests is None else _LONGEST_S,
            begin_s=options.warmup_s,
            most_requests=None,
            timeout_s=options.timeout_s,
        )
        if load.kind == "open":
            due_s = schedule(load.rate or 0.0, end_s, options.arrivals, options.seed)
            kinds = turns(weights, requests.inputs, len(due_s), options.seed)
            wanted = math.ceil((load.rate or 0.0) / processes * _LANE_SECONDS)
            lanes = min(max(wanted, _FIRST_LANES), common.most_lanes)
            return [
                replace(common, lanes=lanes, due_s=due_s[place::processes], kinds=kinds[place::processes])
                for place in range(processes)
            ]
        return [
            replace(
                common,
                lanes=lanes,
                kinds=turns(weights, requests.inputs, ORDER_LENGTH, options.seed + place),
                most_requests=None if options.requests is None else _share(options.requests, processes, place),
            )
            for place in range(processes)
            if (lanes := _share(load.concurrency or 1, processes, place))
        ]

    def _folded(self, load: Load, answers: Sequence[WorkerAnswer]) -> StageResult:
        options = self._options
        records = [answer.record for answer in answers]
        agreements = [answer.agreement for answer in answers if answer.agreement is not None]
        outcomes = merged([record.outcomes for record in records])
        http = self._requests.form != "grpc"
        timed = [record for record in records if record.wall_s > _LEAST_TIMED_S]
        return fold(
            load,
            outcomes,
            Fold(
                begin_s=options.warmup_s,
                end_s=self._window_end(outcomes, max(record.stopped_s for record in records)),
                inputs=self._requests.inputs,
                tenants=tuple(tenant.name for tenant in options.tenants),
                weights=tuple(tenant.weight for tenant in options.tenants),
                slo_s=None if options.slo_ms is None else options.slo_ms / 1e3,
                percentiles=options.percentiles,
            ),
            Usage(
                cpu_s=sum(record.spent.cpu_s for record in records),
                cpu_share=max((r.spent.cpu_s / r.wall_s for r in timed), default=None),
                cpu_wait_share=max((w / r.wall_s for r in timed if (w := r.spent.waited_s) is not None), default=None),
                reconnects=sum(record.reconnects for record in records),
                received_bytes=sum(record.received_bytes for record in records) if http else None,
                waited=sum(record.waited for record in records),
            ),
            unanswered=sum(record.unanswered for record in records),
            agreement=agreed(agreements) if agreements else None,
            ended_early=next((record.ended_early for record in records if record.ended_early), ""),
        )

    def _window_end(self, outcomes: Outcomes, stopped_s: float) -> float:
        """A counted stage lasts until its last answer, which must lie inside."""
        if self._options.requests is None or not len(outcomes):
            return max(stopped_s, self._options.warmup_s)
        return float((outcomes.started_s + outcomes.latency_s).max()) + 1e-9

    def _report(self, capacity: Capacity | None) -> BenchReport:
        requests, options = self._requests, self._options
        return BenchReport(
            schema=SCHEMA,
            url=requests.endpoint.url,
            model=requests.model,
            version=requests.endpoint.version,
            format=requests.form,
            request_bytes=requests.request_bytes,
            inputs=requests.tensors,
            distinct_inputs=requests.inputs,
            seed=options.seed,
            processes=options.processes,
            timeout_s=options.timeout_s,
            warmup_s=options.warmup_s,
            slo_ms=options.slo_ms,
            stages=tuple(self._stages),
            capacity=capacity,
            interrupted=self._interrupted,
            warnings=tuple(self._warnings),
        )


class StopSignals:
    """The first Ctrl-C (or SIGTERM) ends the stage; one that comes later ends the program as always.

    What comes right after the first is the same wish, passed on by a wrapper. The stage may be over by then: leaving
    waits until no such signal can come any more, or it would end the program before its report is out.
    """

    def __init__(self, stop: Callable[[signal.Signals], None]) -> None:
        self._stop = stop
        self._loop = asyncio.get_running_loop()
        self._before: dict[signal.Signals, object] = {}
        self._heeded_again: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.getsignal(number)
            self._loop.add_signal_handler(number, self._first, number)

    async def __aexit__(self, *_: object) -> None:
        if self._heeded_again is not None:
            await asyncio.sleep(self._heeded_again.when() - self._loop.time())
        self._restore()

    def _first(self, number: signal.Signals) -> None:
        if self._heeded_again is None:
            self._heeded_again = self._loop.call_later(_SECOND_SIGNAL_S, self._restore)
            self._stop(number)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            self._loop.remove_signal_handler(number)
            signal.signal(number, handler)  # type: ignore[arg-type] # as getsignal gave it
        self._before = {}


def _share(total: int, parts: int, place: int) -> int:
    return total // parts + (place < total % parts)


def _words(result: StageResult) -> str:
    latency = result.latency
    if latency is None:
        return "no good answer"
    typical = latency.mean_ms if latency.p50_ms is None else latency.p50_ms
    worst = f"p99 {latency.p99_ms:.3g}" if latency.p99_ms is not None else f"max {latency.max_ms:.3g}"
    return f"{result.throughput:,.1f}/s, p50 {typical:.3g} ms, {worst} ms"
