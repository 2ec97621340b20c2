"""What the device answers, and when, without a process: requests in, replies out, under a manual clock."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from npuops.artifacts.keys import Algorithm, new_key
from npuops.testing import ManualClock
from npuops.vnpu import wire
from npuops.vnpu.desk import Desk, Identity
from npuops.vnpu.machine import Machine
from npuops.vnpu.numerics_worker import Finished, attempt
from npuops.vnpu.pacing import DeviceTime, Pacing
from virtual_devices import SPEC, X, Y, program

MS = 1_000


class LazyWorker:
    """Computes when the test says so."""

    def __init__(self) -> None:
        self.tasks: list[tuple[int, Callable[[], Any]]] = []
        self.done: list[Finished] = []

    def start(self, key: int, task: Callable[[], Any]) -> None:
        self.tasks.append((key, task))

    def work(self) -> None:
        self.done += [attempt(key, task) for key, task in self.tasks]
        self.tasks.clear()

    def finished(self) -> list[Finished]:
        found, self.done = self.done, []
        return found


class Bench:
    """A desk with a clock."""

    def __init__(self, pacing: Pacing = Pacing.REALTIME) -> None:
        self.clock, self.worker = ManualClock(), LazyWorker()
        machine = Machine(replace(SPEC, boot_us=0))
        identity = Identity("npu0", SPEC.name, SPEC.released.compiler, new_key(Algorithm.ED25519))
        self.desk = Desk(machine, DeviceTime(pacing, 0), identity, self.worker, self.clock)
        self.number = 0

    def ask(self, client: int, kind: type[wire.Message], **fields: Any) -> int:
        self.number += 1
        request: Any = kind(id=self.number, **fields)
        self.desk.take(client, 1000 + client, request)
        return self.number

    def tenant(self, client: int, us: float = 1 * MS, priority: str = "normal", slots: int = 2) -> int:
        """The handle of a loaded program."""
        self.ask(client, wire.Hello, version=wire.VERSION, priority=priority)
        self.ask(client, wire.Load, program=program(us), inputs=X, outputs=Y, slots=slots)
        loaded = self.replies()[-1]
        assert isinstance(loaded, wire.Loaded)
        return loaded.handle

    def replies(self) -> list[wire.Reply]:
        out = self.desk.take_outbox()
        for _, _, descriptor in out:
            if descriptor is not None:
                os.close(descriptor)
        return [reply for _, reply, _ in out]

    def wait(self, us: int) -> list[wire.Reply]:
        self.clock.advance(us)
        self.desk.turn()
        return self.replies()


def test_in_realtime_the_answer_comes_when_the_modelled_time_has_come() -> None:
    bench = Bench()
    handle = bench.tenant(1)
    bench.ask(1, wire.Submit, handle=handle, slot=0)
    assert bench.wait(0) == []
    assert bench.desk.delay_us() == 1 * MS
    assert bench.wait(999) == []
    assert bench.desk.delay_us() == 1
    (done,) = bench.wait(1)
    assert isinstance(done, wire.Completed)
    assert bench.desk.delay_us() is None


def test_in_fast_pacing_the_answer_comes_at_once_and_the_devices_time_jumps() -> None:
    bench = Bench(Pacing.FAST)
    handle = bench.tenant(1, us=3_600e6)
    bench.ask(1, wire.Submit, handle=handle, slot=0)
    while bench.desk.turn():
        pass
    (done,) = bench.replies()
    assert isinstance(done, wire.Completed)
    assert bench.clock.now_us() == 0
    assert bench.desk.now_us() >= 3_600_000_000


def test_fast_pacing_stands_still_while_nobody_waits_and_while_a_hang_has_no_end() -> None:
    bench = Bench(Pacing.FAST)
    handle = bench.tenant(1)
    bench.ask(1, wire.Inject, fault={"kind": "noisy_neighbour", "priority": "normal"})
    assert not bench.desk.turn()
    assert bench.desk.now_us() == 0, "a neighbour's jobs are nobody's wait"
    bench.ask(1, wire.ClearFaults)
    bench.ask(1, wire.Inject, fault={"kind": "hang"})
    bench.ask(1, wire.Submit, handle=handle, slot=0)
    assert not bench.desk.turn()


def test_the_answer_waits_for_the_host_and_the_slot_for_the_answer(tmp_path: object) -> None:
    del tmp_path
    bench = Bench(Pacing.FAST)
    bench.ask(1, wire.Hello, version=wire.VERSION, priority="normal")
    bench.ask(1, wire.Load, program=program(), inputs=X, outputs=Y, slots=1, model="/nowhere.onnx")
    assert [type(reply) for reply in bench.replies()] == [wire.Welcome]
    bench.worker.work()
    (refused,) = bench.wait(0)
    assert isinstance(refused, wire.Refused)
    assert refused.kind == "ToolchainError"
    assert bench.desk.telemetry().memory_used_bytes == 0, "what was allocated for it is free again"


def test_a_client_that_leaves_while_its_program_is_loading_or_running_is_forgotten() -> None:
    bench = Bench()
    handle = bench.tenant(1, us=50 * MS)
    bench.ask(1, wire.Submit, handle=handle, slot=0)
    bench.ask(2, wire.Hello, version=wire.VERSION, priority="normal")
    bench.ask(2, wire.Load, program=program(), inputs=X, outputs=Y, slots=1, model="/nowhere.onnx")
    bench.replies()
    for client in (1, 2, 3):
        bench.desk.leave(client)
    bench.worker.work()
    assert bench.wait(100 * MS) == []
    seen = bench.desk.telemetry()
    assert (seen.memory_used_bytes, seen.contexts) == (0, ())
    assert bench.desk.delay_us() is None


@pytest.mark.parametrize("kind", ["reset", "offline", "driver_crash", "ecc_uncorrected"])
def test_whatever_ends_a_job_every_request_gets_exactly_one_reply(kind: str) -> None:
    bench = Bench()
    handle = bench.tenant(1, us=50 * MS)
    wanted = [bench.ask(1, wire.Submit, handle=handle, slot=slot) for slot in (0, 1)]
    fault = {"kind": kind, "count": 1} if kind == "ecc_uncorrected" else {"kind": kind}
    injected = bench.ask(1, wire.Inject, fault=fault)
    found = bench.wait(200 * MS)
    assert sorted(reply.id for reply in found) == [*wanted, injected]
    lost = [reply for reply in found if isinstance(reply, wire.Refused)]
    assert {reply.kind for reply in lost} == {"DeviceLostError"}
    assert wanted[0] in {reply.id for reply in lost}


def test_time_is_moved_by_hand_only_in_manual_pacing() -> None:
    for pacing, reply in ((Pacing.MANUAL, wire.Done), (Pacing.FAST, wire.Refused), (Pacing.REALTIME, wire.Refused)):
        bench = Bench(pacing)
        bench.ask(1, wire.Hello, version=wire.VERSION)
        bench.ask(1, wire.Advance, us=5)
        assert type(bench.replies()[-1]) is reply
        assert bench.desk.now_us() == (5 if pacing is Pacing.MANUAL else 0)


def test_a_program_is_unloaded_when_its_jobs_are_through() -> None:
    bench = Bench()
    handle = bench.tenant(1)
    bench.ask(1, wire.Submit, handle=handle, slot=0)
    bench.ask(1, wire.Unload, handle=handle)
    (refused,) = bench.wait(0)
    assert isinstance(refused, wire.Refused)
    bench.wait(2 * MS)
    bench.ask(1, wire.Unload, handle=handle)
    bench.ask(1, wire.Submit, handle=handle, slot=0)
    done, gone = bench.replies()
    assert isinstance(done, wire.Done)
    assert isinstance(gone, wire.Refused)
    assert bench.desk.telemetry().memory_used_bytes == 0
