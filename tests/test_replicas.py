from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

import hostile_worker as order
from engine_lab import Got, Lab, children, engine_of, hostile, row, run, until
from npuops.errors import DeviceLostError, IntegrityError, NotReadyError
from npuops.runtime.facts import ColdCause, DeviceChanged, WorkerEnded, WorkerStarted
from npuops.runtime.outage import Outage


def states(lab: Lab, device: str) -> list[str]:
    return [fact.state for fact in lab.of(DeviceChanged) if fact.device == device]


def test_a_device_is_restarted_with_its_curve_and_its_life_is_told() -> None:
    async def main() -> None:
        async with engine_of([hostile("npu")]) as lab:
            (replica,) = lab.engine.replicas.all
            curves, pid = replica.curves, replica.pid
            os.kill(pid, signal.SIGKILL)
            await until(lambda: len(lab.of(WorkerStarted)) == 2, "no restart")
            assert replica.curves is curves
            assert replica.pid != pid
            load, crash = lab.of(WorkerStarted)
            assert (load.cause, crash.cause) == (ColdCause.LOAD, ColdCause.CRASH)
            assert "spawn" in load.phases
            (ended,) = lab.of(WorkerEnded)
            assert (ended.pid, ended.wanted, ended.replayed) == (pid, False, 0)
            assert "SIGKILL" in ended.why
            await lab.engine.close()
            assert states(lab, "npu") == ["starting", "ready", "sick", "probing", "ready", "stopped"]
            assert [fact.wanted for fact in lab.of(WorkerEnded)] == [False, True]

    run(main())


def test_a_device_that_is_off_is_tried_again_until_it_is_back(tmp_path: Path) -> None:
    flag = tmp_path / "flag"

    async def main() -> None:
        async with engine_of([hostile("npu", environment={order.FLAG: str(flag)})]) as lab:
            Path(f"{flag}.down").touch()
            os.kill(lab.engine.replicas.all[0].pid, signal.SIGKILL)
            await until(lambda: states(lab, "npu").count("probing") >= 3, "it is not tried again")
            assert lab.engine.replicas.own_failed
            assert "the device is off" in lab.engine.replicas.why_down()
            Path(f"{flag}.down").unlink()
            await until(lambda: lab.engine.is_ready, "it does not come back")
            assert not lab.engine.replicas.own_failed
            assert len(children()) == 1

    run(main())


@pytest.mark.parametrize(("how", "kind"), [("refuse", IntegrityError), ("lost", DeviceLostError)])
def test_where_no_device_comes_up_the_first_ones_words_are_told(how: str, kind: type[Exception]) -> None:
    async def main() -> None:
        devices = [hostile(name, environment={order.LOAD: how}) for name in ("a", "b")]
        async with engine_of(devices, start=False) as lab:
            with pytest.raises(kind):
                await lab.engine.start(ColdCause.LOAD)
            assert not lab.engine.is_ready
            await lab.engine.close()
            assert children() == []
            await lab.engine.close()

    run(main())


def test_a_close_in_the_middle_of_a_restart_ends_it(tmp_path: Path) -> None:
    async def main() -> None:
        device = hostile("npu", environment={order.FLAG: str(tmp_path / "flag")})
        async with engine_of([device]) as lab:
            (tmp_path / "flag.down").touch()
            for _ in range(2):
                os.kill(lab.engine.replicas.all[0].pid, signal.SIGKILL)
                await until(lambda: "probing" in states(lab, "npu"), "no restart")
                break
            await lab.engine.close()
            assert children() == []
            assert states(lab, "npu")[-1] == "stopped"

    run(main())


def test_the_end_of_a_worker_that_was_given_up_does_not_touch_the_next_one() -> None:
    async def main() -> None:
        async with engine_of([hostile("npu")], spares=2, run_limit_s=0.2) as lab:
            lab.engine.replicas._backoffs["npu"]._healthy_s = 0.0
            for number in range(5):
                stuck = lab.ask(row(order.STOP))
                fine = await asyncio.gather(*(lab.ask(row(each)) for each in range(6)))
                assert all(isinstance(got, Got) for got in fine), number
                await stuck
                await until(lambda: lab.engine.is_ready, "no restart")

    run(main())


def test_an_outage_is_hopeless_after_the_patience_or_for_who_waits_for_no_restart() -> None:
    async def main() -> None:
        async with engine_of([hostile("npu"), hostile("cpu", fallback=True)]) as lab:
            replicas = lab.engine.replicas
            outage = Outage("m", replicas, 1.0)
            outage.look(1_000)
            assert not outage.is_hopeless(10**9)
            replicas.own_ready = False
            outage.look(1_000)
            outage.look(900_000)
            assert not outage.is_hopeless(1_000_000)
            assert outage.is_hopeless(1_002_000)
            replicas.own_failed = True
            assert outage.is_hopeless(2_000, restarts=False)
            assert not outage.is_hopeless(2_000)
            assert isinstance(outage.error(), NotReadyError)
            replicas.own_ready, replicas.own_failed = True, False
            outage.look(5_000)
            assert outage.since_us == 0

    run(main())
