"""OpenTelemetry's environment variables mean here what its specification says, with one written exception."""

from __future__ import annotations

import pytest

from npuops.errors import OptionError
from npuops.telemetry.trace_options import DEFAULT_RATIO, TraceOptions, trace_options_of

BASE = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318/"}


def test_without_an_endpoint_there_are_no_traces() -> None:
    assert trace_options_of({}) is None
    assert trace_options_of({**BASE, "OTEL_SDK_DISABLED": "True"}) is None
    assert trace_options_of({**BASE, "OTEL_TRACES_EXPORTER": "none"}) is None


def test_the_base_gets_a_path_and_the_traces_own_endpoint_wins() -> None:
    assert trace_options_of(BASE) == TraceOptions(
        endpoint="http://127.0.0.1:4318/v1/traces", ratio=DEFAULT_RATIO, service_name="npuops"
    )
    found = trace_options_of({**BASE, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://127.0.0.1/t"})
    assert found is not None
    assert found.endpoint == "https://127.0.0.1/t"


@pytest.mark.parametrize(
    ("sampler", "argument", "ratio"),
    [
        ("always_on", "", 1.0),
        ("parentbased_always_off", "", 0.0),
        ("parentbased_traceidratio", "0.25", 0.25),
        ("traceidratio", "", 1.0),
    ],
)
def test_the_sampler_gives_the_ratio(sampler: str, argument: str, ratio: float) -> None:
    found = trace_options_of({**BASE, "OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": argument})
    assert found is not None
    assert found.ratio == ratio


@pytest.mark.parametrize(
    "wrong",
    [
        {"OTEL_TRACES_SAMPLER": "jaeger_remote"},
        {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "often"},
        {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "nan"},
        {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "2"},
        {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "collector:4318"},
    ],
)
def test_a_value_that_makes_no_sense_is_refused_with_advice(wrong: dict[str, str]) -> None:
    with pytest.raises(OptionError) as caught:
        trace_options_of({**BASE, **wrong})
    assert caught.value.advice
