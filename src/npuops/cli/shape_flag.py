"""`--shape NAME=1x3x224x224`, as every verb that opens a model takes it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated

import typer

from npuops.errors import OptionError

ShapeFlag = Annotated[
    list[str] | None,
    typer.Option("--shape", help="Fix a dynamic input: NAME=1x3x224x224. Can be repeated."),
]


def parse_shapes(texts: Iterable[str] | None) -> dict[str, tuple[int, ...]]:
    """`["x=1x3x224x224"]` → `{"x": (1, 3, 224, 224)}`. Names may contain `=` and `:`.

    Raises:
        OptionError: not of that form, or a name given twice.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts or ():
        name, _, sizes = text.rpartition("=")
        if not name or not re.fullmatch(r"[1-9]\d{0,9}(x[1-9]\d{0,9})*", sizes):
            raise OptionError(f"--shape {text!r} is not NAME=SIZES", advice="for example --shape input=1x3x224x224")
        if name in shapes:
            raise OptionError(f"--shape names {name!r} twice")
        shapes[name] = tuple(int(size) for size in sizes.split("x"))
    return shapes
