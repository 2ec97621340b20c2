"""`npuops profiles transfer`: a model ran on one chip; how fast is it on the vendor's others?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from npuops.cli.model_argument import ModelArgument
from npuops.cli.show import JsonFlag, console, print_json
from npuops.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from npuops.vnpu.sibling_latency import SiblingLatency

SCHEMA = "npuops.profiles-transfer/1"


def transfer(
    model: ModelArgument,
    measured: Annotated[
        str, typer.Option("--measured", "-m", metavar="PROFILE=MS", help="Where it ran, and its milliseconds.")
    ],
    number_format: Annotated[str, typer.Option("--format", "-f", help="int8, w8a16, fp16 or fp32.")] = "int8",
    as_json: JsonFlag = False,
) -> None:
    """Predict a model for the siblings of a chip that ran it: one measurement says what the law does not know of it."""
    from npuops.models.open import open_model  # noqa: PLC0415 - help must not pay for it
    from npuops.vnpu.sibling_latency import sibling_latencies  # noqa: PLC0415 - as above

    profile, ms = _measurement(measured)
    found = sibling_latencies(open_model(Path(model)), profile, ms * 1e3, number_format)
    if as_json:
        print_json(
            {
                "schema": SCHEMA,
                "measured_on": profile,
                "measured_us": ms * 1e3,
                "format": number_format,
                "basis": "modelled",
                "chips": [_plain(one) for one in found],
            }
        )
        return
    _show(found, profile, ms)


def _measurement(words: str) -> tuple[str, float]:
    profile, _, number = words.partition("=")
    try:
        return profile, float(number.removesuffix("ms"))
    except ValueError as error:
        raise UsageError(f"--measured {words!r} is no PROFILE=MS", advice="for example hexagon-v73=12.3") from error


def _plain(one: SiblingLatency) -> dict[str, object]:
    return {
        "profile": one.chip,
        "us": one.us,
        "low_us": one.low_us,
        "high_us": one.high_us,
        "us_without_measurement": one.law_us,
        "layers_on_cpu": one.on_cpu,
        "error": one.error,
    }


def _show(found: Sequence[SiblingLatency], profile: str, ms: float) -> None:
    from rich.table import Table  # noqa: PLC0415 - help must not pay for it

    from npuops.units import format_us  # noqa: PLC0415 - as above

    table = Table(box=None, pad_edge=False)
    table.add_column("chip", no_wrap=True)
    for heading in ("one inference", "80 % interval", "without it", "layers on CPU", "error of this pair"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in found:
        table.add_row(
            one.chip,
            format_us(one.us),
            f"{format_us(one.low_us)} to {format_us(one.high_us)}",
            format_us(one.law_us),
            str(one.on_cpu),
            f"{one.error.mape:.0%} over {one.error.rows} rows",
        )
    console().print(table)
    console().print(f"modelled, after {ms:g} ms measured on {profile}")
