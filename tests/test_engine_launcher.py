from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from engine_lab import children, run, until
from npuops.artifacts.bundle import pack
from npuops.artifacts.manifest import Artifact
from npuops.clock import SystemClock
from npuops.errors import IntegrityError
from npuops.runtime.facts import ColdCause
from npuops.runtime.job import Completion, Job
from npuops.runtime.replicas import Services
from npuops.runtime.signature import form_of
from npuops.runtime.worker_process import SparePool
from npuops.server.engine_launcher import EngineLauncher
from npuops.server.model_options import ModelOptions
from npuops.server.served_version import ServedVersion
from npuops.server.version_signature import signature_of
from npuops.server.version_spec import FoundArtifact, VersionSpec
from npuops.testing import EventLog
from served_artifacts import ort_artifact, tiny_cnn


def found(path: Path, artifact: Artifact) -> FoundArtifact:
    return FoundArtifact(name=path.stem, path=path, manifest=artifact.manifest, stamp=())


def spec_of(*artifacts: FoundArtifact) -> VersionSpec:
    signature = signature_of([item.manifest for item in artifacts])
    return VersionSpec(
        model="tiny", version="1", artifacts=artifacts, signature=signature, options=ModelOptions(), digest="sha256:0"
    )


@asynccontextmanager
async def launching(scratch: Path) -> AsyncIterator[EngineLauncher]:
    scratch.mkdir()
    pool = SparePool(asyncio.get_running_loop(), 0)
    services = Services(loop=asyncio.get_running_loop(), clock=SystemClock(), observe=EventLog(), spares=pool)
    yield EngineLauncher(services, lambda _: 1.0, scratch)
    await pool.close()
    assert children() == []
    assert list(scratch.iterdir()) == [], "something was left behind"


async def asked(version: ServedVersion) -> object:
    future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    x = np.zeros((1, 1, 28, 28), np.float32)

    def receive(_: Job, what: object) -> None:
        future.set_result(type(what))

    form = form_of(version.signature, [x.shape])
    version.engine.submit(Job(form, [x.tobytes()], receive, SystemClock().now_us()))
    return await future


def test_a_bundle_is_unpacked_while_it_is_served_and_no_longer(tmp_path: Path) -> None:
    artifact = ort_artifact(tmp_path / "a", tiny_cnn(tmp_path / "tiny.onnx"))
    bundle = tmp_path / "tiny.npuart"
    pack(artifact.root, bundle)
    shutil.rmtree(tmp_path / "a")

    async def main() -> None:
        async with launching(tmp_path / "scratch") as launcher:
            version = await launcher.launch(spec_of(found(bundle, artifact)), ColdCause.LOAD)
            assert await asked(version) is Completion
            (pid,) = children()
            os.kill(pid, signal.SIGKILL)  # the one that starts again needs the files, too
            assert await asked(version) is Completion
            assert len(list((tmp_path / "scratch").iterdir())) == 1
            await version.close()
            await version.close()

    run(main())


def test_a_damaged_bundle_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    artifact = ort_artifact(tmp_path / "a", tiny_cnn(tmp_path / "tiny.onnx"))
    bundle = tmp_path / "tiny.npuart"
    pack(artifact.root, bundle)
    data = bytearray(bundle.read_bytes())
    data[len(data) // 2] ^= 1
    bundle.write_bytes(data)

    async def main() -> None:
        async with launching(tmp_path / "scratch") as launcher:
            with pytest.raises(IntegrityError, match=r"tiny\.npuart"):
                await launcher.launch(spec_of(found(bundle, artifact)), ColdCause.LOAD)

    run(main())


@pytest.mark.parametrize("stage", ["at once", "unpacking", "loading"])
def test_a_launch_that_is_cancelled_leaves_nothing(tmp_path: Path, stage: str) -> None:
    artifact = ort_artifact(tmp_path / "a", tiny_cnn(tmp_path / "tiny.onnx"))
    bundle, scratch = tmp_path / "tiny.npuart", tmp_path / "scratch"
    pack(artifact.root, bundle)
    reached = {"at once": lambda: True, "unpacking": lambda: list(scratch.iterdir()), "loading": children}[stage]

    async def main() -> None:
        async with launching(scratch) as launcher:
            launch = asyncio.ensure_future(launcher.launch(spec_of(found(bundle, artifact)), ColdCause.LOAD))
            await asyncio.sleep(0)
            await until(reached, "it does not get so far")
            launch.cancel()
            with pytest.raises(asyncio.CancelledError):
                await launch

    run(main())


def test_static_batches_are_one_version(tmp_path: Path) -> None:
    made = [ort_artifact(tmp_path / f"a{rows}", tiny_cnn(tmp_path / f"{rows}.onnx", batch=rows)) for rows in (1, 4)]

    async def main() -> None:
        async with launching(tmp_path / "scratch") as launcher:
            both = spec_of(*(found(artifact.root, artifact) for artifact in made))
            version = await launcher.launch(both, ColdCause.LOAD)
            assert await asyncio.gather(*(asked(version) for _ in range(7))) == [Completion] * 7
            await version.close()

    run(main())
