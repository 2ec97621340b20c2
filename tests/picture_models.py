"""Pictures, and models that answer in this process, for the tests of pipelines and chains."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from npuops.errors import NpuopsError
from npuops.models.steps import CenterCrop, DecodeImage, Normalize, Pipeline, Resize, Softmax, TopK, ToTensor
from npuops.runtime.job import Completion, Job
from npuops.runtime.signature import Port, Shape, Signature, form_of

COLOURS = {"red": (250, 10, 20), "green": (10, 250, 20), "blue": (10, 20, 250)}
COLOUR_PIPELINE = Pipeline(
    input="x",
    preprocess=(DecodeImage(), Resize(height=4, width=4), CenterCrop(height=4, width=4), Normalize(), ToTensor()),
    postprocess=(Softmax(tensor="y"), TopK(tensor="y", k=2)),
)
COLOUR_SIGNATURE = Signature(
    inputs=(Port(name="x", dtype="float32", shape=(1, 3, 4, 4)),),
    outputs=(Port(name="y", dtype="float32", shape=(1, 3)),),
    batched=False,
    max_rows=1,
)


def picture(colour: tuple[int, int, int], size: tuple[int, int] = (12, 10)) -> bytes:
    from PIL import Image  # noqa: PLC0415 - the tests that use it skip without the extra

    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def large_picture() -> bytes:
    """Noise that takes a while to decode."""
    from PIL import Image  # noqa: PLC0415 - as above

    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (3000, 3000, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


class LocalModel:
    """Computes with numpy, and answers as an engine does: later, from memory that is written over afterwards."""

    def __init__(self, signature: Signature, compute: Callable[..., Any]) -> None:
        self.signature, self._compute = signature, compute
        self.is_ready = True
        self.jobs: list[Job] = []
        self.hold: asyncio.Event | None = None

    def submit(self, job: Job) -> None:
        self.jobs.append(job)
        asyncio.get_running_loop().create_task(self._answer(job))

    def cancel(self, job: Job) -> None:
        job.cancelled = True

    async def _answer(self, job: Job) -> None:
        if self.hold is not None:
            await self.hold.wait()
        inputs = [
            np.frombuffer(part, dtype=port.dtype).reshape(shape)
            for part, port, shape in zip(job.parts, self.signature.inputs, job.form.shapes, strict=True)
        ]
        try:
            outputs = self._compute(*inputs)
        except NpuopsError as error:
            job.receiver(job, error)
            return
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        arrays = [
            np.ascontiguousarray(array, dtype=port.dtype)
            for array, port in zip(outputs, self.signature.outputs, strict=True)
        ]
        memory = [bytearray(array.tobytes()) for array in arrays]
        views = [memoryview(part) for part in memory]
        if not job.cancelled:
            job.receiver(job, Completion(views, tuple(array.shape for array in arrays), "cpu", fell_back=False))
        for part in memory:
            part[:] = b"\xff" * len(part)


def colours() -> LocalModel:
    """Scores are the means of the channels, ten times."""
    return LocalModel(COLOUR_SIGNATURE, lambda x: x.mean(axis=(2, 3)) * 10)


def ask(
    model: Any, signature: Signature, parts: Sequence[bytes], shapes: Sequence[Shape], **options: Any
) -> tuple[Job, asyncio.Future[Completion]]:
    """Send a request; the future is its answer."""
    answer: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()

    def receive(_: Job, found: Completion | NpuopsError) -> None:
        assert not answer.done(), "a receiver is called once"
        if isinstance(found, NpuopsError):
            answer.set_exception(found)
        else:
            answer.set_result(found)

    job = Job(form_of(signature, shapes), parts, receive, **{"arrived_us": 0, **options})
    model.submit(job)
    return job, answer
