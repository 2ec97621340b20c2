from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from npuops.artifacts.bundle import pack
from npuops.errors import (
    IntegrityError,
    NotReadyError,
    NotServedError,
    NpuopsError,
    OptionError,
    OverloadedError,
    StorageError,
)
from npuops.events import Warned
from npuops.runtime.facts import ColdCause
from npuops.runtime.version_facts import VersionChanged, VersionStandsIn
from npuops.runtime.worker_process import WorkerLostError
from npuops.server.repository_upload import Uploads
from repository_lab import Lab, lab, rounds, touch, toys

Made = Callable[[int], Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return toys(tmp_path_factory.mktemp("toys"))


@pytest.fixture
def play(tmp_path: Path, made: Made) -> Callable[..., None]:
    """Run a story in a fresh repository."""

    def run(story: Callable[[Lab], Awaitable[None]], **options: object) -> None:
        async def main() -> None:
            async with lab(tmp_path / "repo", made, **options) as here:
                await story(here)

        asyncio.run(main())

    return run


Play = Callable[..., None]


def test_who_asks_before_the_first_look_at_the_disk_is_told_to_come_again(play: Play) -> None:
    async def story(here: Lab) -> None:
        here.put("a/1")
        for ask in (here.repository.model_ready, here.repository.able, here.repository.spec):
            with pytest.raises(NotReadyError, match=r"'a' is not ready: the server has only begun to look"):
                ask("a")
        with pytest.raises(NotReadyError) as early:
            await here.repository.wake("a")
        assert early.value.retry_after_s > 0
        await here.look()
        assert here.repository.able("a") == ["1"]
        with pytest.raises(NotServedError, match="no model 'b' is served here"):
            here.repository.able("b")

    play(story)


def test_the_latest_version_of_every_model_is_loaded_and_is_its_default(play: Play) -> None:
    async def story(here: Lab) -> None:
        here.put("a/9", 0)
        here.put("a/10", 1)
        here.put("b", 0)
        assert not here.repository.ready
        await here.look()
        assert here.repository.ready
        assert here.states("a") == {"9": "UNAVAILABLE", "10": "READY"}
        assert here.states("b") == {"1": "READY"}
        assert not np.array_equal(here.answer("a"), here.answer("b"))
        assert here.repository.able("a") == ["10"]
        assert here.repository.spec("a").version == "10"

    play(story)


def test_a_server_that_stops_is_not_ready_while_it_still_answers(play: Play) -> None:
    async def story(here: Lab) -> None:
        here.put("a", 0)
        await here.look()
        here.repository.end()
        assert not here.repository.ready
        here.answer("a")

    play(story)


def test_a_new_version_is_warm_before_the_old_one_leaves_and_the_old_one_answers_what_it_has(play: Play) -> None:
    async def story(here: Lab) -> None:
        here.put("a/1", 0)
        await here.look()
        old = here.repository.serving["a", ""]
        old.busy.add("request")
        here.put("a/2", 1)
        here.launcher.hold()
        await here.repository.refresh()
        await rounds()
        assert here.repository.serving["a", ""] is old
        assert here.repository.ready
        here.launcher.let_go()
        while here.repository.serving["a", ""] is old:
            await asyncio.sleep(0.001)
        await rounds()
        assert here.states("a") == {"1": "UNLOADING", "2": "READY"}
        assert old.drained
        assert not old.closed
        old.finish()
        await here.repository.settled()
        assert old.closed
        assert here.states("a") == {"1": "UNAVAILABLE", "2": "READY"}

    play(story)


def test_changed_files_of_a_version_are_swapped_in_without_a_moment_of_nothing(play: Play) -> None:
    async def story(here: Lab) -> None:
        here.put("a/1", 0)
        await here.look()
        old, before = here.repository.serving["a", ""], here.answer("a")
        here.put("a/1", 1)
        moments = []

        def watch() -> None:
            moments.append(here.repository.serving.get(("a", "")))

        await here.repository.refresh()
        while here.repository.serving["a", ""] is old:
            watch()
            await asyncio.sleep(0.001)
        watch()
        await here.repository.settled()
        assert None not in moments
        assert not np.array_equal(here.answer("a"), before)
        assert old.closed
        assert [state.state for state in here.log.of(VersionChanged)] == ["LOADING", "READY", "READY"]

    play(story)


def test_a_touch_that_changes_no_content_changes_nothing(play: Play) -> None:
    async def story(here: Lab) -> None:
        path = here.put("a/1")
        await here.look()
        touch(path / "program.toy")
        touch(path / "manifest.json")
        await here.look()
        assert len(here.launcher.launched) == 1

    play(story)


def test_a_version_that_does_not_come_up_leaves_the_old_one_serving_and_says_why(play: Play) -> None:
    async def story(here: Lab) -> None:
        here.put("a/1", 0)
        await here.look()
        before = here.answer("a")
        here.put("a/2", 1)
        here.damage("a/2")
        await here.look()
        await here.look()
        assert here.states("a") == {"1": "READY", "2": "UNAVAILABLE"}
        assert "digest" in here.reason("a", "2")
        assert np.array_equal(here.answer("a"), before)
        assert here.repository.ready, "those who were served are served"
        assert len(here.launcher.launched) == 2, "it is not tried again while nothing changes"
        here.put("a/2", 1)
        await here.look()
        assert here.states("a") == {"1": "UNAVAILABLE", "2": "READY"}

    play(story)


def test_after_a_restart_an_older_version_stands_in_for_a_damaged_one_until_that_is_mended(play: Play) -> None:
    async def story(here: Lab) -> None:
        for version in ("1", "2", "3", "4"):
            here.put(f"a/{version}", int(version))
        here.damage("a/3")
        here.damage("a/4")
        await here.look()
        assert here.states("a") == {"1": "UNAVAILABLE", "2": "READY", "3": "UNAVAILABLE", "4": "UNAVAILABLE"}
        assert here.repository.serving["a", ""].spec.version == "2"
        assert here.repository.ready, "whoever asks gets an answer"
        assert "in place of" in here.reason("a", "2")
        assert "digest" in here.reason("a", "4")
        told = [(each.version, each.instead_of) for each in here.log.of(VersionStandsIn)]
        assert told == [("3", ("4",)), ("2", ("3", "4"))]
        await here.look()
        assert len(here.launcher.launched) == 3, "nothing is tried again while nothing changes"
        here.put("a/4", 4)
        await here.look()
        assert here.states("a")["4"] == "READY"
        assert here.states("a")["2"] == "UNAVAILABLE"
        assert here.repository.serving["a", ""].spec.version == "4"
        assert here.reason("a", "2") == "not chosen by `versions`"

    play(story)


def test_a_version_stands_in_also_where_it_is_loaded_by_the_first_request(play: Play) -> None:
    async def story(here: Lab) -> None:
        here.options("a", "[idle]\nprewarm = false\n")
        here.put("a/1", 1)
        here.put("a/2", 2)
        here.damage("a/2")
        await here.look()
        with pytest.raises(NotReadyError, match="digest"):
            await here.repository.wake("a")
        await rounds()
        assert (await here.repository.wake("a")).spec.version == "1"
        here.put("a/2", 2)
        await here.look()
        assert here.repository.serving["a", ""].spec.version == "2"
        assert here.states("a") == {"1": "UNAVAILABLE", "2": "READY"}

    play(story)


def test_a_client_whose_load_fails_is_told_although_an_older_version_answers(play: Play) -> None:
    async def story(here: Lab) -> None:
        here.put("a/1", 1)
        here.put("a/2", 2)
        here.damage("a/2")
        with pytest.raises(IntegrityError, match="version 2"):
            await here.repository.load("a")
        await here.repository.settled()
        assert here.states("a") == {"1": "READY", "2": "UNAVAILABLE"}

    play(story)


def test_what_a_load_failed_with_may_pass_and_it_is_tried_again_by_itself(play: Play) -> None:
    async def story(here: Lab) -> None:
        here.put("a/1", 1)
        here.put("a/2", 2)
        here.launcher.failing = [WorkerLostError("the worker ended while it loaded: signal SIGKILL")]
        await here.look()
        assert here.states("a") == {"1": "READY", "2": "UNAVAILABLE"}
        async with asyncio.timeout(30):
            while here.states("a") != {"1": "UNAVAILABLE", "2": "READY"}:
                await asyncio.sleep(0.01)
        assert len(here.launcher.launched) == 3

    play(story)


def test_a_version_that_may_not_run_by_the_options_is_stood_in_for_as_well(play: Play) -> None:
    async def story(here: Lab) -> None:
        here.options("a", '[[device]]\nartifact = "small"\n')
        here.put("a/1/small", 1)
        here.put("a/2/large", 2)
        await here.look()
        assert here.states("a") == {"1": "READY", "2": "UNAVAILABLE"}
        assert "small" in here.reason("a", "2")
        assert here.repository.ready

    play(story)


def test_no_client_hears_where_on_the_servers_disk_anything_lies(play: Play) -> None:
    async def story(here: Lab) -> None:
        place = str(here.root)
        here.put("damaged/1")
        here.damage("damaged/1")
        here.put("short/1")
        (here.root / "short/1/program.toy").write_bytes(b"")
        (here.root / "nothing/1").mkdir(parents=True)
        here.put("elsewhere/1")
        (here.root / "elsewhere" / "2").symlink_to("/usr/share/elsewhere")
        await here.look()
        heard = [line.reason for line in here.repository.index()]
        for name in ("damaged", "short", "nothing"):
            for ask in (here.repository.wake(name), here.repository.load(name)):
                with pytest.raises(NpuopsError) as refused:
                    await ask
                heard += [refused.value.message, refused.value.advice]
                assert name in refused.value.message
        here.root.rename(here.root.with_name("gone"))
        with pytest.raises(StorageError) as refused:
            await here.repository.load("damaged")
        heard += [refused.value.message, refused.value.advice]
        here.root.with_name("gone").rename(here.root)
        assert [words for words in heard if place in words or "/usr/" in words or "/tmp/" in words] == []  # noqa: S108
        logged = [event.reason for event in here.log.of(VersionChanged)] + [
            event.message for event in here.log.of(Warned)
        ]
        assert any(place in words for words in logged), "the operator does"

    play(story)


def test_a_replacement_in_place_that_fails_leaves_the_loaded_files_serving(play: Play) -> None:
    async def story(here: Lab) -> None:
        here.put("a/1", 0)
        await here.look()
        before = here.answer("a")
        here.put("a/1", 1)
        here.damage("a/1")
        await here.look()
        assert here.states("a") == {"1": "READY"}
        assert "replacement failed" in here.reason("a")
        assert np.array_equal(here.answer("a"), before)
        here.put("a/1", 0)
        await here.look()
        assert here.reason("a") == ""

    play(story)


def test_a_server_whose_first_load_fails_is_not_ready(play: Play) -> None:
    async def story(here: Lab) -> None:
        here.put("good/1")
        here.put("bad/1")
        here.damage("bad/1")
        await here.look()
        assert here.states("bad") == {"1": "UNAVAILABLE"}
        assert here.answer("good").shape == (1, 10)
        assert not here.repository.ready
        with pytest.raises(NotReadyError, match="digest"):
            await here.repository.wake("bad")

    play(story)


def test_a_canary_is_loaded_but_neither_default_nor_waited_for(play: Play) -> None:
    async def story(here: Lab) -> None:
        here.options("a", "canary = [2]")
        here.put("a/1", 0)
        here.put("a/2", 1)
        here.put("b/1", 0)
        here.options("b", "canary = [2]")
        here.put("b/2", 1)
        here.damage("b/2")
        await here.look()
        assert here.states("a") == {"1": "READY", "2": "READY"}
        assert here.repository.serving["a", ""] is here.repository.serving["a", "1"]
        assert here.states("b") == {"1": "READY", "2": "UNAVAILABLE"}
        assert here.repository.ready

    play(story)


def test_a_deleted_version_is_closed_and_a_deleted_model_forgotten(play: Play) -> None:
    async def story(here: Lab) -> None:
        here.options("a", 'versions = "all"')
        here.put("a/1", 0)
        here.put("a/2", 1)
        await here.look()
        here.remove("a/2")
        await here.look()
        assert here.states("a") == {"1": "READY"}
        assert here.repository.serving["a", ""] is here.repository.serving["a", "1"]
        here.remove("a")
        await here.look()
        assert here.repository.index() == []
        with pytest.raises(NotServedError, match="no model") as caught:
            await here.repository.wake("a")
        assert "nothing is served" in caught.value.advice

    play(story)


def test_a_version_that_is_half_overwritten_goes_on_serving(play: Play) -> None:
    async def story(here: Lab) -> None:
        path = here.put("a/1")
        await here.look()
        (path / "program.toy").write_bytes(b"half")
        await here.look()
        assert here.states("a") == {"1": "READY"}
        assert "4 of" in here.reason("a")
        assert here.answer("a").shape == (1, 10)

    play(story)


def test_a_repository_that_cannot_be_read_is_not_taken_for_an_empty_one(play: Play) -> None:
    async def story(here: Lab) -> None:
        here.put("a/1")
        await here.look()
        here.root.rename(here.root.with_name("away"))
        with pytest.raises(StorageError):
            await here.repository.refresh()
        assert here.answer("a").shape == (1, 10)
        here.root.with_name("away").rename(here.root)
        (here.root / "a").rename(here.root / ".b")
        (here.root / "a").symlink_to("/")
        await here.look()
        assert here.answer("a").shape == (1, 10), "a model that cannot be looked into is not a model that is gone"

    play(story)


def test_what_changed_between_two_looks_waits_for_the_next_one(play: Play) -> None:
    async def story(here: Lab) -> None:
        here.put("a/1", 0)
        await here.look(settle=True)
        assert here.states("a") == {"1": "READY"}, "at the start there is nothing to compare with"
        here.put("a/2", 1)
        await here.look(settle=True)
        assert here.states("a") == {"1": "READY", "2": "UNAVAILABLE"}
        assert "a moment ago" in here.reason("a", "2")
        await here.look(settle=True)
        assert here.states("a") == {"1": "UNAVAILABLE", "2": "READY"}

    play(story)


def test_a_folder_that_is_removed_and_copied_anew_is_never_out_of_service(play: Play) -> None:
    async def story(here: Lab) -> None:
        here.put("a", 0)
        here.put("b/1", 0)
        await here.look(settle=True)
        running = here.repository.serving["a", ""]
        here.remove("a")
        here.remove("b")
        await here.look(settle=True)
        assert here.repository.serving["a", ""] is running
        assert here.repository.ready
        here.put("a", 0)
        await here.look(settle=True)
        await here.look(settle=True)
        assert here.repository.serving["a", ""] is running, "the same content is no reason to load it again"
        assert here.defaults() == {"a"}

    play(story)


def test_options_that_need_no_launch_are_followed_by_what_runs(play: Play) -> None:
    async def story(here: Lab) -> None:
        here.put("a/1")
        await here.look()
        running = here.repository.serving["a", ""]
        here.options("a", "[queue]\nmax_requests = 7\n")
        await here.look()
        assert here.repository.serving["a", ""] is running
        assert running.spec.options.queue.max_requests == 7
        here.options("a", '[[device]]\ntarget = "toy"\ninstances = 2\n')
        await here.look()
        assert here.repository.serving["a", ""] is not running
        assert running.closed

    play(story)


def test_wrong_options_change_nothing_for_what_runs_and_keep_a_new_model_out(play: Play) -> None:
    async def story(here: Lab) -> None:
        here.put("a/1")
        await here.look()
        here.options("a", "canari = [1]")
        here.put("b/1")
        here.options("b", "[queue]\nmax_request = 3\n")
        await here.look()
        assert here.states("a")["1"] == "READY"
        assert here.states("b") == {"": "UNAVAILABLE"}
        assert "max_request" in here.reason("b", "")
        here.options("b", '[[device]]\ntarget = "ort-cpu"\n')
        await here.look()
        assert "ort-cpu" in here.reason("b")

    play(story)


def test_an_explicit_unload_holds_whatever_happens_to_the_files_until_a_load(play: Play) -> None:
    async def story(here: Lab) -> None:
        here.put("a/1", 0)
        await here.look()
        old = here.repository.serving["a", ""]
        await here.repository.unload("a")
        assert old.closed
        assert here.states("a") == {"1": "UNAVAILABLE"}
        assert here.repository.ready
        here.put("a/2", 1)
        await here.look()
        assert here.states("a") == {"1": "UNAVAILABLE", "2": "UNAVAILABLE"}
        with pytest.raises(NotServedError, match="unloaded"):
            await here.repository.wake("a")
        await here.repository.load("a")
        assert here.states("a") == {"1": "UNAVAILABLE", "2": "READY"}

    play(story)


def test_loads_of_one_model_at_the_same_time_join(play: Play) -> None:
    async def story(here: Lab) -> None:
        await here.look()
        here.put("a/1")
        here.launcher.hold()
        loads = [asyncio.ensure_future(here.repository.load("a")) for _ in range(5)]
        while not here.launcher.launched:
            await asyncio.sleep(0.001)
        here.launcher.let_go()
        await asyncio.gather(*loads)
        assert len(here.launcher.launched) == 1
        await here.repository.load("a")
        assert len(here.launcher.launched) == 1, "what is loaded and did not change stays"

    play(story)


def test_an_unload_cancels_a_load_and_whoever_waits_for_it_is_told(play: Play) -> None:
    async def story(here: Lab) -> None:
        here.put("a/1")
        here.launcher.hold()
        load = asyncio.ensure_future(here.repository.load("a"))
        while not here.launcher.launched:
            await asyncio.sleep(0.001)
        assert here.states("a") == {"1": "LOADING"}
        await here.repository.unload("a")
        with pytest.raises(NotServedError, match="unloaded while"):
            await load
        assert here.launcher.cancelled == 1
        assert here.launcher.alive == []
        assert here.states("a") == {"1": "UNAVAILABLE"}

    play(story)


def test_an_explicit_load_tries_again_what_failed_and_says_what_is_wrong(play: Play) -> None:
    async def story(here: Lab) -> None:
        here.put("a/1")
        here.damage("a/1")
        await here.look()
        for _ in range(2):
            with pytest.raises(IntegrityError, match="digest"):
                await here.repository.load("a")
        assert len(here.launcher.launched) == 3
        with pytest.raises(NotServedError) as caught:
            await here.repository.load("aa")
        assert "did you mean 'a'" in caught.value.advice

    play(story)


def test_the_config_of_a_load_stands_above_the_file_until_the_next_load(play: Play) -> None:
    async def story(here: Lab) -> None:
        here.options("a", "[queue]\nmax_requests = 7\nmax_bytes = 1000\n")
        here.put("a/1", 0)
        here.put("a/2", 1)
        await here.look()
        config = json.dumps({"versions": ["1"], "queue": {"max_requests": 9}})
        await here.repository.load("a", {"config": config})
        await here.look()
        assert here.states("a") == {"1": "READY", "2": "UNAVAILABLE"}
        queue = here.repository.spec("a").options.queue
        assert (queue.max_requests, queue.max_bytes) == (9, 1000)
        await here.repository.load("a")
        await here.repository.settled()
        assert here.states("a") == {"1": "UNAVAILABLE", "2": "READY"}

    play(story)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"config": "{"}, "not JSON"),
        ({"config": "[]"}, "not a JSON object"),
        ({"config": '{"version": "all"}'}, "unknown key 'version'"),
        ({"config": 3}, "config"),
        ({"file:1/model.onnx": "AAAA"}, "uploaded"),
        ({"confg": "{}"}, "confg"),
    ],
)
def test_a_load_refuses_parameters_that_it_does_not_know(play: Play, parameters: dict[str, object], words: str) -> None:
    async def story(here: Lab) -> None:
        here.put("a/1")
        await here.look()
        with pytest.raises(OptionError, match=words):
            await here.repository.load("a", parameters)
        assert here.states("a") == {"1": "READY"}

    play(story)


def test_a_herd_on_a_cold_model_causes_one_load(play: Play) -> None:
    async def story(here: Lab) -> None:
        here.put("a/1")
        here.options("a", "[idle]\nprewarm = false\n")
        await here.look()
        assert here.repository.ready
        assert here.launcher.launched == []
        assert here.states("a") == {"1": "READY"}
        assert here.reason("a").startswith("cold")
        assert here.repository.spec("a").signature.inputs[0].name == "x"
        answers = await asyncio.gather(*(here.repository.wake("a") for _ in range(200)))
        assert len({id(answer) for answer in answers}) == 1
        assert here.launcher.launched == [("a", "1", ColdCause.WAKE)]
        assert here.repository.serving["a", ""] is answers[0]
        loaded = next(fact for fact in here.log.of(VersionChanged) if fact.event == "loaded")
        assert loaded.waiting == 200

    play(story)


def test_no_more_requests_wait_for_a_cold_model_than_its_queue_holds(play: Play) -> None:
    async def story(here: Lab) -> None:
        here.put("a/1")
        here.options("a", "[idle]\nprewarm = false\n[queue]\nmax_requests = 3\n")
        await here.look()
        answers = await asyncio.gather(*(here.repository.wake("a") for _ in range(10)), return_exceptions=True)
        assert sum(isinstance(answer, OverloadedError) for answer in answers) == 7

    play(story)


def test_a_request_that_goes_away_does_not_stop_the_load_that_others_wait_for(play: Play) -> None:
    async def story(here: Lab) -> None:
        here.put("a/1")
        here.options("a", "[idle]\nprewarm = false\n")
        await here.look()
        here.launcher.hold()
        first, second = (asyncio.ensure_future(here.repository.wake("a")) for _ in range(2))
        await rounds()
        first.cancel()
        await rounds()
        here.launcher.let_go()
        assert (await second).answer().shape == (1, 10)

    play(story)


def test_an_idle_model_leaves_memory_and_comes_back_with_the_next_request(play: Play) -> None:
    async def story(here: Lab) -> None:
        here.put("a/1")
        here.options("a", "[idle]\nkeep_alive_s = 60\n")
        await here.look()
        running = here.repository.serving["a", ""]
        here.clock.advance(59_000_000)
        here.answer("a")
        here.clock.advance(59_000_000)
        here.repository.tick()
        await here.repository.settled()
        assert not running.closed
        running.busy.add("long request")
        here.clock.advance(10_000_000)
        here.repository.tick()
        await here.repository.settled()
        assert not running.closed
        running.finish()
        here.repository.tick()
        await here.look()
        assert running.closed
        assert "a" not in here.defaults()
        assert here.repository.ready
        assert (await here.repository.wake("a")).answer().shape == (1, 10)

    play(story)


def test_a_cold_model_that_fails_is_left_alone_for_a_while_and_is_not_ready(play: Play) -> None:
    async def story(here: Lab) -> None:
        here.put("a/1")
        here.options("a", "[idle]\nprewarm = false\n")
        await here.look()
        here.damage("a/1")
        answers = await asyncio.gather(*(here.repository.wake("a") for _ in range(50)), return_exceptions=True)
        assert all(isinstance(answer, NotReadyError) for answer in answers)
        assert len(here.launcher.launched) == 1
        assert not here.repository.model_ready("a")
        assert here.states("a") == {"1": "UNAVAILABLE"}
        with pytest.raises(NotReadyError, match="digest"):
            await here.repository.wake("a", "1")
        here.clock.advance(1_000_000)
        with pytest.raises(NotReadyError):
            await here.repository.wake("a", "1")
        assert len(here.launcher.launched) == 2
        here.put("a/1")
        here.clock.advance(2_000_000)
        assert (await here.repository.wake("a", "1")).answer().shape == (1, 10)

    play(story)


def test_a_new_version_of_a_cold_model_stays_cold_and_is_what_the_next_request_gets(play: Play) -> None:
    async def story(here: Lab) -> None:
        here.put("a/1", 0)
        here.options("a", "[idle]\nprewarm = false\n")
        await here.look()
        here.put("a/2", 1)
        await here.look()
        assert here.launcher.launched == []
        assert (await here.repository.wake("a")).spec.version == "2"

    play(story)


def test_one_more_model_than_there_is_room_for_takes_the_place_of_the_oldest_idle_one(play: Play) -> None:
    async def story(here: Lab) -> None:
        for name in ("a", "b", "c"):
            here.put(f"{name}/1")
        await here.look()
        assert {name for name, _, _ in here.launcher.launched} == {"a", "b"}, "the third waits for a request"
        assert here.repository.ready
        here.clock.advance(1_000_000)
        here.answer("a")
        assert (await here.repository.wake("c")).answer().shape == (1, 10)
        assert here.defaults() == {"a", "c"}
        here.repository.serving["a", ""].busy.add("r")
        here.repository.serving["c", ""].busy.add("r")
        with pytest.raises(NotReadyError, match="at work"):
            await here.repository.wake("b")
        here.repository.serving["a", ""].finish()
        assert (await here.repository.wake("b")).answer().shape == (1, 10)
        assert here.defaults() == {"b", "c"}
        here.repository.serving["c", ""].finish()

    play(story, max_loaded=2)


def test_two_cold_models_that_wake_at_once_never_exceed_the_limit(play: Play) -> None:
    async def story(here: Lab) -> None:
        for name in ("a", "b", "c", "d"):
            here.put(f"{name}/1")
        await here.look()
        most = 0

        def count() -> int:
            return sum(not toy.closed for toy in here.launcher.alive)

        waking = [asyncio.ensure_future(here.repository.wake(name)) for name in ("c", "d") for _ in range(20)]
        while not all(task.done() for task in waking):
            most = max(most, count())
            await asyncio.sleep(0)
        assert all(task.exception() is None for task in waking)
        assert max(most, count()) <= 2
        assert here.defaults() == {"c", "d"}
        assert len(here.launcher.launched) == 4

    play(story, max_loaded=2)


def test_a_hot_swap_needs_no_room_of_its_own(play: Play) -> None:
    async def story(here: Lab) -> None:
        here.put("a/1", 0)
        here.put("b/1", 0)
        await here.look()
        assert here.defaults() == {"a"}
        here.put("a/2", 1)
        await here.look()
        assert here.repository.serving["a", ""].spec.version == "2"

    play(story, max_loaded=1)


def files_of(folder: Path, version: str = "1") -> dict[str, Any]:
    return {f"file:{version}/{path.name}": base64.b64encode(path.read_bytes()).decode() for path in folder.iterdir()}


def test_uploaded_files_are_served_where_that_is_allowed_and_leave_nothing_behind(play: Play, made: Made) -> None:
    async def story(here: Lab) -> None:
        here.put("a/1", 0)
        await here.look()
        before = here.answer("a")
        await here.repository.load("new", files_of(made(1)))
        await here.repository.load("a", {**files_of(made(1)), "config": "{}"})
        await here.look()
        assert here.defaults() == {"a", "new"}
        assert np.array_equal(here.answer("a"), here.answer("new"))
        assert not np.array_equal(here.answer("a"), before)
        place = here.repository.spec("new").artifacts[0].path
        assert place.exists()
        await here.repository.unload("new")
        assert not place.exists()
        assert here.states("new") == {}
        await here.repository.load("a")
        assert np.array_equal(here.answer("a"), before), "a load without files goes back to the repository's"

    play(story, uploads=Uploads())


def test_uploaded_files_that_are_no_artifact_change_nothing(play: Play, made: Made) -> None:
    async def story(here: Lab) -> None:
        here.put("a/1", 0)
        await here.look()
        running = here.repository.serving["a", ""]
        some = dict(list(files_of(made(1)).items())[:1])
        with pytest.raises(OptionError, match="uploaded files"):
            await here.repository.load("a", some)
        assert here.repository.serving["a", ""] is running

    play(story, uploads=Uploads())


def test_a_load_request_that_fails_leaves_nothing_of_what_it_brought(play: Play, made: Made) -> None:
    async def story(here: Lab) -> None:
        here.put("a/1", 0)
        await here.look()
        running = here.repository.serving["a", ""]
        damaged = files_of(made(1))
        data = bytearray(base64.b64decode(damaged["file:1/program.toy"]))
        data[len(data) // 2] ^= 0xFF
        damaged["file:1/program.toy"] = base64.b64encode(data).decode()
        brought: list[dict[str, Any]] = [
            {"config": '{"device": [{"target": "nope"}]}'},
            {"config": '{"versions": ["9"]}'},
            {"config": '{"padding": {"values": {"nope": 0}}}'},
            {"config": '{"padding": {"crop": [{"output": "y", "axis": 9, "input": "x", "input_axis": 0}]}}'},
            damaged,
        ]
        for parameters in brought:
            with pytest.raises(OptionError) as caught:
                await here.repository.load("a", parameters)
            assert tempfile.gettempdir() not in caught.value.message
            await here.look()
            assert here.repository.serving["a", ""] is running
            assert here.reason("a") == ""
        with pytest.raises(OptionError, match="digest"):
            await here.repository.load("new", damaged)
        await here.look()
        assert here.states("new") == {}
        here.put("a/2", 1)
        await here.look()
        assert here.repository.serving["a", ""].spec.version == "2", "the folder is followed as before"

    play(story, uploads=Uploads())


def test_a_load_joins_one_that_follows_an_unload(play: Play) -> None:
    async def story(here: Lab) -> None:
        here.put("a/1", 0)
        here.launcher.hold()
        first = asyncio.ensure_future(here.repository.load("a"))
        while not here.launcher.launched:
            await asyncio.sleep(0.001)
        unload = asyncio.ensure_future(here.repository.unload("a"))
        await rounds(1)
        second = asyncio.ensure_future(here.repository.load("a"))
        here.launcher.let_go()
        await asyncio.gather(unload, second)
        with contextlib.suppress(NotServedError):
            await first
        assert here.repository.serving["a", ""].answer().shape == (1, 10)

    play(story)


def test_a_list_of_which_nothing_is_there_takes_nothing_down_and_is_not_ready_at_the_start(play: Play) -> None:
    async def story(here: Lab) -> None:
        here.put("a/1", 0)
        here.options("b", 'versions = ["9"]')
        here.put("b/1", 0)
        await here.look()
        assert not here.repository.ready
        assert here.states("b") == {"1": "UNAVAILABLE", "9": "UNAVAILABLE"}
        assert "it is not here" in here.reason("b", "9")
        here.put("b/9", 1)
        here.options("a", 'versions = ["9"]')
        await here.look()
        assert here.repository.ready
        assert here.repository.serving["a", ""].spec.version == "1"
        here.remove("a/1")
        await here.look()
        assert here.defaults() == {"b"}

    play(story)


def test_a_model_of_canaries_alone_loads_and_says_to_name_a_version(play: Play) -> None:
    async def story(here: Lab) -> None:
        here.options("a", "canary = [1]")
        here.put("a/1", 0)
        await here.repository.load("a")
        assert here.answer("a", "1").shape == (1, 10)
        with pytest.raises(NotReadyError, match="only canaries") as caught:
            await here.repository.wake("a")
        assert caught.value.advice == "name a version: 1"

    play(story)


def test_a_version_that_moved_to_another_form_is_run_from_there(play: Play) -> None:
    async def story(here: Lab) -> None:
        old = here.put("a/1", 0)
        await here.look()
        pack(old, here.root / "a/.new")
        here.remove("a/1")
        (here.root / "a/.new").rename(here.root / "a/1.npuart")
        await here.look()
        assert here.repository.serving["a", "1"].spec.artifacts[0].path == here.root / "a/1.npuart"
        assert len(here.launcher.launched) == 2, "a worker that starts again would not find the folder"

    play(story)


def test_a_kept_version_follows_its_options(play: Play) -> None:
    async def story(here: Lab) -> None:
        here.put("a/1", 0)
        await here.look()
        here.put("a/2", 1)
        here.damage("a/2")
        await here.look()
        here.options("a", "[queue]\nmax_requests = 3\n")
        await here.look()
        assert here.repository.serving["a", ""].spec.options.queue.max_requests == 3

    play(story)


def test_a_cold_model_waits_a_moment_for_one_to_have_no_request_under_way(play: Play) -> None:
    async def story(here: Lab) -> None:
        here.put("a/1", 0)
        here.put("b/1", 0)
        await here.look()
        here.repository.serving["a", ""].busy.add("request")
        asking = asyncio.ensure_future(here.repository.wake("b"))
        await rounds()
        assert not asking.done()
        here.repository.serving["a", ""].finish()
        assert (await asking).spec.model == "b"
        assert here.defaults() == {"b"}

    play(story, max_loaded=1, room_wait_s=60.0)


def test_cold_models_that_are_wanted_at_once_come_in_turn_and_none_is_refused(play: Play) -> None:
    async def story(here: Lab) -> None:
        for name in "abcd":
            here.put(f"{name}/1", 0)
        await here.look()
        for _ in range(3):
            answers = await asyncio.gather(*(here.repository.wake(name) for name in "bcdabcd"))
            assert [toy.spec.model for toy in answers] == list("bcdabcd")
        assert len(here.repository.serving) == 2

    play(story, max_loaded=1, room_wait_s=60.0)


def test_requests_of_a_version_that_leaves_have_the_time_that_the_server_gives(play: Play) -> None:
    async def story(here: Lab) -> None:
        here.put("a/1", 0)
        await here.look()
        old = here.repository.serving["a", ""]
        here.put("a/1", 1)
        await here.look()
        assert old.drain_s == 7.5

    play(story, drain_s=7.5)


def test_nothing_is_loaded_by_a_server_that_ends(play: Play) -> None:
    async def story(here: Lab) -> None:
        here.put("a/1", 0)
        await here.look()
        await here.repository.close()
        with pytest.raises(NotReadyError, match="ending"):
            await here.repository.load("a")
        assert len(here.launcher.launched) == 1

    play(story)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from("ab"), st.sampled_from("123"), st.integers(0, 1)),
        st.tuples(st.just("damage"), st.sampled_from("ab"), st.sampled_from("123")),
        st.tuples(st.just("remove"), st.sampled_from("ab"), st.sampled_from("123")),
        st.tuples(st.sampled_from(["load", "unload", "wake", "use", "end"]), st.sampled_from("abc")),
        st.tuples(st.just("look"), st.booleans()),
        st.tuples(st.just("tick"), st.sampled_from([1, 100])),
        st.tuples(st.just("wait"), st.integers(1, 30)),
    ),
    max_size=25,
)


class Story:
    """Takes steps without waiting for their ends, and looks at what must always hold."""

    def __init__(self, here: Lab) -> None:
        self.here = here
        self.begun: list[asyncio.Future[object]] = []
        self.unloaded: set[str] = set()

    async def take(self, step: tuple[Any, ...]) -> None:
        repository, (kind, *words) = self.here.repository, step
        match kind:
            case "put":
                self.here.put(f"{words[0]}/{words[1]}", words[2])
            case "damage" | "remove" if (self.here.root / words[0] / words[1]).exists():
                getattr(self.here, kind)(f"{words[0]}/{words[1]}")
            case "load" | "unload" | "wake":
                self.begun.append(asyncio.ensure_future(getattr(repository, kind)(words[0])))
            case "look":
                self.begun.append(asyncio.ensure_future(repository.refresh(settle=words[0])))
            case "use" | "end":
                for toy in self.here.launcher.alive:
                    if toy.spec.model == words[0] and not toy.drained:
                        toy.busy.add("request")
                    elif kind == "end":
                        toy.finish()
            case "tick":
                self.here.clock.advance(words[0] * 1_000_000)
                repository.tick()
            case "wait":
                await rounds(words[0])
        self.look()

    def look(self) -> None:
        repository = self.here.repository
        assert not any(toy.drained or toy.closed for toy in repository.serving.values())
        in_memory = {toy.spec.model for toy in self.here.launcher.alive if not toy.closed}
        assert len(in_memory) <= 1, "max_loaded"
        for (name, version), toy in repository.serving.items():
            assert toy.spec.model == name
            assert version in {"", toy.spec.version}
        json.dumps([line.state for line in repository.index()])

    async def end(self) -> None:
        for toy in self.here.launcher.alive:
            toy.finish()
        for task in self.begun:
            with contextlib.suppress(NpuopsError):
                await task
            self.look()
        for name in "ab":
            if (self.here.root / name).exists():
                await self.give(name)

    async def give(self, name: str) -> None:
        """Once its files are whole, a model answers with its highest version, whatever happened before."""
        self.here.put(f"{name}/9", 1)
        await self.here.repository.load(name)
        self.look()
        assert self.here.repository.serving[name, ""].spec.version == "9"
        for toy in self.here.launcher.alive:
            toy.finish()


@pytest.mark.slow
@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_whatever_happens_requests_go_only_to_what_answers_and_memory_stays_within_its_limit(
    made: Made, steps: list[tuple[Any, ...]]
) -> None:
    async def main(root: Path) -> None:
        async with lab(root, made, max_loaded=1) as here:
            here.options("a", "[idle]\nkeep_alive_s = 50\n")
            play = Story(here)
            for step in steps:
                await play.take(step)
            await play.end()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(Path(folder) / "repo"))
