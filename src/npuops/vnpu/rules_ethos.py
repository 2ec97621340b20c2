"""What an Ethos-U takes: `npuops.targets.ethos_u_rules`, for the number formats that Vela compiles.

Source of the rules: `vela --supported-ops-report` of ethos-u-vela 5.2.0 (see that module). The older public list,
nxp-imx/ethos-u-vela `SUPPORTED_OPS.md`@090f18a (Vela 3.6), is the same family with fewer operators and was read to
compare: it allows the types int8, uint8, int16 and int32 only.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from npuops.models.model import Model
from npuops.models.placement import Placement, RunsOn
from npuops.targets import ethos_u_rules
from npuops.targets.ethos_u_configs import Generation

GENERATIONS: Final = {"ethos-u85-512": Generation.U85}
"""Profile → generation."""
FORMATS: Final = ("int8", "w8a16")


def place_on(model: Model, generation: Generation, number_format: str = "int8") -> tuple[Placement, ...]:
    """Every layer of the model, placed."""
    placed = ethos_u_rules.place_on(model, generation)
    if number_format in FORMATS:
        return placed
    return tuple(_refused(one, number_format) for one in placed)


def _refused(place: Placement, number_format: str) -> Placement:
    rule = f"the chip computes in {', '.join(FORMATS)}"
    if place.runs_on is RunsOn.NPU:
        return replace(place, runs_on=RunsOn.CPU, rule=rule, found=number_format)
    return replace(place, rule=f"{rule}; {place.rule}", found=f"{number_format}; {place.found}")
