"""Closed and open loops, over lanes that a test answers by itself."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from npuops.loadgen.http_client import HttpLane
from npuops.loadgen.load_engine import StagePlan, StageRecord, StageRun, stage_run
from npuops.loadgen.load_worker import run_loop
from npuops.loadgen.outcomes import LOST, TIMED_OUT, UNSENT


class Server:
    """Answers after a delay that a function of the request's number gives; None for never."""

    def __init__(self, answer: Callable[[int], tuple[float, int] | None]) -> None:
        self.answer = answer
        self.sent = 0
        self.at_once = self.most_at_once = 0


class FakeLane:
    """A lane without a wire: what a transport would do is the test's to say."""

    def __init__(self, server: Server, settled: Callable[[Any, int], None]) -> None:
        self._server, self._settled = server, settled
        self._handle: asyncio.TimerHandle | None = None
        self.kind, self.started_s, self.lag_s, self.busy = 0, 0.0, 0.0, False
        self.reconnects = self.received_bytes = 0
        self.is_open = True

    async def open(self) -> None:
        pass

    def send(self, kind: int) -> None:
        self.kind, self.busy = kind, True
        server = self._server
        server.sent += 1
        server.at_once += 1
        server.most_at_once = max(server.most_at_once, server.at_once)
        answer = server.answer(server.sent)
        if answer is not None:
            self._handle = asyncio.get_running_loop().call_later(answer[0], self._end, answer[1])

    def _end(self, code: int) -> None:
        self.busy = False
        self._server.at_once -= 1
        self._settled(self, code)

    def fail(self, code: int) -> None:
        self.close()
        self._end(code)

    def close(self) -> None:
        if self._handle is not None:
            self._handle.cancel()


def plan(**changes: Any) -> StagePlan:
    usual: dict[str, Any] = {
        "lanes": 2,
        "most_lanes": 4,
        "due_s": None,
        "kinds": np.arange(3, dtype=np.int32),
        "end_s": 0.2,
        "begin_s": 0.0,
        "most_requests": None,
        "timeout_s": 5.0,
    }
    return StagePlan(**{**usual, **changes})


def run(chosen: StagePlan, server: Server, made: Callable[[StageRun], None] = lambda _: None) -> StageRecord:
    async def main() -> StageRecord:
        stage = stage_run(chosen, lambda settled: FakeLane(server, settled))
        made(stage)
        return await asyncio.wait_for(stage.run(), 20)

    return run_loop(main)  # type: ignore[no-any-return]


def test_a_closed_loop_has_as_many_requests_in_flight_as_lanes_and_takes_turns() -> None:
    server = Server(lambda _: (0.002, 200))
    record = run(plan(lanes=3, most_requests=30, end_s=60.0), server)
    assert (server.sent, server.most_at_once, len(record.outcomes)) == (30, 3, 30)
    assert np.bincount(record.outcomes.kind).tolist() == [10, 10, 10]
    assert record.outcomes.ok.all()


def test_a_closed_loop_ends_with_its_time_and_waits_for_what_is_in_flight() -> None:
    record = run(plan(end_s=0.1), Server(lambda _: (0.03, 200)))
    assert record.stopped_s == pytest.approx(0.1)
    assert (record.outcomes.started_s <= 0.1).all()
    assert record.wall_s >= float((record.outcomes.started_s + record.outcomes.latency_s).max())


def test_an_open_loop_sends_on_schedule_however_slow_the_server_is() -> None:
    due_s = np.linspace(0, 0.09, 10)
    server = Server(lambda _: (0.3, 200))
    record = run(plan(lanes=1, most_lanes=10, due_s=due_s, kinds=np.zeros(10, np.int32)), server)
    assert server.most_at_once == 10
    assert np.sort(record.outcomes.started_s) == pytest.approx(due_s, abs=1e-9)
    assert (record.outcomes.lag_s >= 0).all()


def test_latency_counts_from_the_schedule_also_while_no_lane_is_free() -> None:
    due_s = np.zeros(5)
    record = run(plan(lanes=1, most_lanes=1, due_s=due_s, kinds=np.zeros(5, np.int32)), Server(lambda _: (0.05, 200)))
    # 0.045: an event loop's own timers count in milliseconds
    assert (np.sort(record.outcomes.latency_s) >= np.arange(1, 6) * 0.045).all()
    assert record.waited == 4
    assert record.outcomes.lag_s.max() < 0.15, "the wait for a lane is the server's, not the client's"


def test_a_request_without_an_answer_times_out_and_so_do_those_that_wait_behind_it() -> None:
    record = run(
        plan(lanes=1, most_lanes=1, due_s=np.zeros(3), kinds=np.zeros(3, np.int32), timeout_s=0.1),
        Server(lambda _: None),
    )
    assert record.outcomes.code.tolist() == [TIMED_OUT] * 3


def test_a_closed_loop_does_not_storm_a_server_that_is_down() -> None:
    server = Server(lambda _: (0.0, LOST))
    record = run(plan(lanes=1, end_s=0.3), server)
    assert 2 <= len(record.outcomes) <= 10, "10, 20, 40, … ms apart"


def test_a_stop_keeps_what_was_measured() -> None:
    stages: list[StageRun] = []

    def answer(number: int) -> tuple[float, int]:
        if number == 20:
            asyncio.get_running_loop().call_soon(stages[0].stop)
        return 0.001, 200

    record = run(plan(end_s=60.0), Server(answer), stages.append)
    assert record.stopped_s < 20
    assert 10 < len(record.outcomes) < 25


def test_a_stop_before_the_beginning_measures_nothing() -> None:
    record = run(plan(end_s=60.0), Server(lambda _: (0.001, 200)), lambda stage: stage.stop())
    assert (record.stopped_s, len(record.outcomes)) == (0, 0)


def test_an_empty_schedule_ends() -> None:
    assert len(run(plan(due_s=np.empty(0), kinds=np.empty(0, np.int32)), Server(lambda _: None)).outcomes) == 0


@pytest.mark.slow
def test_one_process_reaches_a_server_that_answers_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    script = Path(__file__).with_name("instant_server.py")
    process = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    assert process.stdout is not None
    port = int(process.stdout.readline())
    body = bytes(3200)
    request = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    async def main() -> StageRecord:
        loop = asyncio.get_running_loop()
        chosen = plan(lanes=32, end_s=2.0, kinds=np.zeros(1, np.int32))
        make = lambda settled: HttpLane(loop, ("127.0.0.1", port), None, [request], settled)  # noqa: E731
        return await stage_run(chosen, make).run()

    try:
        record = run_loop(main)
    finally:
        process.kill()
        process.communicate()
    assert record.outcomes.ok.all()
    each_us = 1e6 * record.spent.cpu_s / len(record.outcomes)
    with capsys.disabled():
        print(f"\n{len(record.outcomes) / record.wall_s:,.0f} requests/s, {each_us:.1f} us of CPU each")  # noqa: T201


def test_a_stage_ends_when_there_has_been_no_connection_for_long() -> None:
    class Gone(FakeLane):
        def __init__(self, settled: Callable[[Any, int], None]) -> None:
            super().__init__(Server(lambda _: (0.0, LOST)), settled)
            self.is_open = False

    async def main() -> StageRecord:
        return await asyncio.wait_for(stage_run(plan(end_s=60.0, timeout_s=0.2, dead_s=0.2), Gone).run(), 20)

    record = run_loop(main)
    assert "the server is gone" in record.ended_early
    assert record.stopped_s < 20


def test_lanes_that_never_connect_hold_a_stage_up_no_longer_than_a_request_may_take() -> None:
    class Silent(FakeLane):
        def __init__(self, settled: Callable[[Any, int], None]) -> None:
            super().__init__(Server(lambda _: None), settled)
            self.is_open = False

        async def open(self) -> None:
            await asyncio.get_running_loop().create_future()

    async def main(*, stopped: bool) -> StageRecord:
        stage = stage_run(plan(lanes=100, end_s=0.05, timeout_s=60.0 if stopped else 0.1), Silent)
        if stopped:
            asyncio.get_running_loop().call_soon(stage.stop)
        return await asyncio.wait_for(stage.run(), 20)

    assert run_loop(lambda: main(stopped=False)).outcomes.code.tolist() == [TIMED_OUT] * 100
    assert len(run_loop(lambda: main(stopped=True)).outcomes) == 0


def test_an_open_loop_that_is_behind_still_looks_for_answers_and_for_its_end() -> None:
    stages: list[StageRun] = []

    def answer(number: int) -> tuple[float, int]:
        if number == 1:
            asyncio.get_running_loop().call_soon(stages[0].stop)
        return 0.0, 200

    due_s = np.zeros(10_000)
    record = run(
        plan(lanes=1, most_lanes=1, due_s=due_s, kinds=np.zeros(10_000, np.int32)), Server(answer), stages.append
    )
    assert record.waited < 1000, "not all that is due was looked at before the first turn of the loop"
    assert record.unanswered == 10_000 - len(record.outcomes) > 9000


def test_a_request_whose_time_was_over_before_the_client_came_to_it_is_not_sent_and_is_the_clients() -> None:
    server = Server(lambda _: (0.0, 200))

    async def main() -> StageRecord:
        chosen = plan(due_s=np.array([0.0, 0.1, 60.0]), kinds=np.zeros(3, np.int32), timeout_s=5.0)
        stage = stage_run(chosen, lambda settled: FakeLane(server, settled))
        return await asyncio.wait_for(stage.run(time.perf_counter() - 60), 20)

    record = run_loop(main)
    assert sorted(record.outcomes.code.tolist()) == [UNSENT, UNSENT, 200]
    assert server.sent == 1


def test_a_stop_tells_how_many_requests_it_cut_off() -> None:
    stages: list[StageRun] = []

    def answer(number: int) -> tuple[float, int] | None:
        if number == 3:
            asyncio.get_running_loop().call_soon(stages[0].stop)
        return None

    assert run(plan(lanes=3, end_s=60.0), Server(answer), stages.append).unanswered == 3


class Closing(FakeLane):
    """Its server closes each connection after its answer: no connection is ever seen open."""

    def __init__(self, server: Server, settled: Callable[[Any, int], None]) -> None:
        super().__init__(server, settled)
        self.is_open = False


def test_a_server_that_closes_after_each_answer_is_not_gone_nor_is_one_of_which_nothing_was_asked() -> None:
    async def main(chosen: StagePlan) -> StageRecord:
        server = Server(lambda _: (0.01, 200))
        return await asyncio.wait_for(stage_run(chosen, lambda settled: Closing(server, settled)).run(), 20)

    busy = run_loop(lambda: main(plan(lanes=1, end_s=0.8, timeout_s=0.2, dead_s=0.1)))
    idle_plan = plan(due_s=np.array([0.0, 0.8]), kinds=np.zeros(2, np.int32), timeout_s=0.2, dead_s=0.1)
    idle = run_loop(lambda: main(idle_plan))
    assert (busy.ended_early, idle.ended_early) == ("", "")
    assert idle.outcomes.ok.all()


def test_a_lane_that_failed_thousands_of_times_tries_again_all_the_same() -> None:
    stages: list[Any] = []

    def answer(number: int) -> tuple[float, int]:
        if number == 2:
            stages[0]._failures = dict.fromkeys(stages[0]._failures, 5000)
        return 0.0, LOST if number < 3 else 200

    record = run(plan(lanes=1, end_s=60.0, most_requests=3), Server(answer), stages.append)
    assert record.outcomes.code.tolist() == [LOST, LOST, 200]


def test_processor_time_counts_from_the_beginning_of_the_stage() -> None:
    record = run(plan(end_s=0.05), Server(lambda _: (0.001, 200)))
    assert 0 < record.spent.cpu_s < 5
    assert record.spent.waited_s is None or record.spent.waited_s >= 0
