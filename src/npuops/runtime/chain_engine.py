"""A chain answering: each model begins as soon as what it needs is there, so what need not wait runs together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from npuops.errors import NotReadyError, NpuopsError
from npuops.runtime.chain import ChainPlan, PlannedStep
from npuops.runtime.job import Bytes, Completion, Job
from npuops.runtime.signature import Form, Shape, form_of
from npuops.runtime.step_engine import Errands, Inferred, Model, infer

_FORMS_KEPT: Final = 1024

FindModel = Callable[[str, str], Model]
"""(model, version or "") → what answers now; raises NotServedError or NotReadyError where nothing does."""

Tensor = tuple[Bytes, Shape]


class ChainEngine:
    """One version of a chain. It holds no model: it asks for each anew, so that a swapped one is used at once.

    Attributes:
        plan: that it follows; whoever publishes a model with another signature plans the chain anew.
    """

    def __init__(self, plan: ChainPlan, find: FindModel) -> None:
        """Ready to answer."""
        self.plan = plan
        self._find = find
        self._errands = Errands()
        self._forms: dict[tuple[int, tuple[Shape, ...]], Form] = {}

    @property
    def is_ready(self) -> bool:
        """Every model of it is."""
        try:
            return all(self._find(step.model, step.version).is_ready for step in self.plan.steps)
        except NpuopsError:
            return False

    @property
    def in_flight(self) -> int:
        """Requests under way."""
        return len(self._errands)

    def submit(self, job: Job) -> None:
        """Take a request; its receiver is called exactly once, unless the job is cancelled."""
        self._errands.start(job, self._answer(job))

    def cancel(self, job: Job) -> None:
        """Nobody waits for it any more: no further step begins."""
        self._errands.cancel(job)

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
        model = self._find(step.model, step.version)
        run = await infer(
            model, job, self._form(index, tuple(shape for _, shape in given)), [part for part, _ in given]
        )
        if len(run.outputs) != len(step.gives):
            raise NotReadyError(f"model {step.model!r} was replaced by one with other outputs", retry_after_s=0.1)
        for name, part, shape in zip(step.gives, run.outputs, run.shapes, strict=True):
            if name:
                tensors[name].set_result((part, shape))
        return run

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
