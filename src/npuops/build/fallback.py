"""The fallback policy: what happens when nodes do not run on the NPU. There is no silent fallback."""

from __future__ import annotations

from dataclasses import dataclass

from npuops.errors import OptionError
from npuops.models.placement import FallbackRatio


@dataclass(frozen=True, slots=True)
class FallbackPolicy:
    """`budget` is the largest share of the work (by MACs if known, else by operators) allowed on the CPU."""

    budget: float

    @property
    def words(self) -> str:
        """As the command line spells it."""
        if self.budget <= 0:
            return "forbid"
        return "allow" if self.budget >= 1 else f"budget={self.budget:g}"

    def admits(self, ratio: FallbackRatio) -> bool:
        """Whether this much fallback is within the policy.

        `forbid` looks at the operators too: a node without MACs on the CPU still costs two transfers.
        """
        if self.budget <= 0:
            return ratio.ops == 0
        return (ratio.ops if ratio.macs is None else ratio.macs) <= self.budget


FORBID = FallbackPolicy(0.0)
ALLOW = FallbackPolicy(1.0)


def read_fallback_policy(words: str) -> FallbackPolicy:
    """`forbid`, `allow`, or `budget=R` with R between 0 and 1.

    Raises:
        OptionError: anything else.
    """
    if words in {"forbid", "allow"}:
        return FORBID if words == "forbid" else ALLOW
    name, _, number = words.partition("=")
    try:
        budget = float(number) if name == "budget" else -1.0
    except ValueError:
        budget = -1.0
    if not 0 < budget <= 1:
        raise OptionError(
            f"fallback policy {words!r} is unknown", advice="forbid, allow, or budget=R with R between 0 and 1"
        )
    return FallbackPolicy(budget)
