"""A program of the laboratory's own in C."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from npuops.hostsched.c_source import CSource


@dataclass(frozen=True, slots=True)
class CProgram:
    """What it is made of.

    Attributes:
        name: of the file, before the digest of its sources.
        sources: files beside this one.
    """

    name: str
    sources: Sequence[str]

    def compiled(self, folder: Path | None = None) -> Path:
        """Path of the program in `folder`, by default in npuops' cache; compiled now if it is not there yet.

        Raises:
            As `CSource.compiled`.
        """
        return CSource("npuops.schedlab", self.name, self.sources).compiled(folder)
