"""A model measured on one chip, predicted for its sibling.

What the law does not explain of a model is mostly its compiler's doing, and chips of one vendor share the compiler. So
a surprise carries over::

    log(measured / law) on the sibling  x  share  =  log(truth / law) on this chip

The share and the spread of what is left are known per pair of chips, from published rows of models that neither fit had
seen (`benchmarks/predictor/fit_transfer.py` writes `transfer.toml`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

import numpy as np

from npuops.config import read_options, read_toml
from npuops.errors import DataError, OptionError, nearest
from npuops.vnpu.figures import refuse_unless
from npuops.vnpu.perf import Floats
from npuops.vnpu.profile_sections import FitError, Interval

FILE: Final = "transfer.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """How well a measurement on one chip tells of another.

    Attributes:
        share: of the surprise that carries over, 0 to 1.
        interval: holds four of five truths, as factors of the prediction.
        error: with each architecture family left out once.
    """

    share: float
    interval: Interval
    error: FitError

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            OptionError: the message names the key.
        """
        refuse_unless(0 <= self.share <= 1, "share", "must be 0 to 1", self.share)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transferred:
    """Latency on a chip that did not run the model; microseconds."""

    us: float
    low_us: float
    high_us: float


def transferred(law_us: float, sibling_law_us: float, measured_us: float, transfer: Transfer) -> Transferred:
    """Correct the law by what the sibling's measurement says of the model.

    Args:
        law_us: what the law predicts for this chip.
        sibling_law_us: what it predicts for the chip that was measured.
        measured_us: the measurement.
        transfer: of this pair.

    Raises:
        DataError: a measurement that is not above 0.
    """
    if not 0 < measured_us < np.inf:
        raise DataError(f"a latency of {measured_us:g} µs is no measurement", advice="give it above 0")
    us = law_us * float((measured_us / sibling_law_us) ** transfer.share)
    return Transferred(us=us, low_us=us * transfer.interval.low, high_us=us * transfer.interval.high)


def share_of(surprise: Floats, sibling_surprise: Floats) -> float:
    """The share that explains `surprise` best, by least squares through the origin, between 0 and 1.

    Args:
        surprise: log(measured / law) of models on a chip; float64[models].
        sibling_surprise: the same of its sibling.
    """
    power = float(sibling_surprise @ sibling_surprise)
    return float(np.clip(surprise @ sibling_surprise / power, 0, 1)) if power else 0.0


def transfers_from(measured_on: str) -> Mapping[str, Transfer]:
    """Chips that a measurement on a bundled profile tells of, and how well.

    Raises:
        OptionError: published rows tell of none.
    """
    known = transfers()
    if measured_on not in known:
        raise OptionError(
            f"no published rows tell what a measurement on {measured_on} says of other chips",
            advice=nearest(measured_on, known),
        )
    return known[measured_on]


@cache
def transfers() -> Mapping[str, Mapping[str, Transfer]]:
    """Profile on which a model ran → profile to predict for → how well."""
    text = files("npuops.vnpu").joinpath(FILE).read_text(encoding="utf-8")
    return {
        measured_on: {
            chip: read_options(Transfer, values, where=f"{FILE}: {measured_on}: {chip}")
            for chip, values in pairs.items()
        }
        for measured_on, pairs in read_toml(text, where=FILE).items()
    }
