"""What an Ethos-U takes: `npuops.targets.ethos_u_rules`, for the number formats that Vela compiles.

Source of the rules: `vela --supported-ops-report` of ethos-u-vela 5.2.0 (see that module). The older public list,
nxp-imx/ethos-u-vela `SUPPORTED_OPS.md`@090f18a (Vela 3.6), is the same family with fewer operators and was read to
compare: it allows the types int8, uint8, int16 and int32 only.
"""

from __future__ import annotations

from typing import Final

from npuops.models.model import Model
from npuops.models.placement import Placement
from npuops.targets import ethos_u_rules
from npuops.targets.ethos_u_configs import Generation
from npuops.vnpu.rule_conditions import refused

GENERATIONS: Final = {"ethos-u85-512": Generation.U85}
"""Profile → generation."""
FORMATS: Final = ("int8", "w8a16")


def place_on(model: Model, generation: Generation, number_format: str = "int8") -> tuple[Placement, ...]:
    """Every layer of the model, placed."""
    placed = ethos_u_rules.place_on(model, generation)
    return tuple(refused(one, FORMATS, number_format) for one in placed)
