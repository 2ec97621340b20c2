"""`--time-limit`, as every verb that starts a vendor's code takes it."""

from __future__ import annotations

from typing import Annotated, Final

import typer

_MOST_S: Final = 1e6
"""Eleven days; the operating system's own waits end at 24."""

TimeLimitFlag = Annotated[
    float, typer.Option("--time-limit", min=1, max=_MOST_S, help="Seconds for each call of the vendor's code.")
]
