"""A server that adapts sets what a policy says on its engines, and takes it back; others are left as they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest

from hint_agent import await_true
from npuops import app
from npuops.build.options import BuildOptions
from npuops.cli.demo_models import digits
from npuops.events import ignore
from npuops.runtime.batch_curve import BatchCurve
from npuops.serving_adaptive import AdaptiveServing
from npuops.targets.protocol import Precision
from npuops.vnpu.control_client import control
from npuops.vnpu.daemon import Order
from npuops.vnpu.device_spec import spec_of
from npuops.vnpu.device_switch import up
from npuops.vnpu.pacing import Pacing
from running_server import Answer, Running, repository, serving
from served_artifacts import ort_artifact, tiny_cnn
from virtual_devices import home_at

pytestmark = pytest.mark.slow
"""Servers with worker processes."""

X = {"x": np.zeros((1, 1, 28, 28), np.float32)}


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifact")
    return ort_artifact(folder / "tiny", tiny_cnn(folder / "tiny.onnx")).root


def adaptive_of(running: Running) -> AdaptiveServing:
    found = running.server._adaptive
    assert found is not None
    return found


def test_a_model_with_an_slo_gets_a_queue_as_long_as_can_be_answered_in_time(artifact: Path, tmp_path: Path) -> None:
    options = 'inline = "never"\n[queue]\ndefault_timeout_ms = 50.0\nmax_requests = 100000\n'
    repo = repository(tmp_path / "repo", "tiny", {"a": artifact}, options)
    with serving(repo, adapt=True) as running:
        running.settled("tiny")
        await_true(lambda: adaptive_of(running).settings())
        await_true(lambda: adaptive_of(running).settings()["tiny", "1"].queue_requests < 100_000)
        assert running.ask("tiny", X).status == 200
        running.hang_up()


def test_a_model_without_an_slo_is_left_alone(artifact: Path, tmp_path: Path) -> None:
    repo = repository(tmp_path / "repo", "tiny", {"a": artifact}, 'inline = "never"\n')
    with serving(repo, adapt=True) as running:
        running.settled("tiny")
        assert running.ask("tiny", X).status == 200
        assert adaptive_of(running).settings() == {}
        running.hang_up()


def test_nobody_who_did_not_ask_for_it_is_adapted(artifact: Path, tmp_path: Path) -> None:
    with serving(repository(tmp_path / "repo", "tiny", {"a": artifact})) as running:
        assert running.server._adaptive is None


CHIP = "vnpu:rk3588"
DIGITS = digits()
PICTURE = {"image": np.asarray(DIGITS.evaluation.inputs[0]["image"])}


@pytest.fixture(scope="module")
def digits_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = BuildOptions(precision=Precision.A8W8, use_cache=False)
    folder = tmp_path_factory.mktemp("digits") / "npu"
    return app.run_request(DIGITS.request(CHIP, options), folder, observe=ignore).artifact.root


@pytest.fixture
def two_devices(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Virtual NPUs in real time, the second one with slow memory."""
    with home_at(tmp_path / "devices"):
        for name in ("fast", "slow"):
            up(Order(name=name, spec=spec_of(CHIP), pacing=Pacing.REALTIME))
        with control("slow") as device:
            device.inject({"kind": "slow_dma", "factor": 1000.0})
        yield f"{CHIP}/fast", f"{CHIP}/slow"


def test_under_a_crowd_the_slow_device_helps_and_the_end_of_the_adaptation_leaves_the_own_rule(
    digits_artifact: Path, tmp_path: Path, two_devices: tuple[str, str]
) -> None:
    tables = "".join(f'[[device]]\ntarget = "{CHIP}"\nname = "{name}"\n' for name in ("fast", "slow"))
    options = f'inline = "never"\n[queue]\ndefault_timeout_ms = 3000.0\n{tables}'
    repo = repository(tmp_path / "repo", "digits", {"npu": digits_artifact}, options)
    with serving(repo, adapt=True) as running:
        running.settled("digits")
        adaptive, stop = adaptive_of(running), Event()
        await_true(lambda: adaptive._watched)
        engine = adaptive._watched["digits", "1"].engine
        await_true(lambda: all(replica.ready for replica in engine.replicas.all))
        for replica, us in zip(engine.replicas.all, (1_000.0, 4_000.0), strict=True):
            replica.curves = (BatchCurve(((1, us),)),)  # as on a machine that is quiet while it measures
        await_true(lambda: adaptive.settings()["digits", "1"].spill_us > 0)
        await_true(lambda: engine._routing.spill_us > 0)
        answers: list[Answer] = []

        def client() -> None:
            while not stop.is_set():
                answers.append(running.ask("digits", PICTURE))
            running.hang_up()

        crowd = [Thread(target=client) for _ in range(24)]
        try:
            for each in crowd:
                each.start()
            await_true(lambda: {each.device for each in answers if each.status == 200} == set(two_devices))
        finally:
            stop.set()
            for each in crowd:
                each.join()
    assert (engine._routing.spill_us, adaptive.settings()) == (0.0, {})
