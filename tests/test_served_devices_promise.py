"""Devices that fail while clients ask: no request is lost that the policy lets another device answer in time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from numpy.typing import NDArray

from npuops import app
from npuops.artifacts.manifest import Artifact
from npuops.build.engine import run_engine
from npuops.build.options import BuildOptions
from npuops.cli.demo_models import digits
from npuops.evaluate.samples import make_samples
from npuops.events import ignore
from npuops.runtime.engine import Engine
from npuops.runtime.facts import BatchRan
from npuops.targets.protocol import Precision
from npuops.vnpu.client import connect
from npuops.vnpu.control_client import DeviceControl, control
from npuops.vnpu.daemon import Order
from npuops.vnpu.device_spec import spec_of
from npuops.vnpu.device_switch import down, up
from npuops.vnpu.pacing import Pacing
from npuops.vnpu.tenancy import Priority
from running_server import Answer, Running, clients, repository, serving, wait_for
from virtual_devices import home_at

pytestmark = pytest.mark.slow
"""Whole servers and clients as processes: minutes together; CI runs them."""

CHIP = "vnpu:rk3588"
DIGITS = digits()
PICTURE: NDArray[Any] = DIGITS.evaluation.inputs[0]["image"]
NPU, CPU = f"{CHIP}/npu0", "ort-cpu"
SECONDS = 10**6
Artifacts = dict[str, Artifact]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    """The same digits for the virtual chip and for this processor."""
    folder = tmp_path_factory.mktemp("built")
    options = BuildOptions(precision=Precision.A8W8, use_cache=False)
    return {
        name: app.run_request(DIGITS.request(target, options), folder / name, observe=ignore).artifact
        for name, target in (("npu", CHIP), ("cpu", CPU))
    }


@pytest.fixture(scope="module")
def right(built: Artifacts) -> dict[str, bytes]:
    """Device → the bits of its answer to `PICTURE`."""
    samples = make_samples([{"image": PICTURE}], source="test")
    found = {name: run_engine(artifact, samples).outputs["logits"][0].tobytes() for name, artifact in built.items()}
    return {NPU: found["npu"], f"{CHIP}/npu1": found["npu"], CPU: found["cpu"]}


@pytest.fixture(autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with home_at(tmp_path_factory.mktemp("devices") / "home"):
        yield


def switch_on(name: str = "npu0", pacing: Pacing = Pacing.FAST, ambient_c: float | None = None) -> None:
    spec = spec_of(CHIP)
    up(Order(name=name, spec=spec if ambient_c is None else spec.at_ambient(ambient_c), pacing=pacing))


def with_fallback(folder: Path, built: Artifacts, policy: str = "allow") -> Path:
    """A model on `npu0`, that this processor may answer for."""
    devices = f'[[device]]\ntarget = "{CHIP}"\nname = "npu0"\n[[device]]\ntarget = "{CPU}"\nfallback = true\n'
    return repository(folder, "digits", built, f'fallback = "{policy}"\n{devices}')


@contextmanager
def working(folder: Path, built: Artifacts, policy: str = "allow", pacing: Pacing = Pacing.FAST) -> Iterator[Running]:
    """A server, loaded, whose model has the device `npu0` and this processor for its fallback."""
    switch_on(pacing=pacing)
    with serving(with_fallback(folder, built, policy)) as server:
        assert server.settled("digits") == ""
        yield server


def asking(server: Running, timeout_us: int = 20 * SECONDS) -> Callable[[], Answer]:
    return lambda: server.ask("digits", {"image": PICTURE}, timeout_us=timeout_us)


def comes_from(device: str, answers: Sequence[Answer], count: int = 20) -> Callable[[], bool]:
    """Whether the latest answers are all of that device."""
    return lambda: len(answers) >= count and all(a.status == 200 and a.device == device for a in answers[-count:])


def lost(answers: Sequence[Answer], right: dict[str, bytes]) -> Counter[str]:
    """What went wrong, by the server's words; a wrong answer is as bad as none."""
    words: Counter[str] = Counter()
    for answer in answers:
        if answer.status != 200:
            words[f"{answer.status}: {answer.said['error']}"] += 1
        elif answer.outputs["logits"].tobytes() != right[answer.device]:
            words[f"{answer.device}: wrong"] += 1
        elif answer.fell_back != (answer.device == CPU):
            words[f"{answer.device}: says that it fell back: {answer.fell_back}"] += 1
    return words


def off(device: DeviceControl) -> None:
    device.inject({"kind": "offline"})


def hangs(device: DeviceControl) -> None:
    device.inject({"kind": "hang"})


def has_no_memory(device: DeviceControl) -> None:
    device.inject({"kind": "oom_pressure", "share": 1.0})


def crashes(device: DeviceControl) -> None:
    device.inject({"kind": "driver_crash"})


def heals(device: DeviceControl) -> None:
    device.clear_faults()
    device.reset()


@pytest.mark.parametrize(
    ("fails", "deadline_s"),
    [(off, 20), (has_no_memory, 20), (crashes, 20), (hangs, 2)],
    ids=lambda it: str(getattr(it, "__name__", it)),
)
def test_while_a_device_is_sick_the_fallback_answers_in_time_and_afterwards_it_is_used_again(
    built: Artifacts,
    right: dict[str, bytes],
    tmp_path: Path,
    fails: Callable[[DeviceControl], None],
    deadline_s: int,
) -> None:
    """Also while it hangs, which is noticed well before such a deadline passes."""
    with working(tmp_path, built) as server:
        with clients(server, 4, asking(server, deadline_s * SECONDS)) as answers:
            wait_for(comes_from(NPU, answers), "the device is not used")
            with control("npu0") as device:
                fails(device)
                wait_for(comes_from(CPU, answers), "the fallback is not used")
                heals(device)
            wait_for(comes_from(NPU, answers), "the device is not used again")
        assert lost(answers, right) == {}
        assert server.states("digits")[NPU] == "ready"


def test_a_device_that_is_gone_is_used_again_when_one_of_its_name_is_up(
    built: Artifacts, right: dict[str, bytes], tmp_path: Path
) -> None:
    with working(tmp_path, built) as server:
        with clients(server, 4, asking(server)) as answers:
            wait_for(comes_from(NPU, answers), "the device is not used")
            down("npu0")
            wait_for(comes_from(CPU, answers), "the fallback is not used")
            switch_on()
            wait_for(comes_from(NPU, answers), "the device is not used again")
        assert lost(answers, right) == {}


def test_resets_under_load_lose_nothing(built: Artifacts, right: dict[str, bytes], tmp_path: Path) -> None:
    with working(tmp_path, built, pacing=Pacing.REALTIME) as server:
        with clients(server, 4, asking(server)) as answers, control("npu0") as device:
            for _ in range(5):
                wait_for(comes_from(NPU, answers, len(answers) + 20), "the device is not used")
                device.reset()
            wait_for(comes_from(NPU, answers), "the device is not used again")
        assert lost(answers, right) == {}


def test_a_slow_device_goes_on_and_what_it_would_answer_too_late_falls_back(
    built: Artifacts, right: dict[str, bytes], tmp_path: Path
) -> None:
    with working(tmp_path, built, pacing=Pacing.REALTIME) as server:
        with control("npu0") as device, clients(server, 1, asking(server)) as answers:
            wait_for(comes_from(NPU, answers), "the device is not used")
            device.inject({"kind": "slow_dma", "factor": 30_000.0})
            wait_for(comes_from(NPU, answers, len(answers) + 60), "a slow device is no sick one")
            slow_s = min(answer.seconds for answer in answers[-20:])
        assert lost(answers, right) == {}
        hurried = [asking(server, int(slow_s * SECONDS / 2))() for _ in range(20)]
        assert Counter(answer.device for answer in hurried if answer.status == 200)[CPU] >= 10, hurried
        assert lost([asking(server)()], right) == {}
        assert server.states("digits")[NPU] == "ready"


def test_forbid_says_why_and_when_to_ask_again(built: Artifacts, right: dict[str, bytes], tmp_path: Path) -> None:
    with working(tmp_path, built, "forbid") as server:
        ask = asking(server)
        assert ask().device == NPU
        with control("npu0") as device:
            off(device)
            with clients(server, 4, ask) as answers:
                wait_for(lambda: sum(a.status == 503 for a in answers) >= 100, "it waits for a device that is off")
            assert {answer.status for answer in answers} == {503}
            assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers)
            assert all("forbids the fallback" in answer.said["error"] for answer in answers)
            heals(device)
        wait_for(lambda: ask().status == 200, "the device is not used again")
        assert lost([ask()], right) == {}


def test_a_request_may_forbid_what_the_model_allows(built: Artifacts, tmp_path: Path) -> None:
    with working(tmp_path, built) as server:
        with control("npu0") as device:
            off(device)
        ask = asking(server)
        wait_for(lambda: ask().device == CPU, "the fallback is not used")
        refused = server.ask("digits", {"image": PICTURE}, npuops_fallback="forbid")
        assert refused.status == 503
        assert "the request forbids the fallback" in refused.said["error"]
        assert ask().status == 200


def test_a_budget_answers_its_share_while_the_device_is_away(
    built: Artifacts, right: dict[str, bytes], tmp_path: Path
) -> None:
    with working(tmp_path, built, "budget=0.1") as server:
        assert asking(server)().device == NPU
        with control("npu0") as device:
            off(device)
        with clients(server, 4, asking(server)) as answers:
            wait_for(lambda: len(answers) >= 2_000, "requests wait for a device that is off")
        good = [answer for answer in answers if answer.status == 200]
        assert lost(good, right) == {}
        assert {answer.device for answer in good} == {CPU}
        assert {answer.status for answer in answers} == {200, 503}
        assert len(good) / len(answers) == pytest.approx(0.1, abs=0.01)


def test_two_devices_share_the_load_and_one_takes_it_all_while_the_other_is_away(
    built: Artifacts, right: dict[str, bytes], tmp_path: Path
) -> None:
    for name in ("npu0", "npu1"):
        switch_on(name, Pacing.REALTIME)
    devices = "".join(f'[[device]]\ntarget = "{CHIP}"\nname = "{name}"\n' for name in ("npu0", "npu1"))
    other = f"{CHIP}/npu1"
    with serving(repository(tmp_path, "digits", {"npu": built["npu"]}, devices)) as server:
        assert server.settled("digits") == ""
        with clients(server, 6, asking(server)) as answers:
            wait_for(lambda: len(answers) >= 1_000, "6 clients get no answers")
            shares = Counter(answer.device for answer in answers)
            assert min(shares[NPU], shares[other]) > 0.05 * sum(shares.values()), shares
            with control("npu0") as device:
                off(device)
                wait_for(comes_from(other, answers, 50), "the other device does not take over")
                heals(device)
            wait_for(lambda: answers[-1].device == NPU, "the device is not used again")
        assert lost(answers, right) == {}


def test_the_device_that_is_expected_to_be_done_later_gets_the_smaller_share(built: Artifacts, tmp_path: Path) -> None:
    for name in ("npu0", "npu1"):
        switch_on(name, Pacing.REALTIME)
    devices = "".join(f'[[device]]\ntarget = "{CHIP}"\nname = "{name}"\n' for name in ("npu0", "npu1"))
    with control("npu1") as device:
        device.inject({"kind": "slow_dma", "factor": 1000.0})
    with serving(repository(tmp_path, "digits", {"npu": built["npu"]}, devices)) as server:
        assert server.settled("digits") == ""
        with clients(server, 3, asking(server)) as answers:
            wait_for(lambda: len(answers) >= 500, "3 clients get no answers")
        shares = Counter(answer.device for answer in answers)
        served = server.server.repository.serving["digits", ""]
        assert isinstance(served.engine, Engine)
        expected_us = {replica.spec.name: replica.curves[0].us(1) for replica in served.engine.replicas.all}
        fast, slow = sorted(expected_us, key=lambda name: expected_us[name])
        assert shares[fast] > shares[slow], (shares, expected_us)


def test_a_stronger_tenant_of_the_device_makes_requests_slower_and_loses_none(
    built: Artifacts, right: dict[str, bytes], tmp_path: Path
) -> None:
    with working(tmp_path, built, pacing=Pacing.REALTIME) as server:
        with clients(server, 2, asking(server)) as answers, control("npu0") as device:
            wait_for(comes_from(NPU, answers), "the device is not used")
            device.inject({"kind": "noisy_neighbour", "priority": Priority.NORMAL.word})
            wait_for(comes_from(NPU, answers, len(answers) + 20), "a shared device is no sick one")
            device.clear_faults()
        assert lost(answers, right) == {}


def test_the_worker_is_one_tenant_of_the_device_with_normal_priority(built: Artifacts, tmp_path: Path) -> None:
    with working(tmp_path, built) as server:
        (start,) = [start for start in server.starts("digits") if start.device == NPU]
        with connect("npu0") as onlooker:
            contexts = {context.pid: context for context in onlooker.status().telemetry.contexts}
        assert contexts[start.pid].priority == Priority.NORMAL.word
        assert len(server.events.of(BatchRan)) == 0
