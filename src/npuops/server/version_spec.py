"""What is served: the files of one version as they were found, and, with its options, all that a launch needs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from npuops.artifacts.manifest import Manifest
from npuops.runtime.signature import Signature
from npuops.server.model_options import ModelOptions

Stamp = tuple[tuple[str, int, int, int], ...]
"""Of each file: name, inode, size in bytes, time of change in nanoseconds."""


@dataclass(frozen=True, slots=True, eq=False)
class FoundArtifact:
    """One artifact on disk whose manifest is whole; its other files are there in full length, but not verified.

    Attributes:
        name: within the version's folder, without `.npuart`; "" where the version itself is the artifact.
        path: a folder, or a `.npuart` file.
        stamp: differs when anything of it was touched.
    """

    name: str
    path: Path
    manifest: Manifest
    stamp: Stamp


@dataclass(frozen=True, slots=True)
class VersionFiles:
    """One version in a repository: artifacts that answer the same requests. Equal where no file was touched."""

    version: str
    artifacts: tuple[FoundArtifact, ...]

    @property
    def digest(self) -> str:
        """`sha256:…` over names and digests of all artifacts: equal content is equal, wherever it lies."""
        words = "\n".join(f"{item.name} {item.manifest.digest}" for item in self.artifacts)
        return "sha256:" + hashlib.sha256(words.encode()).hexdigest()

    @property
    def stamp(self) -> tuple[Stamp, ...]:
        """Differs when a file was touched."""
        return tuple(item.stamp for item in self.artifacts)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VersionSpec:
    """All that a launcher needs to start one version of one model.

    Attributes:
        model: name of the model, as requests say it.
        version: a whole number, as text.
        artifacts: at least one; other shapes (buckets) or other targets of the same model.
        signature: over all of them.
        options: of the model.
        digest: of the artifacts' content.
    """

    model: str
    version: str
    artifacts: tuple[FoundArtifact, ...]
    signature: Signature
    options: ModelOptions
    digest: str

    @property
    def canary(self) -> bool:
        """A request must name this version to get it."""
        return self.version in self.options.canary

    def runs_like(self, other: VersionSpec) -> bool:
        """A version launched with the other spec can go on with this one, without a new launch."""
        return self.digest == other.digest and not self.options.needs_reload(other.options)

    def is_same(self, other: VersionSpec) -> bool:
        """Also all options, and where the files lie, are the same: there is nothing to follow."""
        places = [[item.path for item in spec.artifacts] for spec in (self, other)]
        return self.digest == other.digest and self.options == other.options and places[0] == places[1]
