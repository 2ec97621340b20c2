"""The model on the command line, for verbs that look at its file alone: a path, or a model of the bundled zoo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def model_file(words: str) -> Path:
    """`zoo:NAME` → the bundled file; everything else is a path.

    Raises:
        OptionError: no such model in the zoo.
    """
    from npuops.models.zoo import PREFIX, zoo_model  # noqa: PLC0415 - help must not pay for it

    return zoo_model(words.removeprefix(PREFIX)).model if words.startswith(PREFIX) else Path(words)


ModelArgument = Annotated[
    Path, typer.Argument(help="ONNX or TFLite file, or zoo:NAME.", parser=model_file, metavar="MODEL")
]
