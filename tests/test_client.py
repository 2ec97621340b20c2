from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime
import pytest

from npuops.errors import (
    DataError,
    DeviceError,
    DeviceLostError,
    DeviceMemoryError,
    IncompatibleArtifactError,
    RunError,
    ToolchainError,
    UnsupportedModelError,
)
from npuops.models.open import open_model
from npuops.models.zoo import zoo_model
from npuops.vnpu.client import DeviceClient, connect
from npuops.vnpu.control_client import control
from npuops.vnpu.device_folder import device_folder
from npuops.vnpu.device_switch import up
from npuops.vnpu.pacing import Pacing
from npuops.vnpu.tenancy import Priority
from npuops.vnpu.tensors import TensorSpec
from virtual_devices import SPEC, X, Y, fast, home, manual, order, program, relu_model, wait_until

__all__ = ["fast", "home", "manual"]

MS = 1_000


def ramp() -> np.ndarray:
    return np.linspace(-1, 1, 32, dtype=np.float32).reshape(4, 8)


def test_the_numbers_are_onnxruntimes_bit_for_bit(fast: str) -> None:
    model = zoo_model("digits-cnn").model
    opened = open_model(model)
    inputs, outputs = (
        [TensorSpec(each.name, each.dtype, tuple(int(str(dim)) for dim in each.shape or ())) for each in tensors]
        for tensors in (opened.inputs, opened.outputs)
    )
    reference = onnxruntime.InferenceSession(str(model))
    rng = np.random.default_rng(0)
    with connect(fast) as client:
        loaded = client.load(program(), inputs, outputs, model=model)
        for _ in range(5):
            given = {spec.name: rng.normal(size=spec.shape).astype(spec.dtype) for spec in inputs}
            found, _ = loaded.run(given)
            for name, value in zip(found, reference.run(list(found), given), strict=True):
                np.testing.assert_array_equal(found[name], value)


def test_times_are_the_devices_own_and_add_up(manual: str) -> None:
    with connect(manual) as client:
        loaded = client.load(program(3 * MS), X, Y)
        first, second = loaded.submit(0), loaded.submit(1)
        client.advance(2 * MS)
        client.advance(5 * MS)
        done = [loaded.wait(ticket) for ticket in (second, first)]
        telemetry = client.status().telemetry
    assert [each.latency_us for each in done] == [6 * MS, 3 * MS]
    assert [each.busy_us for each in done] == [3 * MS, 3 * MS]
    assert done[0].started_us == done[1].finished_us
    assert telemetry.busy_us == 6 * MS
    assert sum(each.energy_mj for each in done) == pytest.approx((SPEC.busy_w - SPEC.idle_w) * 6)


def test_a_slot_is_the_devices_until_the_answer_is_read(manual: str) -> None:
    with connect(manual) as client:
        loaded = client.load(program(), X, Y, slots=1)
        ticket = loaded.submit(0)
        with pytest.raises(RunError, match="slot 0 is under way"):
            loaded.submit(0)
        with pytest.raises(RunError, match="every slot is under way"):
            loaded.run({"x": ramp()})
        client.advance(5 * MS)
        loaded.wait(ticket)
        with pytest.raises(RunError, match=f"no job {ticket}"):
            loaded.wait(ticket)
        loaded.submit(0)


def test_an_answer_that_is_late_gives_its_slot_back(manual: str) -> None:
    with connect(manual) as client:
        loaded = client.load(program(), X, Y, slots=1)
        for _ in range(3):
            client.inject({"kind": "hang"})
            with pytest.raises(DeviceLostError, match="did not answer"):
                loaded.run({"x": ramp()}, timeout_s=0.01)
            with pytest.raises(RunError, match="every slot is under way"):
                loaded.run({"x": ramp()}, timeout_s=0.01)
            client.reset()
            client.advance(SPEC.reset_us)
            client.advance(5 * MS)  # a reset keeps the queue
        ticket = loaded.submit(0)
        with pytest.raises(DeviceLostError, match="did not answer"):
            loaded.wait(ticket, timeout_s=0.01)
        client.advance(5 * MS)
        assert loaded.wait(ticket).busy_us == 1 * MS, "and a ticket may be waited for again"


def test_a_load_that_took_too_long_leaves_nothing_on_the_device(fast: str, tmp_path: Path) -> None:
    daemon = device_folder(fast).holder()
    assert daemon is not None
    with connect(fast) as client:
        os.kill(daemon, signal.SIGSTOP)
        with pytest.raises(DeviceLostError, match="did not answer"):
            client.load(program(), X, Y, model=relu_model(tmp_path), timeout_s=0.01)
        os.kill(daemon, signal.SIGCONT)
        small = (TensorSpec("x", "float32", (1,)),)
        loaded = client.load(program(), small, small)
        assert loaded.inputs[0]["x"].shape == (1,), "its own memory, not that of the load before"
        wait_until(lambda: client.status().telemetry.memory_used_bytes <= 1 << 20, "the program that nobody has")
        loaded.wait(loaded.submit(0))


def test_wrong_inputs_are_refused_before_the_device_sees_them(fast: str, tmp_path: Path) -> None:
    with connect(fast) as client:
        loaded = client.load(program(), X, Y, model=relu_model(tmp_path))
        for inputs in ({}, {"z": ramp()}, {"x": ramp().astype(np.float64)}, {"x": ramp()[:2]}):
            with pytest.raises(DataError):
                loaded.run(inputs)
        outputs, _ = loaded.run({"x": ramp()})
        assert (outputs["y"] == np.maximum(ramp(), 0)).all()
        assert client.status().telemetry.contexts[0].submissions == 1


def test_what_the_device_refuses_is_an_error_of_its_own_kind(fast: str, tmp_path: Path) -> None:
    with connect(fast) as client:
        with pytest.raises(DeviceMemoryError, match="largest free block"):
            client.load(program(weights_bytes=SPEC.dram_bytes * 2), X, Y)
        with pytest.raises(IncompatibleArtifactError, match="NOT compatible") as mismatch:
            client.load(program(), X, Y, compiler="9.0.0")
        assert "firmware first" in mismatch.value.advice
        client.inject({"kind": "unsupported_op", "op": "Resize"})
        with pytest.raises(UnsupportedModelError, match="Resize"):
            client.load(program(op="Resize"), X, Y)
        client.clear_faults()
        client.load(program(op="Resize"), X, Y).unload()
        (tmp_path / "bad.onnx").write_bytes(b"no model")
        with pytest.raises(ToolchainError, match="cannot load bad"):
            client.load(program(), X, Y, model=tmp_path / "bad.onnx")
        with pytest.raises(IncompatibleArtifactError, match="disagree on outputs: other, y"):
            client.load(program(), X, [TensorSpec("other", "float32", (4, 8))], model=relu_model(tmp_path))
        for spec in (TensorSpec("y", "float32", (4, 9)), TensorSpec("y", "int8", (4, 8)), TensorSpec("y", "bool", ())):
            wrong = client.load(program(), X, [spec], model=relu_model(tmp_path))
            with pytest.raises(RunError, match="host runner refused"):
                wrong.run({"x": ramp()})
            wrong.unload()
        telemetry = client.status().telemetry
    assert telemetry.memory_used_bytes == 0
    assert {str(why): count for why, count in telemetry.refusals.items()} == {"memory": 1, "operator": 1, "version": 1}


def test_wrong_outputs_are_silent_and_depend_on_the_operator(fast: str, tmp_path: Path) -> None:
    with connect(fast) as client:
        loaded = client.load(program(op="Relu"), X, Y, model=relu_model(tmp_path))
        client.inject({"kind": "wrong_output", "op": "Conv", "rate": 1.0, "bit": 7})
        assert (loaded.run({"x": ramp()})[0]["y"] == np.maximum(ramp(), 0)).all()
        client.inject({"kind": "wrong_output", "op": "Relu", "rate": 1.0, "bit": 7})
        found = loaded.run({"x": ramp()}, canary=True)[0]["y"]
        assert (found != np.maximum(ramp(), 0)).sum() in {1, 2}
        assert client.status().telemetry.canary_failures == 1
        client.clear_faults()
        assert (loaded.run({"x": ramp()})[0]["y"] == np.maximum(ramp(), 0)).all()


def test_a_reset_fails_what_runs_and_the_session_goes_on(manual: str) -> None:
    with connect(manual) as client, control(manual) as other:
        loaded = client.load(program(50 * MS), X, Y)
        ticket = loaded.submit(0)
        client.advance(10 * MS)
        other.reset()
        with pytest.raises(DeviceLostError, match="device lost: reset by command"):
            loaded.wait(ticket)
        client.advance(SPEC.reset_us)
        ticket = loaded.submit(0)
        client.advance(60 * MS)
        assert loaded.wait(ticket).busy_us == 50 * MS


def test_a_driver_crash_takes_the_contexts_and_a_control_brings_the_device_back(manual: str) -> None:
    client = connect(manual)
    loaded = client.load(program(50 * MS), X, Y)
    ticket = loaded.submit(0)
    with control(manual) as other:
        other.inject({"kind": "driver_crash"})
        with pytest.raises(DeviceLostError):
            loaded.wait(ticket, timeout_s=10)
        with pytest.raises(DeviceLostError, match="gone"):
            connect(manual)
        assert other.status().telemetry.contexts == ()
        other.reset()
        other.advance(SPEC.boot_us)
        with pytest.raises(DeviceLostError):
            loaded.wait(loaded.submit(1), timeout_s=10)
        client.close()
        with connect(manual) as again:
            again.load(program(), X, Y)


def test_a_control_has_no_context_and_loads_nothing(manual: str) -> None:
    with control(manual) as looker:
        assert looker.context is None
        assert looker.status().telemetry.contexts == ()
    with connect(manual) as client:
        client.close()
        client.close()
        with pytest.raises(DeviceLostError, match="is closed"):
            client.status()


def test_sustained_load_throttles_by_itself_tails_grow_and_rest_recovers(manual: str) -> None:
    with connect(manual) as client:
        loaded = client.load(program(100 * MS), X, Y)
        latencies = []
        for _ in range(3_000):
            ticket = loaded.submit(0)
            client.advance(100 * MS)
            hot = client.status().telemetry
            if hot.throttles:
                break
            latencies.append(loaded.wait(ticket).latency_us)
        client.advance(300 * MS)
        loaded.wait(ticket)
        assert set(latencies) == {100 * MS}
        assert hot.throttles == 1
        assert hot.temperature_c >= SPEC.thermal.throttle_c - 1
        assert hot.cap_mhz < SPEC.top_mhz
        ticket = loaded.submit(0)
        client.advance(300 * MS)
        assert loaded.wait(ticket).latency_us > 130 * MS
        client.advance(1_800 * 1_000 * MS)
        cool = client.status().telemetry
    assert cool.cap_mhz == SPEC.top_mhz
    assert cool.temperature_c < 35


def latencies_us(victim: DeviceClient, noise: DeviceClient, rounds: int = 20) -> float:
    """Of a 10 ms job that always meets a queue of 20 ms jobs."""
    quick = victim.load(program(10 * MS), X, Y)
    long = noise.load(program(20 * MS, steps=20), X, Y, slots=8)
    tickets = [long.submit(slot) for slot in range(8)]
    found = []
    for _ in range(rounds):
        victim.advance(3 * MS)
        ticket = quick.submit(0)
        victim.advance(120 * MS)
        found.append(quick.wait(ticket).latency_us)
        for slot, each in enumerate(tickets):
            victim.advance(200 * MS)
            long.wait(each)
            tickets[slot] = long.submit(slot)
    return median(found)


@pytest.mark.usefixtures("home")
def test_a_noisy_neighbour_hurts_an_equal_and_hardly_one_of_higher_priority() -> None:
    found = {}
    for priority in (Priority.NORMAL, Priority.REALTIME):
        name = f"npu-{priority.word}"
        up(order(name, pacing=Pacing.MANUAL))
        with connect(name, priority=priority) as victim, connect(name) as noise:
            found[priority] = latencies_us(victim, noise)
    assert found[Priority.NORMAL] > 17 * MS, "time slices in turn"
    assert found[Priority.REALTIME] <= 11 * MS, "its own 10 ms, and at most one step of the neighbour"


@pytest.mark.usefixtures("home")
def test_realtime_pacing_takes_the_modelled_time_on_the_clock() -> None:
    name = up(order(pacing=Pacing.REALTIME)).name
    with connect(name) as client:
        loaded = client.load(program(50 * MS), X, Y)
        started = time.monotonic()
        done = [loaded.wait(loaded.submit(0)) for _ in range(3)]
        spent_s = time.monotonic() - started
    assert all(each.busy_us == 50 * MS for each in done)
    assert spent_s > 0.149


def test_nobody_there_is_said_with_what_to_do(home: Path) -> None:
    with pytest.raises(DeviceLostError, match="no device of that name is up") as raised:
        connect("npu7")
    assert "npuops device up" in raised.value.advice
    assert home.is_dir()
    with pytest.raises(DeviceError):
        control("npu7")
