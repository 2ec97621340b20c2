"""One measurement of a model, and what it says of the vendor's other chips."""

from __future__ import annotations

from dataclasses import dataclass

from npuops.errors import DataError, OptionError
from npuops.models.model import Model
from npuops.models.placement import RunsOn
from npuops.vnpu.predict import Estimate, estimate_model, unpriced
from npuops.vnpu.profile import Profile, load_profile
from npuops.vnpu.profile_sections import FitError
from npuops.vnpu.rules import rules_of
from npuops.vnpu.transfer import transferred, transfers_from
from npuops.vnpu.work import workload_of


@dataclass(frozen=True, slots=True, kw_only=True)
class SiblingLatency:
    """A chip that did not run the model; microseconds."""

    chip: str
    us: float
    low_us: float
    """Four of five truths lie between this and `high_us`."""
    high_us: float
    law_us: float
    """What would be predicted without the measurement."""
    on_cpu: int
    """Layers that fall back on this chip; published rows tell nothing of those."""
    error: FitError
    """Of this pair of chips, over published models that neither fit had seen."""


def sibling_latencies(
    model: Model, measured_on: str, measured_us: float, number_format: str = "int8"
) -> tuple[SiblingLatency, ...]:
    """Predict the model for every sibling that runs the format.

    Args:
        model: that was measured.
        measured_on: bundled profile of the chip that ran it.
        measured_us: microseconds of one inference there.
        number_format: in which it ran.

    Raises:
        OptionError: published rows tell nothing of that chip, or it does not run the format.
        DataError: a measurement that is not above 0, or a model whose sizes are not known.
    """
    pairs = transfers_from(measured_on)
    there, _ = _law(model, load_profile(measured_on), number_format)
    found = []
    for name, pair in pairs.items():
        chip = load_profile(name)
        if number_format not in chip.formats:
            continue
        here, on_cpu = _law(model, chip, number_format)
        told = transferred(here.us, there.us, measured_us, pair)
        found.append(
            SiblingLatency(
                chip=name,
                us=told.us,
                low_us=told.low_us,
                high_us=told.high_us,
                law_us=here.us,
                on_cpu=on_cpu,
                error=pair.error,
            )
        )
    if not found:
        raise OptionError(f"no sibling of {measured_on} runs {number_format}")
    return tuple(found)


def _law(model: Model, chip: Profile, number_format: str) -> tuple[Estimate, int]:
    """The estimate without any measurement, and how many layers fall back."""
    placed = rules_of(chip.name, number_format)(model)
    if unpriced(model, placed):
        raise DataError(f"{model.path.name} has no latency: sizes are not known", advice="give it static shapes")
    found = estimate_model(model, workload_of(model), chip, placed, number_format)
    return found, sum(place.runs_on is RunsOn.CPU for place in placed)
