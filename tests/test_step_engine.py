"""A model with a pipeline, answering requests: real step processes around a model."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from npuops.artifacts.folder import open_artifact
from npuops.build.options import BuildOptions
from npuops.build.pipeline import BuildRequest, build
from npuops.clock import SystemClock
from npuops.errors import DataError, DeadlineError, NotReadyError, OptionError, OverloadedError, RunError
from npuops.evaluate.sample_sources import random_samples
from npuops.models.open import open_model
from npuops.models.preprocessing import ImagePreprocessing
from npuops.models.zoo import zoo_model
from npuops.runtime.facts import RequestFailed, RequestShed, ShedReason
from npuops.runtime.job import Completion, Job
from npuops.runtime.signature import Port, Signature, port_of
from npuops.runtime.step_engine import PipelinedModel
from npuops.runtime.step_facts import StepsRan
from npuops.runtime.step_pool import StepOptions, StepPool
from npuops.runtime.text_tensor import read_text
from npuops.targets.protocol import Precision
from npuops.targets.registry import open_target
from npuops.testing import EventLog
from picture_models import COLOUR_PIPELINE, COLOUR_SIGNATURE, COLOURS, LocalModel, ask, colours, picture

image: Any = pytest.importorskip("PIL.Image", reason="images need the extra `images`")


def text(*elements: bytes) -> bytes:
    return b"".join(len(element).to_bytes(4, "little") + element for element in elements)


PARTS = (("colours", "1"), COLOUR_PIPELINE)


def serve(test: Callable[[PipelinedModel, LocalModel], Awaitable[None]], model: LocalModel | None = None) -> EventLog:
    inner, log = model or colours(), EventLog()

    async def run() -> None:
        pool = StepPool(StepOptions(processes=1), SystemClock(), log)
        await pool.start()
        try:
            await test(PipelinedModel(*PARTS, tuple(COLOURS), inner, pool, SystemClock(), log), inner)
        finally:
            await pool.close()

    asyncio.run(run())
    return log


def labels(found: Completion, rows: int) -> list[list[bytes]]:
    array: list[list[bytes]] = read_text(found.outputs[0], (rows, 2)).tolist()
    return array


def test_pictures_in_labels_out_in_their_order() -> None:
    async def test(served: PipelinedModel, inner: LocalModel) -> None:
        data = text(*(picture(colour) for colour in COLOURS.values()))
        _, answer = ask(served, served.signature, [data], [(3,)], deadline_us=1 << 60, tenant="camera", priority=2)
        found = await answer
        assert found.shapes == ((3, 2),) * 3
        assert [best for best, _ in labels(found, 3)] == [b"red", b"green", b"blue"]
        assert np.frombuffer(found.outputs[2], "<i8").reshape(3, 2)[:, 0].tolist() == [0, 1, 2]
        assert (np.frombuffer(found.outputs[1], "<f4").reshape(3, 2)[:, 0] > 0.9).all()
        assert (found.device, found.fell_back) == ("cpu", False)
        assert {(job.tenant, job.priority, job.deadline_us) for job in inner.jobs} == {("camera", 2, 1 << 60)}
        assert sorted(job.account for job in inner.jobs) == ["", "", "camera"], "one request, whatever it is made of"

    serve(test)


def test_one_bad_picture_fails_its_request_and_no_other() -> None:
    async def test(served: PipelinedModel, _: LocalModel) -> None:
        good = picture(COLOURS["blue"])
        _, bad = ask(served, served.signature, [text(good, b"nothing")], [(2,)])
        _, fine = ask(served, served.signature, [text(good)], [(1,)])
        with pytest.raises(DataError, match=r"picture 2 of 2: step decode_image: .*no readable image"):
            await bad
        assert labels(await fine, 1)[0][0] == b"blue"

    (failed,) = serve(test).of(RequestFailed)
    assert (failed.model, failed.version, failed.device, failed.error) == ("colours", "1", "host", "DataError")


def test_the_steps_have_a_time_of_their_own_and_the_model_counts_from_their_end() -> None:
    async def test(served: PipelinedModel, inner: LocalModel) -> None:
        asked_us = SystemClock().now_us()
        _, answer = ask(served, served.signature, [text(picture((1, 2, 3)))], [(1,)], arrived_us=asked_us, tenant="t")
        await answer
        arrivals.append((asked_us, inner.jobs[0].arrived_us))

    arrivals: list[tuple[int, int]] = []
    (fact,) = serve(test).of(StepsRan)
    assert (fact.model, fact.version, fact.tenant) == ("colours", "1", "t")
    assert fact.requested_us <= fact.arrived_us <= fact.started_us < fact.ended_us
    assert arrivals == [(fact.requested_us, fact.ended_us)]


def test_who_is_taken_back_before_its_picture_was_prepared_is_counted_as_that() -> None:
    async def test(served: PipelinedModel, inner: LocalModel) -> None:
        job, _ = ask(served, served.signature, [text(picture((1, 2, 3)))], [(1,)], tenant="t")
        await asyncio.sleep(0)
        served.cancel(job)
        assert await served.drain(10)
        assert not inner.jobs

    (fact,) = serve(test).of(RequestShed)
    assert (fact.tenant, fact.reason) == ("t", ShedReason.CANCELLED)


def test_a_late_picture_never_reaches_the_model() -> None:
    async def test(served: PipelinedModel, inner: LocalModel) -> None:
        _, answer = ask(served, served.signature, [text(picture((1, 2, 3)))], [(1,)], deadline_us=1)
        with pytest.raises(DeadlineError):
            await answer
        assert not inner.jobs

    (fact,) = serve(test).of(RequestShed)
    assert fact.reason is ShedReason.DEADLINE


def test_closing_answers_everybody_and_draining_waits() -> None:
    async def test(served: PipelinedModel, inner: LocalModel) -> None:
        inner.hold = asyncio.Event()
        _, answer = ask(served, served.signature, [text(picture((1, 2, 3)))], [(1,)])
        while not inner.jobs:
            await asyncio.sleep(0)
        assert served.in_flight == 1
        assert not await served.drain(0)
        await served.close()
        with pytest.raises(NotReadyError, match="unloaded"):
            await answer
        assert inner.jobs[0].cancelled
        with pytest.raises(NotReadyError):
            await ask(served, served.signature, [text(b"")], [(1,)])[1]
        assert await served.drain(0)

    serve(test)


def test_bytes_that_are_no_text_tensor_are_refused() -> None:
    async def test(served: PipelinedModel, _: LocalModel) -> None:
        _, answer = ask(served, served.signature, [b"\xff\xff\xff\x7fabc"], [(1,)])
        with pytest.raises(DataError, match="element 0"):
            await answer

    serve(test)


def refusing(_: np.ndarray) -> np.ndarray:
    raise OverloadedError("the queue is full", retry_after_s=3.0)


def failing(_: np.ndarray) -> np.ndarray:
    return np.zeros((1, 2))


def test_the_models_own_error_is_the_answer() -> None:
    async def test(served: PipelinedModel, _: LocalModel) -> None:
        _, answer = ask(served, served.signature, [text(picture((1, 2, 3)))], [(1,)])
        with pytest.raises(OverloadedError) as caught:
            await answer
        assert caught.value.retry_after_s == 3.0

    serve(test, LocalModel(COLOUR_SIGNATURE, refusing))


def test_scores_that_do_not_fit_the_labels_are_an_error() -> None:
    async def test(served: PipelinedModel, _: LocalModel) -> None:
        _, answer = ask(served, served.signature, [text(picture((1, 2, 3)))], [(1,)])
        with pytest.raises(RunError, match="2 scores"):
            await answer

    serve(test, LocalModel(COLOUR_SIGNATURE, failing))


def test_a_request_that_nobody_waits_for_is_taken_back_from_the_model() -> None:
    async def test(served: PipelinedModel, inner: LocalModel) -> None:
        inner.hold = asyncio.Event()
        job, answer = ask(served, served.signature, [text(picture((1, 2, 3)))], [(1,)])
        while not inner.jobs:
            await asyncio.sleep(0)
        served.cancel(job)
        while not inner.jobs[0].cancelled:
            await asyncio.sleep(0)
        inner.hold.set()
        await asyncio.sleep(0)
        assert not answer.done()
        assert job.cancelled

    serve(test)


def test_a_defect_of_a_model_is_an_answer_too(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(LocalModel):
        def submit(self, job: Job) -> None:
            raise ZeroDivisionError(job.tenant)

    async def test(served: PipelinedModel, _: LocalModel) -> None:
        _, answer = ask(served, served.signature, [text(picture((1, 2, 3)))], [(1,)])
        with pytest.raises(RunError, match="ZeroDivisionError"):
            await answer

    serve(test, Broken(COLOUR_SIGNATURE, failing))
    assert "a pipeline failed" in caplog.text


def test_a_pipeline_of_another_model_is_refused_when_it_is_loaded() -> None:
    pool = StepPool(StepOptions(), SystemClock(), EventLog())
    other = Signature(inputs=(), outputs=(), batched=False, max_rows=1)
    eight_rows = replace(COLOUR_SIGNATURE, inputs=(Port(name="x", dtype="float32", shape=(8, 3, 4, 4)),))
    for signature in (other, eight_rows):
        with pytest.raises(OptionError):
            PipelinedModel(*PARTS, None, LocalModel(signature, refusing), pool, SystemClock(), EventLog())


def test_an_artifact_built_with_a_pipeline_reads_handwriting(tmp_path: Path) -> None:
    zoo = zoo_model("digits-cnn")
    request = BuildRequest(
        model=zoo.model,
        target="ort-cpu",
        evaluation=random_samples(open_model(zoo.model).inputs, 8, 0),
        options=BuildOptions(precision=Precision.FP32),
        labels=zoo.class_names(),
        image=ImagePreprocessing(),
        pipeline="image-classification",
    )
    build(request, tmp_path / "art")
    artifact = open_artifact(tmp_path / "art")
    manifest = artifact.manifest
    assert manifest.pipeline is not None
    runner = open_target("ort-cpu").runner
    assert runner is not None
    session = runner.open(artifact)
    signature = Signature(
        inputs=tuple(port_of(tensor, batched=False) for tensor in manifest.inputs),
        outputs=tuple(port_of(tensor, batched=False) for tensor in manifest.outputs),
        batched=False,
        max_rows=1,
    )
    model = LocalModel(signature, lambda x: session.run({manifest.inputs[0].name: x})["logits"])
    data = np.load(zoo.evaluation)
    pixels = (data["image"].reshape(-1, 8, 8)[:20] * 255).round().astype(np.uint8)

    async def run() -> list[bytes]:
        pool = StepPool(StepOptions(processes=1), SystemClock(), EventLog())
        await pool.start()
        assert manifest.pipeline is not None
        served = PipelinedModel(
            ("digits", "1"), manifest.pipeline, manifest.labels, model, pool, SystemClock(), EventLog()
        )
        pictures = [picture_of(one) for one in pixels]
        _, answer = ask(served, served.signature, [text(*pictures)], [(20,)])
        found = await answer
        await pool.close()
        return [row[0] for row in read_text(found.outputs[0], (20, 5)).tolist()]

    wanted = [zoo.class_names()[label].encode() for label in data["labels"][:20]]
    right = sum(found == label for found, label in zip(asyncio.run(run()), wanted, strict=True))
    assert right >= 18


def picture_of(pixels: np.ndarray) -> bytes:

    buffer = io.BytesIO()
    image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
