"""Traced requests: who is sampled, how a request finds its batch, and what is emitted when."""

from __future__ import annotations

from npuops.runtime.step_facts import StepsRan
from npuops.telemetry.intake import Intake
from npuops.telemetry.otlp_spans import stages_of
from npuops.telemetry.traces import FORGET_US, MAX_WAITING, TracedRequest, Traces
from serving_facts import batch_ran

SAMPLED = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
NOT_SAMPLED = SAMPLED[:-1] + "0"


class Scene:
    def __init__(self, ratio: float = 1.0) -> None:
        self.emitted: list[TracedRequest] = []
        self.traces = Traces(self.emitted.append, ratio)
        self.observe = Intake([self.traces])

    def begin(self, arrived_us: int = 1_000, header: str | None = None) -> TracedRequest | None:
        return self.traces.begin(header, "infer", "mobilenet", "1", arrived_us - 50, arrived_us)

    def begun(self, arrived_us: int = 1_000) -> TracedRequest:
        request = self.begin(arrived_us)
        assert request is not None
        return request

    def end(self, request: TracedRequest, at_us: int = 1_900, error: str = "") -> None:
        self.traces.end(request, completed_us=at_us, responded_us=at_us + 20, error=error)


def test_the_client_decides_where_it_has_a_trace_and_the_ratio_where_it_has_none() -> None:
    scene = Scene(ratio=0.25)
    assert scene.begin(header=NOT_SAMPLED) is None
    assert scene.begin(header=SAMPLED) is not None
    assert [scene.begin() is not None for _ in range(8)] == [False, False, False, True] * 2
    nobody = Scene(ratio=0.0)
    assert [nobody.begin() for _ in range(8)] == [None] * 8
    assert nobody.begin(header=SAMPLED) is not None


def test_a_request_is_emitted_once_with_the_stages_of_its_batch() -> None:
    scene = Scene()
    request = scene.begun()
    scene.end(request)
    assert scene.emitted == []
    scene.observe(batch_ran(arrived_us=(400, 1_000), queue_us=100, dma_in_us=20, compute_us=700))
    scene.observe.flush()
    assert scene.emitted == [request]
    assert list(stages_of(request)) == [
        ("queue", 1_000, 1_100),
        ("dma in", 1_100, 1_120),
        ("compute", 1_120, 1_820),
        ("dma out", 1_820, 1_900),
        ("respond", 1_900, 1_920),
    ]


def test_a_picture_is_found_by_the_moment_at_which_its_tensor_was_there() -> None:
    scene = Scene()
    steps = StepsRan(
        model="mobilenet",
        version="1",
        tenant="camera",
        requested_us=1_000,
        arrived_us=1_010,
        started_us=1_200,
        ended_us=4_200,
    )
    scene.observe(steps)
    request = scene.begun()
    scene.observe(batch_ran(arrived_us=(4_200,), queue_us=100, dma_in_us=20, compute_us=700))
    scene.end(request, at_us=5_100)
    scene.observe.flush()
    assert scene.emitted == [request]
    assert list(stages_of(request))[:4] == [
        ("preprocessing queue", 1_010, 1_200),
        ("preprocessing", 1_200, 4_200),
        ("queue", 4_200, 4_300),
        ("dma in", 4_300, 4_320),
    ]


def test_steps_of_requests_that_are_not_traced_are_forgotten() -> None:
    scene = Scene()
    for moment in range(2 * MAX_WAITING):
        scene.observe(
            StepsRan(
                model="mobilenet",
                version="1",
                tenant="camera",
                requested_us=moment,
                arrived_us=moment,
                started_us=moment,
                ended_us=moment + 1,
            )
        )
    assert scene.begun(0).steps is None
    assert scene.begun(2 * MAX_WAITING - 1).steps is not None


def test_a_batch_that_is_told_before_the_answer_left_waits_for_it() -> None:
    scene = Scene()
    request = scene.begun()
    scene.observe(batch_ran(arrived_us=(1_000,)))
    scene.observe.flush()
    assert scene.emitted == []
    scene.end(request)
    assert scene.emitted == [request]


def test_the_same_moment_in_another_model_is_another_request() -> None:
    scene = Scene()
    request = scene.begun()
    scene.end(request)
    scene.observe(batch_ran(arrived_us=(1_000,), model="other"))
    scene.observe(batch_ran(arrived_us=(1_000,), version="2"))
    scene.observe.flush()
    assert scene.emitted == []
    scene.observe(batch_ran(arrived_us=(1_000,)))
    scene.observe.flush()
    assert scene.emitted == [request]


def test_an_error_is_emitted_at_once_without_stages_of_a_batch() -> None:
    scene = Scene()
    request = scene.begun()
    scene.end(request, error="OverloadedError")
    assert scene.emitted == [request]
    assert [name for name, _, _ in stages_of(request)] == ["respond"]
    scene.observe(batch_ran(arrived_us=(1_000,)))
    scene.observe.flush()
    assert scene.emitted == [request]


def test_a_request_whose_batch_never_comes_is_told_in_the_end_and_an_unanswered_one_is_forgotten() -> None:
    scene = Scene()
    answered, unanswered = scene.begun(1_000), scene.begun(2_000)
    scene.end(answered)
    scene.observe(batch_ran(arrived_us=(3_000 + FORGET_US,)))
    scene.observe.flush()
    assert scene.emitted == [answered]
    assert unanswered.batch is None
    last = scene.begun(9_000)
    scene.end(last)
    scene.traces.close()
    assert scene.emitted == [answered, last]


def test_requests_under_way_are_bounded_and_what_is_left_out_is_counted() -> None:
    scene = Scene()
    requests = [scene.begin(moment) for moment in range(1_000, 1_000 + MAX_WAITING + 3)]
    assert requests[MAX_WAITING:] == [None] * 3
    assert scene.traces.dropped == 3
    for request in requests:
        if request is not None:
            scene.end(request, error="CancelledError")
    assert scene.begin() is not None
