"""What a forecast is worth: one function for training, for the scorer, and for the oracle.

Misses come first; then the batch task that got the least, which may lose a little for nothing and beyond that counts
like misses; then the quiet of leaving things as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from npuops.errors import OptionError
from npuops.hostsched.plan import Forecast

Number = TypeVar("Number", float, NDArray[np.float32], NDArray[np.float64])


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """How much each concern counts; the share of requests that miss counts 1.

    Attributes:
        floor: progress of the slowest batch task that is still all right, relative to the default setting.
        below_floor: for each whole progress short of the floor. At 1, a point of progress lost there and a point of
            requests missed are the same.
        progress: for each whole progress, up to 1. Small: it decides between plans that miss alike.
        change: for each task whose level changes. Ten changes are worth a point of requests at 0.001.
    """

    floor: float = 0.85
    below_floor: float = 1.0
    progress: float = 0.05
    change: float = 0.001

    def __post_init__(self) -> None:
        """Refuse weights under which a worse plan would be worth more.

        Raises:
            OptionError: one is negative or no number.
        """
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 <= value < float("inf"):
                raise OptionError(f"the weight {field.name} of the objective is {value}: it must be 0 or more")


WEIGHTS = Weights()


class Trust(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far the network is followed.

    Attributes:
        margin: by so much more than the rule's plan another one must be worth to be taken instead.
        below_floor: `Weights.below_floor`, applied to forecasts.
    """

    margin: float = 0.0
    below_floor: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            OptionError: a number that is negative or none.
        """
        if not (0 <= self.margin < float("inf") and 0 <= self.below_floor < float("inf")):
            raise OptionError(f"trust in a policy takes numbers of 0 or more: {self.margin}, {self.below_floor}")


TRUST: Final = Trust()
"""As far as its own forecasts say."""


def worth(miss_share: Number, progress: Number, changes: Number, weights: Weights = WEIGHTS) -> Number:
    """The more the better; 0 would be no miss, all progress and no change, less the weight of progress.

    Args:
        miss_share: of requests with an SLO, 0 to 1; 0 where there are none. A number, or an array of any shape.
        progress: of the slowest batch task relative to the default setting; 1 where there is none.
        changes: how many tasks change their level.
        weights: how much each counts.
    """
    short = np.maximum(weights.floor - progress, 0.0)
    earned = np.minimum(progress, 1.0)
    found: Number = (
        weights.progress * earned - miss_share - weights.below_floor * short - weights.change * np.asarray(changes)
    )
    return found


def worth_of(forecast: Forecast, changes: int = 0, weights: Weights = WEIGHTS) -> float:
    """Of one forecast."""
    return float(worth(forecast.miss_share, forecast.progress, float(changes), weights))
