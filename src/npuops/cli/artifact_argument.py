"""The artifact on the command line, as every verb that opens one takes it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ArtifactArgument = Annotated[Path, typer.Argument(help="Artifact: a folder or a .npuart file.")]
