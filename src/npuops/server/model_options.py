"""`model.toml`: how one model is served. Every key has a default, so that a model needs no file at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from npuops.build.fallback import read_fallback_policy
from npuops.config import read_options, read_toml
from npuops.errors import OptionError
from npuops.server.version_policy import VersionRule, check_version, read_rule

FILE: Final = "model.toml"
ADVICE: Final = "docs/serving.md lists the keys of model.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchingOptions:
    """`[batching]`.

    Attributes:
        enabled: `auto` batches where the curve measured at load says that it pays; `off` never joins two requests.
        max_rows: most rows of one run; None takes what the artifacts allow.
        budget_ms: a run may take this long because it carries several requests.
    """

    enabled: Literal["auto", "off"] = "auto"
    max_rows: int | None = None
    budget_ms: float = 10.0

    def __post_init__(self) -> None:
        _at_least("batching.max_rows", self.max_rows, 1)
        _above("batching.budget_ms", self.budget_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueOptions:
    """`[queue]`: what may wait.

    Attributes:
        max_requests: that wait, also for a cold model to load.
        max_bytes: of the inputs of all that wait.
        default_timeout_ms: of a request that names none; None waits as long as it takes.
        max_timeout_ms: a longer wish is cut to this.
    """

    max_requests: int = 1024
    max_bytes: int = 256 * 1024 * 1024
    default_timeout_ms: float | None = None
    max_timeout_ms: float | None = None

    def __post_init__(self) -> None:
        _at_least("queue.max_requests", self.max_requests, 1)
        _at_least("queue.max_bytes", self.max_bytes, 1)
        _above("queue.default_timeout_ms", self.default_timeout_ms)
        _above("queue.max_timeout_ms", self.max_timeout_ms)

    @property
    def shortest_ms(self) -> float | None:
        """What a request that names none gets at most; None: as long as it takes. To hints and batches it is an SLO."""
        times = [each for each in (self.default_timeout_ms, self.max_timeout_ms) if each is not None]
        return min(times) if times else None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceOptions:
    """`[[device]]`: one device that runs the model. Without any, each target of the version's artifacts is one.

    Attributes:
        target: takes all artifacts of the version that were built for it.
        artifact: takes this one alone; its name within the version's folder.
        name: of a virtual device (`npuops device`); other targets have none.
        instances: worker processes on it.
        fallback: it answers only what the model's fallback policy lets it have.
    """

    target: str | None = None
    artifact: str | None = None
    name: str | None = None
    instances: int = 1
    fallback: bool = False

    def __post_init__(self) -> None:
        if self.target is None and self.artifact is None:
            raise OptionError("a [[device]] names a target or an artifact", advice='target = "ort-cpu"')
        if self.target is not None and self.artifact is not None:
            raise OptionError("a [[device]] names a target or an artifact, not both", advice="leave one away")
        _at_least("device.instances", self.instances, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleOptions:
    """`[idle]`: scale to zero and back.

    Attributes:
        keep_alive_s: without a request for this long the model leaves memory, and comes back with the next one; None
            keeps it.
        prewarm: load it when the server starts, not with the first request.
    """

    keep_alive_s: float | None = None
    prewarm: bool = True

    def __post_init__(self) -> None:
        _above("idle.keep_alive_s", self.keep_alive_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class CropOptions:
    """`[[padding.crop]]`: this axis of an output is as long as that axis of an input, and is cut back with it."""

    output: str
    axis: int
    input: str
    input_axis: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PaddingOptions:
    """`[padding]`: may a request be filled up to the next larger shape? Only the model's owner can know that.

    Attributes:
        rows: artifacts of one static batch take fewer rows too, and requests share runs: rows do not know of each
            other. The launch tries whether that can be true.
        values: input → what fills it. No entry: that input is never padded (other than by rows of a batch).
        crop: which output axes have to be cut back.
    """

    rows: bool = False
    values: Mapping[str, float] = field(default_factory=dict)
    crop: tuple[CropOptions, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """All of `model.toml`.

    Attributes:
        versions: `latest`, `latest N`, `all`, or a list: which are loaded.
        canary: loaded besides; a request must name them, and readiness does not wait for them.
        fallback: `forbid`, `allow` or `budget=R`: how much of the work devices marked as fallback may take.
        inline: run in the front end's own process; `auto` does where the model is so small that a process costs more.
        shard: `shape`, or the name of a request parameter: equal ones go to the same device. "" does not.
        max_request_bytes: of one request's inputs, and of its outputs, where the model leaves sizes free.
        run_limit_s: a run that takes longer is taken for hanging, and its worker is started again.
        open_limit_s: a worker that takes longer to load is taken for hanging.
        patience_s: how long requests wait while no device of the model is ready; then they get 503.
        batching, queue, device, idle, padding: tables, see their types.
    """

    versions: str | tuple[str, ...] = "latest"
    canary: tuple[str, ...] = ()
    fallback: str = "allow"
    inline: Literal["auto", "never", "always"] = "auto"
    shard: str = ""
    max_request_bytes: int = 64 * 1024 * 1024
    run_limit_s: float = 30.0
    open_limit_s: float = 600.0
    patience_s: float = 10.0
    batching: BatchingOptions = field(default_factory=BatchingOptions)
    queue: QueueOptions = field(default_factory=QueueOptions)
    device: tuple[DeviceOptions, ...] = ()
    idle: IdleOptions = field(default_factory=IdleOptions)
    padding: PaddingOptions = field(default_factory=PaddingOptions)

    def __post_init__(self) -> None:
        read_rule(self.versions)
        for version in self.canary:
            check_version(version)
        read_fallback_policy(self.fallback)
        _at_least("max_request_bytes", self.max_request_bytes, 1)
        for name in ("run_limit_s", "open_limit_s", "patience_s"):
            _above(name, getattr(self, name))

    @property
    def rule(self) -> VersionRule:
        """`versions`, understood."""
        return read_rule(self.versions)

    def needs_reload(self, other: ModelOptions) -> bool:
        """Whether a version that runs with these options has to be launched again to follow `other`.

        What decides how workers are started and how large their slots are does; the rest is applied while it runs.
        """
        return self.launch_part() != other.launch_part()

    def launch_part(self) -> ModelOptions:
        """These options with everything at its default that a running version can change."""
        return replace(
            ModelOptions(),
            inline=self.inline,
            device=self.device,
            padding=self.padding,
            max_request_bytes=self.max_request_bytes,
            open_limit_s=self.open_limit_s,
            patience_s=self.patience_s,
            # Without batches the curve is measured at one row alone, and nobody could say later whether they pay.
            batching=BatchingOptions(enabled=self.batching.enabled, max_rows=self.batching.max_rows),
        )


def read_model_options(
    text: str | None, override: Mapping[str, Any] | None = None, *, where: str = FILE
) -> ModelOptions:
    """The options of a model.

    Args:
        text: of its `model.toml`; None where there is none.
        override: tables of the repository extension's `config` parameter; each key replaces the file's, table by table.
        where: what to call the file in an error.

    Raises:
        OptionError: not TOML, an unknown key (the nearest one is named), or an impossible value.
    """
    values = _plain(read_toml(text, where=where)) if text is not None else {}
    if override is None:
        return read_options(ModelOptions, values, where=where, advice=ADVICE)
    merged = _merged(values, _plain(override))
    return read_options(ModelOptions, merged, where=f"{where} with `config`", advice=ADVICE)


def read_override(text: str) -> Mapping[str, Any]:
    """The `config` parameter of a load request: a JSON object with keys of `model.toml`.

    Raises:
        OptionError: it is no JSON object, or has keys or values that `model.toml` could not have.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise OptionError(f"the parameter `config` is not JSON: {error}", advice=ADVICE) from error
    if not isinstance(values, dict):
        raise OptionError("the parameter `config` is not a JSON object", advice='for example {"versions": "all"}')
    read_options(ModelOptions, _plain(values), where="`config`", advice=ADVICE)
    return values


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Versions may be written as numbers."""
    plain = dict(values)
    for key in ("versions", "canary"):
        if isinstance(plain.get(key), list):
            plain[key] = [str(item) if type(item) is int else item for item in plain[key]]
    return plain


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        inner = below.get(key)
        both = isinstance(value, Mapping) and isinstance(inner, Mapping)
        merged[key] = {**inner, **value} if both and inner is not None else value
    return merged


def _at_least(name: str, value: int | None, least: int) -> None:
    if value is not None and value < least:
        raise OptionError(f"{name} is {value}, and must be at least {least}")


def _above(name: str, value: float | None) -> None:
    if value is not None and not 0 < value < float("inf"):
        raise OptionError(f"{name} is {value}, and must be above 0")
