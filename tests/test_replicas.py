from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

import hostile_worker as order
from engine_lab import Got, Lab, children, engine_of, hostile, row, run, until
from npuops.errors import DeviceLostError, IntegrityError, NotReadyError
from npuops.runtime.ailment import Ailment
from npuops.runtime.facts import BatchRetried, ColdCause, DeviceChanged, WorkerEnded, WorkerStarted
from npuops.runtime.outage import Outage
from npuops.runtime.worker_process import WorkerLostError


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


@pytest.mark.slow
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


def test_a_worker_that_ends_as_soon_as_it_is_ready_is_not_taken_for_ready() -> None:
    async def main() -> None:
        async with engine_of([hostile("npu", environment={order.LOAD: "fleeting"})], spares=1, start=False) as lab:
            (pid,) = lab.spares.pids
            starting = asyncio.ensure_future(lab.engine.start(ColdCause.LOAD))
            for _ in range(5):
                await asyncio.sleep(0)  # until the worker is told what to load
            # Nobody looks while it opens and ends, so that both are found at one look.
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            with pytest.raises(WorkerLostError):
                await starting
            assert not lab.engine.is_ready
            assert states(lab, "npu")[-1] == "sick"

    run(main())


HOT = Ailment(why="the device is too hot", answers=True)
OFF = Ailment(why="the device is off", answers=False)
DOUBT = Ailment(why="uncorrected errors", answers=True, is_doubt=True)


def test_a_device_that_is_not_well_finishes_its_runs_and_works_again_when_it_is_well() -> None:
    async def main() -> None:
        async with engine_of([hostile("npu"), hostile("cpu", fallback=True)]) as lab:
            replicas, npu = lab.engine.replicas, lab.engine.replicas.all[0]
            slow = lab.ask(row(order.SLOW))
            await until(lambda: npu.under_way, "it was not dispatched")
            replicas.heed({"npu": HOT})
            assert (npu.ready, replicas.own_ready, replicas.own_failed) == (False, False, True)
            replicas.heed({"npu": HOT})
            (got,) = await asyncio.gather(slow)
            assert isinstance(got, Got)
            assert got.device == "npu", "what was under way is finished there"
            assert lab.of(BatchRetried) == []
            await until(lambda: lab.of(WorkerEnded), "its worker stays")
            (ended,) = lab.of(WorkerEnded)
            assert (ended.device, ended.wanted, ended.why) == ("npu", True, HOT.why)
            (other,) = await asyncio.gather(lab.ask(row(1)))
            assert isinstance(other, Got)
            assert other.device == "cpu"
            replicas.heed({"npu": HOT})
            assert states(lab, "npu") == ["starting", "ready", "sick"]
            assert replicas.states()["npu"][1] == HOT.why
            replicas.heed({})
            await until(lambda: npu.ready, "it does not come back")
            assert states(lab, "npu")[2:] == ["sick", "probing", "ready"]
            assert lab.of(WorkerStarted)[-1].cause is ColdCause.HEALTH
            assert not replicas.own_failed
            (back,) = await asyncio.gather(lab.ask(row(2)))
            assert isinstance(back, Got)
            assert back.device == "npu"

    run(main())


def test_runs_of_a_device_that_will_not_answer_go_elsewhere_at_once_and_nobody_is_blamed() -> None:
    async def main() -> None:
        async with engine_of([hostile("npu"), hostile("cpu", fallback=True)], batching=False) as lab:
            replicas, npu = lab.engine.replicas, lab.engine.replicas.all[0]
            os.kill(npu.pid, signal.SIGSTOP)  # it hangs, and nobody has noticed yet
            asked = [lab.ask(row(value)) for value in range(4)]
            await until(lambda: len(npu.under_way) == 2, "they were not dispatched")
            replicas.heed({"npu": OFF})
            got = await asyncio.gather(*asked)
            assert [each.device for each in got if isinstance(each, Got)] == ["cpu"] * 4
            assert sum(fact.requests for fact in lab.of(BatchRetried)) == 2
            assert not lab.engine._recovery._blamed
            await until(lambda: states(lab, "npu")[-1] == "sick", "its state is not told")
            assert len(lab.of(WorkerStarted)) == 2, "it is not started while it is off"
            replicas.heed({})
            await until(lambda: npu.ready, "it does not come back")

    run(main())


def test_a_device_that_nobody_can_stand_in_for_goes_on_despite_a_doubt() -> None:
    async def main() -> None:
        async with engine_of([hostile("a"), hostile("b")]) as lab:
            replicas = lab.engine.replicas
            replicas.heed({"a": DOUBT})
            await until(lambda: len(lab.of(WorkerEnded)) == 1, "the doubtful one goes on beside another")
            replicas.heed({"a": DOUBT, "b": OFF})
            await until(lambda: lab.of(WorkerEnded)[-1].device == "b", "the one that is off goes on")
            await until(lambda: replicas.all[0].ready, "the doubtful one rests although there is no other")
            (got,) = await asyncio.gather(lab.ask(row(1)))
            assert isinstance(got, Got)
            assert got.device == "a"

    run(main())


def test_a_restart_after_a_crash_waits_for_a_device_to_be_well() -> None:
    async def main() -> None:
        async with engine_of([hostile("npu")]) as lab:
            replicas, npu = lab.engine.replicas, lab.engine.replicas.all[0]
            replicas._backoffs["npu"].next_delay_s(0.0)  # so that there is a pause before its restart
            os.kill(npu.pid, signal.SIGKILL)
            await until(lambda: states(lab, "npu")[-1] == "sick", "its end is not told")
            replicas.heed({"npu": OFF})
            assert replicas.states()["npu"][1] == OFF.why
            assert replicas.own_failed
            await asyncio.wait(replicas._restarts.values(), timeout=0.3)
            assert states(lab, "npu")[-1] == "sick"
            replicas.heed({})
            await until(lambda: npu.ready, "it does not come back")
            assert lab.of(WorkerStarted)[-1].cause is ColdCause.HEALTH

    run(main())


@pytest.mark.parametrize("ailment", [HOT, OFF])
def test_a_close_while_devices_rest_leaves_no_process(ailment: Ailment) -> None:
    async def main() -> None:
        async with engine_of([hostile("npu"), hostile("cpu", fallback=True)]) as lab:
            busy = lab.ask(row(order.SLOW))
            await until(lambda: lab.engine.replicas.all[0].under_way, "it was not dispatched")
            lab.engine.replicas.heed({"npu": ailment, "cpu": HOT})
            await lab.engine.close()
            await busy
            lab.engine.replicas.heed({"npu": ailment})
            assert children() == []
            assert states(lab, "npu")[-1] == "stopped"

    run(main())


def test_a_worker_that_ends_while_its_device_is_to_rest_is_started_once() -> None:
    async def main() -> None:
        async with engine_of([hostile("npu")]) as lab:
            replicas, npu = lab.engine.replicas, lab.engine.replicas.all[0]
            os.kill(npu.pid, signal.SIGSTOP)
            stuck = lab.ask(row(1))
            await until(lambda: npu.under_way, "it was not dispatched")
            replicas.heed({"npu": HOT})
            os.kill(npu.pid, signal.SIGKILL)
            replicas.heed({})
            got = await stuck
            assert isinstance(got, Got), "its run goes again"
            assert len(lab.of(WorkerStarted)) == 2
            assert len(children()) == 1

    run(main())
