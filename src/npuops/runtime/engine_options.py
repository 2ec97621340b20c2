"""How one model version is served."""

from __future__ import annotations

from dataclasses import dataclass, field

from npuops.build.fallback import ALLOW, FallbackPolicy
from npuops.runtime.admission import Limits
from npuops.runtime.buckets import NO_PADDING, AxisPadding


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """How one model version is served.

    Attributes:
        batching: requests may share a run.
        budget_us: longest run that batching may make of them.
        limits: of the queue.
        max_request_bytes: of the inputs of one request, and of its outputs, where the model leaves sizes free.
        run_limit_s: a run that takes longer is taken for hanging, and its worker is ended.
        open_limit_s: a worker that takes longer to load is taken for hanging.
        patience_s: how long requests wait for a device that is lost; then they are told.
        measure_ms: time to measure the batch curve in, for each artifact.
        inline: `auto`: runs of less than `INLINE_US` are computed in the server's process, where the target allows.
        fallback: what devices marked as fallback may take.
        spill_us: by so much later than the best device would, a busy one's idle neighbour may answer while more waits.
        shard: `""`, `shape`, or the name of a request parameter: equal ones go to the same device.
        padding: along other axes than that of the batch.
    """

    batching: bool = True
    budget_us: float = 10_000.0
    limits: Limits = field(default_factory=Limits)
    max_request_bytes: int = 64 << 20
    run_limit_s: float = 30.0
    open_limit_s: float = 600.0
    patience_s: float = 10.0
    measure_ms: float = 300.0
    inline: str = "auto"
    fallback: FallbackPolicy = ALLOW
    spill_us: float = 0.0
    shard: str = ""
    padding: AxisPadding = NO_PADDING
