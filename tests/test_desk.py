"""What the device answers, and when, without a process: requests in, replies out, under a manual clock."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npuops.artifacts.keys import Algorithm, new_key
from npuops.testing import ManualClock
from npuops.vnpu import wire
from npuops.vnpu.desk import Desk, Identity
from npuops.vnpu.faults import Kind
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


def test_time_is_moved_by_what_a_clock_could_show() -> None:
    bench = Bench(Pacing.MANUAL)
    bench.ask(1, wire.Hello, version=wire.VERSION)
    for us in (-1, 10**15 + 1, 2**63 - 1):
        bench.ask(1, wire.Advance, us=us)
        refused = bench.replies()[-1]
        assert isinstance(refused, wire.Refused)
        assert refused.kind == "OptionError"
    assert bench.desk.now_us() == 0


def test_no_sum_of_steps_moves_time_beyond_what_a_message_can_say() -> None:
    bench = Bench(Pacing.MANUAL)
    bench.ask(1, wire.Hello, version=wire.VERSION)
    bench.ask(1, wire.Advance, us=10**15)
    assert isinstance(bench.replies()[-1], wire.Done)
    bench.ask(1, wire.Advance, us=1)
    assert isinstance(bench.replies()[-1], wire.Refused)
    bench.ask(1, wire.AskStatus)
    assert wire.frame(bench.replies()[-1])


@pytest.mark.parametrize("version", [wire.VERSION - 1, wire.VERSION + 1])
def test_a_client_of_another_npuops_is_told_what_to_do(version: int) -> None:
    bench = Bench()
    bench.ask(1, wire.Hello, version=version, priority="normal")
    (refused,) = bench.replies()
    assert isinstance(refused, wire.Refused)
    assert f"protocol {wire.VERSION}, the client {version}" in refused.message
    assert "down and up again" in refused.advice
    bench.ask(1, wire.AskStatus)
    assert isinstance(bench.replies()[-1], wire.Refused)


def test_a_device_that_hangs_cannot_vouch_for_itself() -> None:
    bench = Bench()
    bench.ask(1, wire.Hello, version=wire.VERSION)
    bench.ask(1, wire.Inject, fault={"kind": "hang"})
    bench.ask(1, wire.Attest, nonce=bytes(16))
    refused = bench.replies()[-1]
    assert isinstance(refused, wire.Refused)
    assert "does not answer" in refused.message


EXTREME_INTS = st.sampled_from([-(2**63), -1, 0, 1, 2, 2**31, 2**53, 2**62, 2**64 - 1]) | st.integers(-3, 99)
EXTREME_FLOATS = st.sampled_from([0.0, 1.0, 1e-300, 1e9, 1e300, 1.7e308, float("inf"), float("nan"), -1.0])
SHAPES = st.integers(0, 70).map(lambda count: (1,) * count) | st.lists(
    st.sampled_from([0, 1, 2, 7, 2**20, 2**40, 2**63, 2**64 - 1, -1]), max_size=4
)


@st.composite
def loads(draw: st.DrawFn) -> dict[str, Any]:
    """One that a device takes, but for a figure or two."""
    request = msgspec.to_builtins(wire.Load(id=7, program=program(), inputs=X, outputs=Y, slots=2))
    step, costs = request["program"]["steps"][0], request["program"]
    places = [(step, key, EXTREME_FLOATS) for key in ("compute_us", "memory_us", "overhead_us")]
    places += [(step, key, EXTREME_INTS) for key in ("dram_bytes", "macs")]
    places += [(costs, key, EXTREME_INTS) for key in costs if key.endswith("_bytes")]
    places += [(request["inputs"][0], "shape", SHAPES), (request["outputs"][0], "shape", SHAPES)]
    places += [(request["inputs"][0], "dtype", st.sampled_from(["float64", "bool", "object", "V9999999999"]))]
    places += [(request, "slots", EXTREME_INTS), (request, "model", st.sampled_from(["", "/", "/dev/null", "\0"]))]
    places += [(request, "compiler", st.sampled_from(["", "x", "9" * 5_000, "٣"]))]
    for place, key, values in draw(st.lists(st.sampled_from(places), max_size=2)):
        place[key] = draw(values)
    return request


def message(kind: type[wire.Message], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"type": st.just(kind.__name__), "id": st.just(7), **fields})


FAULTS = st.dictionaries(
    st.sampled_from(["kind", "for_s", "count", "share", "op", "rate", "bit", "factor", "part", "version", "priority"]),
    st.sampled_from([str(kind) for kind in Kind] + ["Relu", "firmware", "9.9", "realtime"])
    | EXTREME_INTS
    | EXTREME_FLOATS,
    max_size=5,
)
REQUESTS = (
    loads()
    | message(wire.Submit, handle=EXTREME_INTS, slot=EXTREME_INTS, canary=st.booleans())
    | message(wire.Unload, handle=EXTREME_INTS)
    | message(wire.Advance, us=EXTREME_INTS)
    | message(wire.Inject, fault=FAULTS)
    | message(wire.Reset)
    | message(wire.ClearFaults)
    | message(wire.AskStatus)
    | message(wire.Attest, nonce=st.binary(max_size=40))
    | message(wire.UpdateFirmware, image=st.binary(max_size=40).map(lambda rest: b"VNPUFW1\n" + rest))
)


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(pacing=st.sampled_from(Pacing), requests=st.lists(REQUESTS, max_size=8))
def test_whatever_a_client_may_say_is_answered_and_no_extreme_figure_ends_the_device(
    pacing: Pacing, requests: list[dict[str, Any]]
) -> None:
    bench = Bench(pacing)
    bench.tenant(1)
    bench.ask(1, wire.Submit, handle=2, slot=0)
    for request in requests:
        body = msgspec.msgpack.encode(request)
        with suppress(wire.ProtocolError):  # it costs the connection
            (read,) = wire.requests().feed(len(body).to_bytes(4, "little") + body)
            bench.desk.take(1, 1000, read)
        bench.worker.work()
        for reply in bench.wait(1_000):
            assert wire.frame(reply)
        bench.desk.delay_us()
    bench.desk.leave(1)
    assert bench.desk.telemetry().contexts == ()


def test_what_a_device_forgot_without_power_the_daemon_holds_no_longer() -> None:
    def mapped() -> int:
        return Path("/proc/self/maps").read_text(encoding="utf-8").count("memfd:npuops-tensors")

    bench = Bench()
    gc.collect()
    before = mapped()
    for client in (1, 2, 3):
        handle = bench.tenant(client)
        assert mapped() > before
        bench.ask(client, wire.Inject, fault={"kind": "offline"})
        bench.wait(0)
        bench.ask(client, wire.Reset)
        bench.wait(SPEC.boot_us + 1)
        bench.ask(client, wire.Submit, handle=handle, slot=0)
        (refused,) = bench.replies()
        assert isinstance(refused, wire.Refused)
        assert (refused.kind, refused.advice) == ("DeviceLostError", "load it again")
    gc.collect()
    assert mapped() == before


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
