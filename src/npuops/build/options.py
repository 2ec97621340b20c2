"""What a user can decide about a build."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from npuops.build.fallback import FORBID, FallbackPolicy
from npuops.build.parity import ParityLimits
from npuops.targets.protocol import Precision


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """Options of `npuops build`; the defaults are what most models want."""

    precision: Precision | None = None
    """The target's default when None."""
    method: str = "minmax"
    """Calibration: `minmax`, `percentile`, `entropy` or `mse`."""
    per_channel: bool = True
    max_drop: float | None = None
    """Largest accepted loss of `metric`, 0.01 for 1 %; with it, precision `mixed` searches."""
    metric: str = "top1"
    """`top1`, `cosine`, or `module:function(outputs, labels) -> float`."""
    dynamic_batch: bool = False
    """Leave the batch axis free, or refuse. Without it, an axis that the model leaves open stays so where the target
    can compile it, unless a shape was given."""
    fallback: FallbackPolicy = FORBID
    vendor: Mapping[str, str] = field(default_factory=dict)
    """Options of the target's compiler, validated by the target."""
    limits: ParityLimits = field(default_factory=ParityLimits)
    time_limit_s: float = 900.0
    """For each call of vendor code."""
    use_cache: bool = True

    @property
    def parity_limits(self) -> ParityLimits:
        """The limits that make sense for the metric: an embedding has no classes whose best could agree."""
        return self.limits if self.metric == "top1" else self.limits.without_top1()
