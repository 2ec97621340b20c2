"""Whether and where traces go: OpenTelemetry's environment variables, or npuops' options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from npuops.errors import OptionError

DEFAULT_RATIO: Final = 0.01
"""Of the requests without a trace of their own. OpenTelemetry's default is all of them: too many for this server."""
_ALWAYS: Final[Mapping[str, float]] = {
    "always_on": 1.0,
    "parentbased_always_on": 1.0,
    "always_off": 0.0,
    "parentbased_always_off": 0.0,
}
_BY_RATIO: Final = frozenset({"traceidratio", "parentbased_traceidratio"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceOptions:
    """Attributes:
    endpoint: URL that takes OTLP over HTTP, the path `/v1/traces` included.
    ratio: of the requests without a `traceparent` that are recorded, 0 to 1; others follow their client.
    service_name: of the spans' resource.
    """

    endpoint: str
    ratio: float = DEFAULT_RATIO
    service_name: str = "npuops"

    def __post_init__(self) -> None:
        if not 0 <= self.ratio <= 1:
            raise OptionError(f"the ratio of traced requests is {self.ratio:g}", advice="choose 0 to 1")
        if not self.endpoint.startswith(("http://", "https://")):
            raise OptionError(
                f"the traces' endpoint {self.endpoint!r} is no URL",
                advice="for example http://collector:4318/v1/traces",
            )


def trace_options_of(environment: Mapping[str, str]) -> TraceOptions | None:
    """What the environment variables of OpenTelemetry's specification say; None where they name no endpoint.

    Raises:
        OptionError: a value that they cannot have.
    """
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true" or environment.get("OTEL_TRACES_EXPORTER") == "none":
        return None
    base = environment.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    endpoint = environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or (base and f"{base.rstrip('/')}/v1/traces")
    if not endpoint:
        return None
    return TraceOptions(
        endpoint=endpoint, ratio=_ratio(environment), service_name=environment.get("OTEL_SERVICE_NAME") or "npuops"
    )


def _ratio(environment: Mapping[str, str]) -> float:
    sampler = environment.get("OTEL_TRACES_SAMPLER", "")
    if not sampler:
        return DEFAULT_RATIO
    if sampler in _ALWAYS:
        return _ALWAYS[sampler]
    if sampler not in _BY_RATIO:
        known = ", ".join(sorted({*_ALWAYS, *_BY_RATIO}))
        raise OptionError(f"OTEL_TRACES_SAMPLER is {sampler!r}, which is not supported", advice=f"known: {known}")
    argument = environment.get("OTEL_TRACES_SAMPLER_ARG", "") or "1"
    try:
        return float(argument)
    except ValueError as error:
        raise OptionError(
            f"OTEL_TRACES_SAMPLER_ARG is {argument!r}", advice="a ratio from 0 to 1, for example 0.01"
        ) from error
