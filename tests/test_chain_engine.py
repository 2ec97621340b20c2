"""Chains answering: tensors flow from model to model, and errors, deadlines and cancellations go all the way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import numpy as np
import pytest

from npuops.clock import SystemClock
from npuops.errors import DataError, DeadlineError, NotReadyError, NotServedError, OverloadedError, RunError
from npuops.runtime.chain import plan_chain, read_chain
from npuops.runtime.chain_engine import ChainEngine
from npuops.runtime.facts import BatchRan, RequestFailed, RequestShed, ShedReason
from npuops.runtime.signature import Port, Signature
from npuops.testing import EventLog
from picture_models import LocalModel, ask


def vector(name: str) -> Port:
    return Port(name=name, dtype="float32", shape=(-1, 2))


def model(compute: Callable[..., object], *inputs: str) -> LocalModel:
    names = inputs or ("x",)
    ports = tuple(vector(name) for name in names)
    return LocalModel(Signature(inputs=ports, outputs=(vector("y"),), batched=True, max_rows=8), compute)


DIAMOND = """
    inputs = ["in"]
    outputs = ["out", "left"]
    [[step]]
    model = "add"
    inputs = { a = "left", b = "right" }
    outputs = { y = "out" }
    [[step]]
    model = "double"
    inputs = { x = "in" }
    outputs = { y = "left" }
    [[step]]
    model = "negate"
    inputs = { x = "in" }
    outputs = { y = "right" }
"""


def diamond() -> dict[str, LocalModel]:
    return {
        "double": model(lambda x: x * 2),
        "negate": model(lambda x: -x),
        "add": model(lambda a, b: a + b, "a", "b"),
    }


class Repository:
    """Models by name; those in `cold` must be woken first."""

    def __init__(self, models: Mapping[str, LocalModel]) -> None:
        self.models = models
        self.cold: set[str] = set()
        self.woken: list[str] = []

    def find(self, name: str, version: str) -> LocalModel | None:
        del version
        return None if name in self.cold else self.models.get(name)

    async def wake(self, name: str, version: str) -> LocalModel:
        await asyncio.sleep(0)
        if name not in self.models:
            raise NotServedError(f"no model {name!r}")
        self.woken.append(name)
        self.cold.discard(name)
        found = self.find(name, version)
        assert found is not None
        return found

    def is_ready(self, name: str, version: str) -> bool:
        del version
        return name in self.models and self.models[name].is_ready


def serve(
    models: Mapping[str, LocalModel], test: Callable[[ChainEngine], Awaitable[None]], text: str = DIAMOND
) -> EventLog:
    return serve_from(Repository(models), test, text)


def serve_from(repository: Repository, test: Callable[[ChainEngine], Awaitable[None]], text: str = DIAMOND) -> EventLog:
    options = read_chain(text, where="chain.toml")
    plan = plan_chain(options, lambda name, _: repository.models[name].signature, where="chain.toml")
    log = EventLog()

    async def run() -> None:
        await test(ChainEngine(("diamond", "1"), plan, repository, SystemClock(), log))

    asyncio.run(run())
    return log


ROWS = np.array([[1, 2], [3, 4], [5, 6]], dtype=np.float32)


def test_what_one_model_gives_the_next_one_takes() -> None:
    async def test(chain: ChainEngine) -> None:
        _, answer = ask(chain, chain.plan.signature, [ROWS.tobytes()], [(3, 2)], tenant="t", deadline_us=99)
        found = await answer
        assert found.shapes == ((3, 2), (3, 2))
        out, left = (np.frombuffer(part, np.float32).reshape(3, 2) for part in found.outputs)
        np.testing.assert_array_equal(out, ROWS)
        np.testing.assert_array_equal(left, 2 * ROWS)
        assert found.device == "cpu"
        assert {(job.tenant, job.deadline_us) for one in models.values() for job in one.jobs} == {("t", 99)}
        assert {job.account for one in models.values() for job in one.jobs} == {""}, "the chain counts it once"
        assert chain.in_flight == 0

    models = diamond()
    serve(models, test)


def test_models_that_need_not_wait_for_each_other_do_not() -> None:
    models = diamond()
    models["double"].hold = asyncio.Event()

    async def test(chain: ChainEngine) -> None:
        _, answer = ask(chain, chain.plan.signature, [ROWS.tobytes()], [(3, 2)])
        while not (models["double"].jobs and models["negate"].jobs):
            await asyncio.sleep(0)
        assert not models["add"].jobs
        assert chain.in_flight == 1
        assert models["double"].hold is not None
        models["double"].hold.set()
        await answer

    serve(models, test)


def test_many_requests_at_once_get_their_own_answers() -> None:
    async def test(chain: ChainEngine) -> None:
        sent = [np.full((1, 2), index, np.float32) for index in range(50)]
        answers = [ask(chain, chain.plan.signature, [one.tobytes()], [(1, 2)])[1] for one in sent]
        for one, found in zip(sent, await asyncio.gather(*answers), strict=True):
            np.testing.assert_array_equal(np.frombuffer(found.outputs[0], np.float32).reshape(1, 2), one)

    serve(diamond(), test)


def full(_: np.ndarray) -> np.ndarray:
    raise OverloadedError("the queue is full")


def test_the_first_error_is_the_answer_and_no_further_step_begins() -> None:
    models = {**diamond(), "negate": model(full)}

    async def test(chain: ChainEngine) -> None:
        _, answer = ask(chain, chain.plan.signature, [ROWS.tobytes()], [(3, 2)])
        with pytest.raises(OverloadedError):
            await answer
        assert models["add"].jobs == []

    serve(models, test)


def test_a_tensor_that_the_next_model_does_not_take_is_an_error() -> None:
    models = {**diamond(), "negate": model(lambda x: x[:1])}

    async def test(chain: ChainEngine) -> None:
        _, answer = ask(chain, chain.plan.signature, [ROWS.tobytes()], [(3, 2)])
        with pytest.raises(DataError, match=r"step 'add': .* rows"):
            await answer

    serve(models, test)


def test_a_cancelled_request_is_taken_back_from_the_model_that_has_it() -> None:
    models = diamond()
    models["double"].hold = asyncio.Event()

    async def test(chain: ChainEngine) -> None:
        job, answer = ask(chain, chain.plan.signature, [ROWS.tobytes()], [(3, 2)])
        while not models["double"].jobs:
            await asyncio.sleep(0)
        chain.cancel(job)
        while not models["double"].jobs[0].cancelled:
            await asyncio.sleep(0)
        assert chain.in_flight == 0
        assert not answer.done()

    serve(models, test)


def test_a_swapped_model_is_used_at_once_and_a_missing_one_makes_the_chain_unready() -> None:
    models = diamond()

    async def test(chain: ChainEngine) -> None:
        assert chain.is_ready
        models["negate"] = model(lambda x: -3 * x)
        _, answer = ask(chain, chain.plan.signature, [ROWS.tobytes()], [(3, 2)])
        np.testing.assert_array_equal(np.frombuffer((await answer).outputs[0], np.float32).reshape(3, 2), -ROWS)
        models["double"].is_ready = False
        assert not chain.is_ready
        del models["negate"]
        assert not chain.is_ready
        _, answer = ask(chain, chain.plan.signature, [ROWS.tobytes()], [(3, 2)])
        with pytest.raises(NotReadyError, match="step 'negate'"):
            await answer

    serve(models, test)


def test_a_model_replaced_by_one_with_other_outputs_asks_to_come_again() -> None:
    models = diamond()

    async def test(chain: ChainEngine) -> None:
        ports = (vector("y"), vector("z"))
        changed = Signature(inputs=(vector("x"),), outputs=ports, batched=True, max_rows=8)
        models["negate"] = LocalModel(changed, lambda x: (x, x))
        _, answer = ask(chain, chain.plan.signature, [ROWS.tobytes()], [(3, 2)])
        with pytest.raises(NotReadyError):
            await answer

    serve(models, test)


def test_a_cold_model_is_woken_for_the_request() -> None:
    repository = Repository(diamond())
    repository.cold = {"negate", "add"}

    async def test(chain: ChainEngine) -> None:
        assert chain.is_ready
        _, answer = ask(chain, chain.signature, [ROWS.tobytes()], [(3, 2)])
        await answer

    serve_from(repository, test)
    assert sorted(repository.woken) == ["add", "negate"]


def test_a_deadline_holds_while_a_cold_model_is_loaded() -> None:
    repository = NeverLoads(diamond())
    repository.cold.add("negate")

    async def test(chain: ChainEngine) -> None:
        soon_us = SystemClock().now_us() + 1000
        _, answer = ask(chain, chain.signature, [ROWS.tobytes()], [(3, 2)], deadline_us=soon_us)
        with pytest.raises(DeadlineError, match="step 'negate' was loaded"):
            await asyncio.wait_for(answer, 30)
        assert chain.in_flight == 0

    (shed,) = serve_from(repository, test).of(RequestShed)
    assert shed.reason is ShedReason.DEADLINE


class NeverLoads(Repository):
    async def wake(self, name: str, version: str) -> LocalModel:
        await asyncio.Event().wait()
        raise AssertionError((name, version))


def test_each_request_of_a_chain_is_told_once_whatever_becomes_of_it() -> None:
    models = diamond()

    async def test(chain: ChainEngine) -> None:
        await ask(chain, chain.signature, [ROWS.tobytes()], [(3, 2)], tenant="t", arrived_us=5)[1]
        models["negate"] = model(full)
        with pytest.raises(OverloadedError):
            await ask(chain, chain.signature, [ROWS.tobytes()], [(3, 2)])[1]
        models["negate"] = model(broken)
        with pytest.raises(RunError):
            await ask(chain, chain.signature, [ROWS.tobytes()], [(3, 2)])[1]
        models["negate"].hold = asyncio.Event()
        job, _ = ask(chain, chain.signature, [ROWS.tobytes()], [(3, 2)])
        await asyncio.sleep(0)
        chain.cancel(job)
        assert await chain.drain(10)

    log = serve(models, test)
    (ran,) = log.of(BatchRan)
    assert (ran.model, ran.version, ran.device, ran.rows, ran.arrived_us) == ("diamond", "1", "chain", 3, (5,))
    assert ran.tenants == ("t",)
    assert [fact.reason for fact in log.of(RequestShed)] == [ShedReason.QUEUE_FULL, ShedReason.CANCELLED]
    assert [fact.error for fact in log.of(RequestFailed)] == ["RunError"]


def broken(_: np.ndarray) -> np.ndarray:
    raise RunError("no such operator")


def test_later_models_count_from_the_moment_that_their_inputs_were_there() -> None:
    models = diamond()

    async def test(chain: ChainEngine) -> None:
        await ask(chain, chain.signature, [ROWS.tobytes()], [(3, 2)], arrived_us=SystemClock().now_us())[1]

    serve(models, test)
    first, last = models["double"].jobs[0], models["add"].jobs[0]
    assert first.arrived_us < last.arrived_us


def test_closing_a_chain_answers_those_that_wait() -> None:
    models = diamond()
    models["double"].hold = asyncio.Event()

    async def test(chain: ChainEngine) -> None:
        _, answer = ask(chain, chain.signature, [ROWS.tobytes()], [(3, 2)])
        await asyncio.sleep(0)
        assert not await chain.drain(0)
        await chain.close()
        with pytest.raises(NotReadyError, match="unloaded"):
            await answer

    serve(models, test)
