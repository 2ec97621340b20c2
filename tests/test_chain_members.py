"""Chains in a repository: they follow the models that they are made of, whatever happens to those."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from npuops.runtime.version_facts import VersionChanged
from running_server import Running, clients, serving, wait_for
from served_artifacts import ort_artifact, save

CHAIN = """
inputs = ["in"]
outputs = ["out"]
[[step]]
model = "first"
inputs = { x = "in" }
outputs = { y = "between" }
[[step]]
model = "second"
inputs = { x = "between" }
outputs = { y = "out" }
"""
BOTH = ("first", "second")


def put(folder: Path, factor: float, width: int = 4) -> None:
    """`y` = factor · `x`, float32 [N, width]; there at once, as `mv` does it."""
    scratch = folder.parent.parent.parent / f"made-{folder.parent.name}-{folder.name}"
    nodes = [
        helper.make_node("Constant", [], ["c"], value_float=float(factor)),
        helper.make_node("Mul", ["x", "c"], ["y"]),
    ]
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", width])] for name in ("x", "y")]
    model = save(scratch.with_suffix(".onnx"), helper.make_graph(nodes, "times", *ends))
    ort_artifact(scratch, model)
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch.rename(folder)


def chain(repo: Path, name: str = "both", text: str = CHAIN) -> None:
    (repo / name).mkdir(parents=True, exist_ok=True)
    (repo / name / "chain.toml").write_text(text)


def options(repo: Path, text: str) -> None:
    for name in BOTH:
        (repo / name / "model.toml").write_text(text)


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    put(folder / "first/1", 2)
    put(folder / "second/1", 3)
    chain(folder)
    return folder


def look(running: Running) -> None:
    """As a load request or SIGHUP does."""
    asyncio.run_coroutine_threadsafe(running.server.repository.refresh(), running.loop).result(60)


def states(running: Running) -> dict[str, str]:
    return {f"{line['name']}/{line['version']}": line["state"] for line in index(running)}


def index(running: Running) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(running.http("POST", "/v2/repository/index")[2])
    return found


def reason(running: Running, name: str) -> str:
    return next(line["reason"] for line in index(running) if line["name"] == name)


def becomes(running: Running, state: str, name: str = "both/1") -> None:
    wait_for(lambda: states(running).get(name) == state, f"{name} does not become {state}")


def out(running: Running, width: int = 4, model: str = "both") -> list[float]:
    answer = running.ask(model, {"in": np.ones((1, width), np.float32)})
    assert answer.status == 200, answer.said
    return answer.outputs["out"].tolist()[0]  # type: ignore[no-any-return]


def loads(running: Running, name: str) -> int:
    return sum(event.model == name and event.event == "loaded" for event in running.events.of(VersionChanged))


@pytest.mark.slow
def test_a_chain_waits_for_its_models_and_the_server_for_the_chain(repo: Path) -> None:
    (repo / "second").rename(repo.parent / "away")
    with serving(repo) as running:
        becomes(running, "READY", "first/1")
        assert states(running)["both/1"] == "UNAVAILABLE"
        assert "no model 'second'" in reason(running, "both")
        assert running.http("GET", "/v2/health/ready")[0] != 200
        (repo.parent / "away").rename(repo / "second")
        look(running)
        becomes(running, "READY")
        assert out(running) == [6.0] * 4
        assert running.http("GET", "/v2/health/ready")[0] == 200


@pytest.mark.slow
def test_a_model_with_other_tensors_makes_another_chain(repo: Path) -> None:
    with serving(repo) as running:
        becomes(running, "READY")
        put(repo / "first/2", 5, width=3)
        look(running)
        becomes(running, "UNAVAILABLE")
        assert "'between' is [-1, 3] at step 'first' and [-1, 4] at step 'second'" in reason(running, "both")
        put(repo / "second/2", 7, width=3)
        look(running)
        becomes(running, "READY")
        said = json.loads(running.http("GET", "/v2/models/both")[2])
        assert [port["shape"] for port in (*said["inputs"], *said["outputs"])] == [[-1, 3], [-1, 3]]
        assert out(running, width=3) == [35.0] * 3


@pytest.mark.slow
def test_a_model_that_is_swapped_for_one_with_the_same_tensors_costs_no_request(repo: Path) -> None:
    with serving(repo) as running:
        becomes(running, "READY")
        rows = {"in": np.ones((1, 4), np.float32)}
        with clients(running, 2, lambda: running.ask("both", rows)) as answers:
            wait_for(lambda: answers, "nobody answers")
            put(repo / "first/2", 5)
            look(running)
            wait_for(lambda: answers[-1].outputs["out"][0, 0] == 15.0, "the new version is not used")
        assert {answer.status for answer in answers} == {200}
        assert {float(answer.outputs["out"][0, 0]) for answer in answers} == {6.0, 15.0}
        assert loads(running, "both") == 1


@pytest.mark.slow
def test_a_chain_is_ready_while_its_models_are_cold_and_wakes_them(repo: Path) -> None:
    options(repo, "[idle]\nprewarm = false\nkeep_alive_s = 3600\n")
    with serving(repo) as running:
        becomes(running, "READY")
        assert [loads(running, name) for name in BOTH] == [0, 0]
        assert running.http("GET", "/v2/models/both/ready")[0] == 200
        assert out(running) == [6.0] * 4
        assert [loads(running, name) for name in BOTH] == [1, 1]


@pytest.mark.slow
def test_a_chain_takes_no_place_in_memory_and_is_not_put_to_rest(repo: Path) -> None:
    options(repo, "[idle]\nkeep_alive_s = 0.000001\n")
    with serving(repo, max_loaded=2) as running:
        becomes(running, "READY")
        running.loop.call_soon_threadsafe(running.server.repository.tick)
        wait_for(lambda: [name for name in BOTH if ended(running, name)] == list(BOTH), "they do not rest")
        assert not ended(running, "both")
        assert out(running) == [6.0] * 4
        assert states(running)["both/1"] == "READY"


def ended(running: Running, name: str) -> bool:
    return any(event.model == name and event.event == "closed" for event in running.events.of(VersionChanged))


@pytest.mark.slow
def test_another_chain_file_is_another_chain_and_a_broken_one_leaves_the_old_one(repo: Path) -> None:
    with serving(repo) as running:
        becomes(running, "READY")
        chain(repo, text=CHAIN.replace('"second"', '"first"'))
        look(running)
        wait_for(lambda: out(running) == [4.0] * 4, "the new chain is not used")
        chain(repo, text="inputs = [")
        look(running)
        assert "TOML" in reason(running, "both")
        assert out(running) == [4.0] * 4
        (repo / "both/chain.toml").unlink()
        (repo / "both").rmdir()
        look(running)
        wait_for(lambda: "both/1" not in states(running), "a chain that is gone is not unloaded")


def test_chains_of_chains_work_and_circles_are_told(repo: Path) -> None:
    twice = CHAIN.replace('"first"', '"both"').replace("{ x =", "{ in =", 1).replace("{ y =", "{ out =", 1)
    chain(repo, "twice", twice)
    chain(repo, "hen", twice.replace('"both"', '"egg"'))
    chain(repo, "egg", twice.replace('"both"', '"hen"'))
    with serving(repo) as running:
        becomes(running, "READY", "twice/1")
        assert out(running, model="twice") == [18.0] * 4
        assert "hen → egg → hen" in reason(running, "hen")
        assert states(running)["egg/1"] == "UNAVAILABLE"


def test_unloading_a_chain_leaves_its_models_unless_it_is_asked_to_take_them_along(repo: Path) -> None:
    twice = CHAIN.replace('"first"', '"both"').replace("{ x =", "{ in =", 1).replace("{ y =", "{ out =", 1)
    chain(repo, "twice", twice)
    with serving(repo) as running:
        becomes(running, "READY", "twice/1")
        assert running.http("POST", "/v2/repository/models/both/unload")[0] == 200
        assert [states(running)[f"{name}/1"] for name in BOTH] == ["READY", "READY"]
        assert states(running)["twice/1"] == "UNAVAILABLE"
        assert running.http("POST", "/v2/repository/models/twice/load")[0] == 200
        assert out(running, model="twice") == [18.0] * 4
        body = json.dumps({"parameters": {"unload_dependents": True}}).encode()
        assert running.http("POST", "/v2/repository/models/twice/unload", body)[0] == 200
        assert set(states(running).values()) == {"UNAVAILABLE"}
