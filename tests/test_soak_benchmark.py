"""The judges of the soak: a wrong answer, a leak and a left-over are seen, noise and shedding are none of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("tritonclient")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks" / "serving"))

import run as bench_run
import soak
import soak_load
import soak_questions
import soak_watch
from soak_questions import Question, Told

X, Y = np.float32([[1, 2]]), np.float32([[3, 4]])
QUESTION = Question(model="m", inputs={"x": X}, answers={"1": {"y": Y}, "0": {"y": -Y}})


def told(**other: Any) -> Told:
    values: dict[str, Any] = {"id": soak_questions.id_of(7), "model": "m", "version": "3", "outputs": {"y": Y}}
    return Told(**(values | other))


def test_the_right_answer_of_a_version_is_right() -> None:
    assert QUESTION.wrong(told(), 7) == ""
    assert QUESTION.wrong(told(version="4", outputs={"y": -Y}), 7) == ""


@pytest.mark.parametrize(
    ("other", "word"),
    [
        ({"id": soak_questions.id_of(8)}, "the answer of"),
        ({"model": "n"}, "an answer of 'n'"),
        ({"version": "4"}, "differs by"),
        ({"version": ""}, "version ''"),
        ({"outputs": {}}, "outputs []"),
        ({"outputs": {"y": Y[0]}}, "float32[2] instead of"),
        ({"outputs": {"y": Y.astype(np.float64)}}, "float64"),
        ({"outputs": {"y": Y + 0.1}}, "differs by 0.1"),
        ({"outputs": {"y": Y * np.nan}}, "differs by nan"),
    ],
)
def test_every_other_answer_is_wrong(other: dict[str, Any], word: str) -> None:
    assert word in QUESTION.wrong(told(**other), 7)


def test_an_older_version_may_not_answer_once_a_newer_one_is_ready() -> None:
    assert "after version 4 was ready" in QUESTION.wrong(told(), 7, least_version=4)


def test_a_quantized_answer_must_be_nearest_to_its_own() -> None:
    right, other = np.float32([[1, 0.1]]), np.float32([[1, 0.2]])
    question = Question(model="m", inputs={"x": X}, answers={"": {"y": right}}, rivals=(right, other))
    assert question.wrong(told(outputs={"y": right * 1.02}), 7) == ""
    assert "with another one" in question.wrong(told(outputs={"y": other}), 7)


def test_the_three_forms_of_a_request_carry_the_same_tensors_under_their_number() -> None:
    question = Question(model="m", inputs={"x": X, "b": np.array([b"\0\xff", b""], object)}, answers={})
    length = int(question.http("binary", 5).split(b"Inference-Header-Content-Length: ")[1].split(b"\r\n")[0])
    binary = question.http("binary", 5).partition(b"\r\n\r\n")[2]
    head, raw = json.loads(binary[:length]), binary[length:]
    assert head["id"] == soak_questions.id_of(5)
    assert raw == X.tobytes() + b"\2\0\0\0\0\xff\0\0\0\0"
    said = json.loads(question.http("json", 123_456_789).partition(b"\r\n\r\n")[2])
    assert (said["id"], said["inputs"][0]["data"], said["inputs"][1]["data"]) == (
        "soak-123456789",
        [1, 2],
        ["AP8=", ""],
    )
    message = soak_questions.service_pb2.ModelInferRequest.FromString(question.grpc(5))
    assert (message.id, b"".join(message.raw_input_contents)) == (soak_questions.id_of(5), raw)


def test_bytes_that_are_left_over_make_an_answer_unreadable() -> None:
    output = {"name": "y", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}}
    head = json.dumps({"id": "i", "model_name": "m", "model_version": "1", "outputs": [output]}).encode()
    headers = {soak_questions.HEADER_LENGTH: str(len(head))}
    assert np.array_equal(soak_questions.told_http(headers, head + Y.tobytes()).outputs["y"], Y)
    for body in (head + Y.tobytes() + b"\0", head + Y.tobytes()[:-1]):
        with pytest.raises(ValueError, match=r"left over|buffer"):
            soak_questions.told_http(headers, body)


def asked(model: str = "tiny", tenant: str = "", *, short: bool = False) -> soak_load.Asked:
    question = Question(model=model, inputs={}, answers={})
    return soak_load.Asked(question, 1, tenant, short, 0)


@pytest.mark.parametrize(
    ("request_", "status", "words", "outcome"),
    [
        (asked(), 503, "1024 requests wait already", "shed 503"),
        (asked(), 503, "model 'tiny' is not ready: it is loading", "503: model"),
        (asked(soak_load.COMES_AND_GOES), 503, "model 'extra' is not ready: it is loading", "away"),
        (asked(soak_load.COMES_AND_GOES), 404, "model 'extra' was unloaded", "away"),
        (asked(), 404, "no model 'tiny' is served here", "404: no model"),
        (asked(tenant=soak_load.WITH_QUOTA), 429, "20 requests a second", "shed 429"),
        (asked(tenant="camera"), 429, "20 requests a second", "429:"),
        (asked(short=True), 504, "the deadline passed", "late"),
        (asked(), 504, "the deadline passed", "504:"),
        (asked(), 500, "the server failed", "500:"),
    ],
)
def test_a_refusal_is_fine_only_where_there_is_a_reason_for_it(
    request_: soak_load.Asked, status: int, words: str, outcome: str
) -> None:
    found = request_.judge_refusal(status, words)
    assert found.startswith(outcome)
    tally = soak_load.Tally()
    tally.add("json", "tiny", found, 0.1)
    assert tally.outcomes["failed"] == (not found.startswith(("shed", "away", "late")))


def test_failures_are_told_in_words_but_not_a_thousand_times() -> None:
    tally = soak_load.Tally()
    for number in range(1000):
        tally.add("json", "tiny", f"the answer of 'soak-{number}'", 0.1)
    assert tally.outcomes["failed"] == 1000
    assert len(tally.examples) == soak_load.ALIKE
    assert list(tally.kinds.values()) == [1000]


def reading(at_s: float, mib: float, **other: Any) -> soak_watch.Reading:
    values: dict[str, Any] = {"processes": 3, "front_fds": 9, "fds": 20, "threads": 5, "shared": 2, "shared_mib": 8.0}
    own = {(1, "front"): mib / 2, (100 + int(at_s // 600), "worker"): 5 + (at_s % 600) / 3600}
    return soak_watch.Reading(at_s=at_s, kept_mib=mib, pss_mib=mib, files=0, **(values | {"own_mib": own} | other))


def course(memory: Callable[[float], float], seconds: float = 1800.0) -> list[soak_watch.Reading]:
    """A reading each 2 seconds, with noise that is the same each time."""
    chance = np.random.default_rng(3)
    return [reading(at, memory(at) + float(chance.normal(0, 3))) for at in np.arange(0.0, seconds, 2)]


def test_a_leak_is_told_with_its_rate_and_noise_is_none() -> None:
    grows = soak_watch.fitted(course(lambda at: 100 + 60 * at / 3600), "kept_mib")
    steady = soak_watch.fitted(course(lambda _: 100), "kept_mib")
    assert grows is not None
    assert steady is not None
    assert grows.per_hour == pytest.approx(60, abs=5)
    assert grows.low < grows.per_hour < grows.high
    assert soak.leaks(grows, soak.MOST_MIB)
    assert not soak.leaks(steady, soak.MOST_MIB)
    assert steady.low < 0 < steady.high


def test_memory_that_comes_with_processes_and_goes_with_them_is_no_leak() -> None:
    chance = np.random.default_rng(4)
    more = np.sort(chance.integers(0, 3, 900))  # in the end there are always more of them
    rows = [reading(2.0 * at, 100 + 40 * count, processes=3 + count) for at, count in enumerate(more.tolist())]
    found = soak_watch.fitted(rows, "kept_mib")
    assert found is not None
    assert not soak.leaks(found, soak.MOST_MIB)


def test_growth_within_processes_that_are_killed_again_and_again_is_seen() -> None:
    found = soak_watch.fitted_within(course(lambda _: 100), "worker")
    assert found is not None
    assert found.per_hour == pytest.approx(1, abs=0.1)
    assert soak_watch.fitted_within(course(lambda _: 100), "pictures") is None


def test_too_few_readings_give_no_slope() -> None:
    assert soak_watch.fitted(course(lambda _: 100, seconds=20), "kept_mib") is None
    assert soak_watch.fitted_within([], "front") is None


@given(st.sampled_from(["processes", "front_fds", "fds", "shared", "files"]), st.integers(1, 50))
def test_whatever_is_left_over_at_rest_is_named(name: str, more: int) -> None:
    before, after = reading(0, 100), SimpleNamespace(**{key: getattr(reading(9, 100), key) for key in soak_watch.MORE})
    setattr(after, name, getattr(after, name) + more)
    assert list(soak_watch.left_over([before], [after])) == [name]  # type: ignore[list-item]
    assert soak_watch.left_over([before], [before]) == {}


def test_the_first_whole_answer_is_taken_from_what_was_received() -> None:
    one = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nA: b\r\n\r\nabc"
    got = bytearray(one + one[:-1])
    first = soak_load.taken(got)
    assert first is not None
    assert (first.status, first.headers["a"], first.body) == (200, "b", b"abc")
    assert soak_load.taken(got) is None
    assert bytes(got) == one[:-1]


@pytest.mark.parametrize("line", ["Traceback (most recent call last):", "Task exception was never retrieved"])
def test_a_line_of_the_log_that_tells_of_a_defect_is_found(line: str) -> None:
    assert soak.WARNINGS.search(line)
    assert not soak.WARNINGS.search("tiny version 1 on ort-cpu: its worker ended: signal SIGKILL")


def test_figures_of_other_threads_or_of_another_machine_are_not_joined(tmp_path: Path) -> None:
    path, about = tmp_path / "out.json", bench_run.about_run(1)
    bench_run.save(path, about, [{"round": 1}])
    assert bench_run.earlier_rows(path, about) == [{"round": 1}]
    with pytest.raises(SystemExit, match="threads 1, now 2"):
        bench_run.earlier_rows(path, bench_run.about_run(2))
    assert bench_run.earlier_rows(tmp_path / "new.json", about) == []


@pytest.mark.parametrize("text", ["1.5", "0", "-1", "two"])
def test_a_run_lasts_whole_seconds(text: str) -> None:
    assert bench_run.whole_seconds("2") == 2
    with pytest.raises(ValueError, match=text):
        bench_run.whole_seconds(text)
