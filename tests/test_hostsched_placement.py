"""Where the policy runs follows what was measured, and a stand-in is never chosen by itself."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import msgspec
import pytest

from made_policy import made_policy
from npuops.errors import DataError
from npuops.events import Warned
from npuops.hostsched.placement import Cost, PlaceCosts, choose, crossover
from npuops.hostsched.placement_trial import auto_placement
from npuops.hostsched.policy_card import PolicyFolder
from npuops.units import Basis
from npuops.vnpu.daemon import Order
from npuops.vnpu.device_folder import Record
from npuops.vnpu.device_switch import down, up
from npuops.vnpu.pacing import Pacing
from npuops.vnpu.profile import load_profile, machine_spec
from virtual_devices import home  # noqa: F401 - a fixture


def place(name: str, *costs: tuple[int, float, float], basis: Basis = Basis.MEASURED) -> PlaceCosts:
    rows = tuple(Cost(candidates=count, latency_us=wall, cpu_us=cpu) for count, wall, cpu in costs)
    return PlaceCosts(place=name, basis=basis, costs=rows)


CPU = place("numpy", (1, 100, 100), (101, 1100, 1100))
NPU = place("npu:x", (1, 600, 200), (101, 700, 210))


def test_the_least_cpu_time_wins_among_those_in_time() -> None:
    assert choose(1, [CPU, NPU], limit_us=5000).place == "numpy"
    assert choose(64, [CPU, NPU], limit_us=5000).place == "npu:x"
    assert choose(1, [NPU, CPU], limit_us=500).place == "numpy"


def test_if_none_is_in_time_the_fastest_wins_and_it_says_so() -> None:
    found = choose(101, [CPU, NPU], limit_us=10)
    assert found.place == "npu:x"
    assert "none answers within 10 us" in found.why


def test_an_emulator_is_never_chosen() -> None:
    emulated = place("npu:qnn", (1, 1, 0), basis=Basis.EMULATED)
    assert choose(1, [CPU, emulated], limit_us=5000).place == "numpy"
    with pytest.raises(DataError, match="no place"):
        choose(1, [emulated], limit_us=5000)


def test_costs_between_and_beyond_what_was_measured_lie_on_a_line() -> None:
    assert CPU.at(51).cpu_us == pytest.approx(600)
    assert CPU.at(201).cpu_us == pytest.approx(2100)
    assert place("one", (64, 5, 5)).at(1000).cpu_us == 5


def test_the_crossover_is_where_the_other_place_begins_to_be_cheaper_for_good() -> None:
    assert crossover(CPU, NPU, 4096) == 12
    assert crossover(NPU, CPU, 4096) is None


@pytest.mark.parametrize("costs", [(), ((4, 1, 1), (2, 1, 1)), ((1, -1, 1),), ((1, 1, float("nan")),)])
def test_costs_in_which_nothing_can_be_read_are_refused(costs: tuple[tuple[int, float, float], ...]) -> None:
    with pytest.raises(DataError):
        place("odd", *costs)


def test_auto_measures_once_per_machine_and_survives_a_damaged_or_closed_cache(tmp_path: Path) -> None:
    policy = made_policy(tmp_path / "policy", "ort-cpu")
    cache = tmp_path / "cache"
    first = auto_placement(policy, 8, 5000, cache=cache)
    (file,) = (cache / "hostsched").iterdir()
    assert auto_placement(policy, 8, 5000, cache=cache) == first
    file.write_bytes(b"{")
    assert auto_placement(policy, 8, 5000, cache=cache).place in {"numpy", "ort-cpu"}
    assert file.read_bytes() != b"{"
    (tmp_path / "plain").write_text("no folder")
    events: list[object] = []
    assert auto_placement(policy, 8, 5000, cache=tmp_path / "plain", observe=events.append).place
    assert isinstance(events[0], Warned)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> PolicyFolder:
    return made_policy(tmp_path_factory.mktemp("policy") / "made", "ort-cpu", "vnpu:rk3588")


def chip(name: str, profile: str = "rk3588", pacing: Pacing = Pacing.REALTIME) -> Record:
    return up(Order(name=name, spec=machine_spec(load_profile(profile)), pacing=pacing))


def remembered(policy: PolicyFolder, cache: Path, cpu_us: float) -> Path:
    """A cache in which deciding in this process takes so much."""
    auto_placement(policy, 8, 5000, cache=cache)
    (file,) = (cache / "hostsched").iterdir()
    file.write_bytes(msgspec.json.encode([place("numpy", (1, 100, cpu_us)), place("ort-cpu", (1, 100, 1e9))]))
    return cache


@pytest.mark.usefixtures("home")
def test_a_virtual_npu_that_is_up_is_tried_each_time_and_taken_where_it_spares_cpu_time(
    policy: PolicyFolder, tmp_path: Path
) -> None:
    dear, cheap = remembered(policy, tmp_path / "dear", 1e8), remembered(policy, tmp_path / "cheap", 0)
    chip("idle")
    chosen = auto_placement(policy, 8, 1e9, cache=dear)
    assert chosen.place == "npu:idle"
    assert "ort-cpu" in chosen.why
    assert auto_placement(policy, 8, 1e9, cache=cheap).place == "numpy"
    down("idle")
    assert auto_placement(policy, 8, 1e9, cache=dear).place == "numpy"


@pytest.mark.usefixtures("home")
def test_devices_that_cannot_be_followed_are_passed_over_and_the_words_say_why(
    policy: PolicyFolder, tmp_path: Path
) -> None:
    cache = remembered(policy, tmp_path / "cache", 1e8)
    chip("fast", pacing=Pacing.FAST)
    chip("other", profile="hailo-8")
    os.kill(chip("dead").pid, signal.SIGKILL)
    hung = chip("hung").pid
    os.kill(hung, signal.SIGSTOP)
    try:
        found = auto_placement(policy, 8, 1e9, cache=cache)
    finally:
        os.kill(hung, signal.SIGCONT)
    assert found.place == "numpy"
    assert "npu:fast passed over: its time is not this machine's (fast)" in found.why
    assert "npu:other passed over: the policy made was not built for vnpu:hailo-8" in found.why
    assert "npu:hung passed over" in found.why
    assert "npu:dead" not in found.why


def test_a_home_of_devices_that_cannot_be_used_is_no_reason_not_to_begin(
    policy: PolicyFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "open").mkdir(mode=0o777)
    (tmp_path / "open").chmod(0o777)
    monkeypatch.setenv("NPUOPS_DEVICES", str(tmp_path / "open"))
    found = auto_placement(policy, 8, 1e9, cache=tmp_path)
    assert found.place in {"numpy", "ort-cpu"}
    assert "virtual NPUs passed over" in found.why


def test_a_policy_that_was_not_built_for_ort_runs_in_numpy(tmp_path: Path) -> None:
    assert auto_placement(made_policy(tmp_path / "policy"), 8, 5000, cache=tmp_path).place == "numpy"
