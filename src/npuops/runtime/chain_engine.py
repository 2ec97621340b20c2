"""A chain answering: each model begins as soon as what it needs is there, so what need not wait runs together."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final, Protocol

from npuops.clock import Clock
from npuops.errors import DataError, DeadlineError, NotReadyError, NotServedError, NpuopsError
from npuops.events import Observer
from npuops.runtime.chain import ChainPlan, PlannedStep
from npuops.runtime.facts import BatchRan
from npuops.runtime.job import NO_DEADLINE, Bytes, Completion, Job
from npuops.runtime.signature import Form, Shape, Signature, form_of
from npuops.runtime.step_errands import Errands, Inferred, Model, first_error, infer
from npuops.runtime.step_facts import cancelled, unanswered

CHAIN: Final = "chain"
"""The device of a chain, in facts and metrics: it runs on those of its models, which report for themselves."""
_FORMS_KEPT: Final = 1024

Tensor = tuple[Bytes, Shape]


class Members(Protocol):
    """The models that are served now. A version "" is the default one."""

    def find(self, model: str, version: str) -> Model | None:
        """What answers; None where nothing does: it may be cold."""
        ...

    async def wake(self, model: str, version: str) -> Model:
        """What answers, as soon as it is loaded.

        Raises:
            NpuopsError: it is not served, or does not load.
        """
        ...

    def is_ready(self, model: str, version: str) -> bool:
        """A request gets an answer: now, or after a cold start."""
        ...


class ChainEngine:
    """One version of a chain. It holds no model: it asks for each anew, so that a swapped one is used at once.

    Attributes:
        plan: that it follows; whoever publishes a model with another signature plans the chain anew.
        last_used_us: when the last request came.
    """

    def __init__(
        self, identity: tuple[str, str], plan: ChainPlan, members: Members, clock: Clock, observe: Observer
    ) -> None:
        """Ready to answer.

        Args:
            identity: model and version, for the facts.
            plan: of the chain.
            members: where its models are.
            clock: theirs.
            observe: gets the facts of the chain; its models report their own.
        """
        self.plan = plan
        self._identity, self._members = identity, members
        self._clock, self._observe = clock, observe
        self._errands = Errands("chain")
        self._forms: dict[tuple[int, tuple[Shape, ...]], Form] = {}
        self.last_used_us = clock.now_us()

    @property
    def signature(self) -> Signature:
        """As clients see it."""
        return self.plan.signature

    @property
    def is_ready(self) -> bool:
        """Every model of it is."""
        return all(self._members.is_ready(step.model, step.version) for step in self.plan.steps)

    @property
    def in_flight(self) -> int:
        """Requests under way."""
        return len(self._errands)

    def submit(self, job: Job) -> None:
        """Take a request; its receiver is called exactly once, unless the job is cancelled."""
        self.last_used_us = job.arrived_us
        self._errands.start(job, self._reported(job))

    def cancel(self, job: Job) -> None:
        """Nobody waits for it any more: no further step begins."""
        self._errands.cancel(job)

    async def drain(self, limit_s: float) -> bool:
        """Wait until all that was taken is answered; False where the time is over first."""
        return await self._errands.drain(limit_s)

    async def close(self) -> None:
        """Refuse what is under way. The models stay."""
        await self._errands.close("the chain is being unloaded")

    async def _reported(self, job: Job) -> Completion:
        model, version = self._identity
        try:
            found = await self._answer(job)
        except asyncio.CancelledError:
            self._observe(cancelled(self._identity, job.account))
            raise
        except BaseException as group:
            error = first_error(group)
            if isinstance(error, NpuopsError):
                self._observe(unanswered(self._identity, job.account, CHAIN, error))
            raise
        now_us = self._clock.now_us()
        self._observe(
            BatchRan(
                model=model,
                version=version,
                device=CHAIN,
                fell_back=found.fell_back,
                inline=False,
                arrived_us=(job.arrived_us,),
                tenants=(job.account,),
                rows=job.form.rows,
                padded_rows=0,
                dispatched_us=job.arrived_us,
                started_us=job.arrived_us,
                computed_us=now_us,
                answered_us=now_us,
            )
        )
        return found

    async def _answer(self, job: Job) -> Completion:
        names = [port.name for port in self.plan.signature.inputs]
        loop = asyncio.get_running_loop()
        wanted = {name for step in self.plan.steps for name in step.gives if name}
        tensors: dict[str, asyncio.Future[Tensor]] = {name: loop.create_future() for name in (*names, *wanted)}
        for name, part, shape in zip(names, job.parts, job.form.shapes, strict=True):
            tensors[name].set_result((part, shape))
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._step(index, step, job, tensors)) for index, step in enumerate(self.plan.steps)
            ]
        found = [tensors[port.name].result() for port in self.plan.signature.outputs]
        runs = [task.result() for task in tasks]
        return Completion(
            [part for part, _ in found],
            tuple(shape for _, shape in found),
            "+".join(dict.fromkeys(run.device for run in runs)),
            fell_back=any(run.fell_back for run in runs),
        )

    async def _step(
        self, index: int, step: PlannedStep, job: Job, tensors: Mapping[str, asyncio.Future[Tensor]]
    ) -> Inferred:
        given = [await tensors[name] for name in step.takes]
        model = await self._model(step, job.deadline_us)
        try:
            form = self._form(index, tuple(shape for _, shape in given))
        except DataError as error:
            raise DataError(f"step {step.model!r}: {error.message}", advice=error.advice) from error
        run = await infer(model, job, form, [part for part, _ in given], self._clock.now_us(), account="")
        for name, part, shape in zip(step.gives, run.outputs, run.shapes, strict=True):
            if name:
                tensors[name].set_result((part, shape))
        return run

    async def _model(self, step: PlannedStep, deadline_us: int) -> Model:
        """The model of a step, woken if need be.

        Raises:
            NotReadyError: it is not there now, or takes and gives something else than it did.
            DeadlineError: the time is over, and it is not loaded yet.
            NpuopsError: it does not load.
        """
        model = self._members.find(step.model, step.version)
        if model is None:
            try:
                async with asyncio.timeout(self._left_s(deadline_us)):
                    model = await self._members.wake(step.model, step.version)
            except TimeoutError:
                words = f"the deadline passed while step {step.model!r} was loaded"
                raise DeadlineError(words, advice="allow more time") from None
            except NotServedError as error:
                raise NotReadyError(f"step {step.model!r}: {error.message}", advice=error.advice) from error
        if model.signature != step.signature:
            raise NotReadyError(f"step {step.model!r} was replaced by a model with other tensors", retry_after_s=0.1)
        return model

    def _left_s(self, deadline_us: int) -> float | None:
        """Until the deadline; None where there is none."""
        return (deadline_us - self._clock.now_us()) / 1e6 if deadline_us < NO_DEADLINE else None

    def _form(self, index: int, shapes: tuple[Shape, ...]) -> Form:
        """Of a step's request; the same object for the same shapes, as engines like it.

        Raises:
            DataError: what an earlier model gave is nothing that this one takes.
        """
        found = self._forms.get((index, shapes))
        if found is None:
            if len(self._forms) >= _FORMS_KEPT:
                self._forms.clear()
            found = self._forms[index, shapes] = form_of(self.plan.steps[index].signature, shapes)
        return found
