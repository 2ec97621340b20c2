"""What is served: the files of one version as they were found, and, with its options, all that a launch needs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from npuops.artifacts.manifest import Manifest
from npuops.runtime.chain import ChainOptions, ChainPlan
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
class ChainFile:
    """A `chain.toml`."""

    text: str
    options: ChainOptions


@dataclass(frozen=True, slots=True)
class VersionFiles:
    """One version in a repository: artifacts that answer the same requests. Equal where no file was touched.

    Attributes:
        chain: of a version that is a chain of other models, and has no artifacts.
    """

    version: str
    artifacts: tuple[FoundArtifact, ...]
    chain: ChainFile | None = None

    @property
    def digest(self) -> str:
        """`sha256:…` over names and digests of all artifacts: equal content is equal, wherever it lies."""
        return _digest("\n".join(f"{item.name} {item.manifest.digest}" for item in self.artifacts))

    @property
    def stamp(self) -> tuple[Stamp, ...]:
        """Differs when a file was touched."""
        chain = () if self.chain is None else (((self.chain.text, 0, 0, 0),),)
        return (*(item.stamp for item in self.artifacts), *chain)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VersionSpec:
    """All that a launcher needs to start one version of one model.

    Attributes:
        model: name of the model, as requests say it.
        version: a whole number, as text.
        artifacts: other shapes (buckets) or other targets of the same model; none of a chain.
        signature: as clients see it.
        options: of the model.
        digest: of the artifacts' content; of a chain, of what it says and of its models' signatures.
        inside: what the artifacts take and give, where steps stand between them and the clients; else None.
        chain: of other models, which answers in place of artifacts.
    """

    model: str
    version: str
    artifacts: tuple[FoundArtifact, ...]
    signature: Signature
    options: ModelOptions
    digest: str
    inside: Signature | None = None
    chain: ChainPlan | None = None

    @property
    def without_steps(self) -> VersionSpec:
        """The artifacts alone."""
        return self if self.inside is None else replace(self, signature=self.inside, inside=None)

    @property
    def platform(self) -> str:
        """What runs it: `npuops_` and its targets, or `npuops_chain`."""
        targets = dict.fromkeys(item.manifest.target for item in self.artifacts)
        return "npuops_" + ("+".join(targets) if targets else "chain")

    @property
    def canary(self) -> bool:
        """A request must name this version to get it."""
        return self.version in self.options.canary

    def runs_like(self, other: VersionSpec) -> bool:
        """A version launched with the other spec can go on with this one, without a new launch."""
        return self._source == other._source and not self.options.needs_reload(other.options)

    def is_same(self, other: VersionSpec) -> bool:
        """Also all options are the same: there is nothing to follow."""
        return self._source == other._source and self.options == other.options

    @property
    def _source(self) -> tuple[object, ...]:
        """What is run, and where it lies: a worker that has to start again reads it from there."""
        return (self.digest, *(item.path for item in self.artifacts))


def chain_spec(model: str, files: VersionFiles, plan: ChainPlan, options: ModelOptions) -> VersionSpec:
    """Of a chain; another one as soon as one of its models has other tensors."""
    text = files.chain.text if files.chain is not None else ""
    tensors = [(step.model, step.version, step.signature) for step in plan.steps]
    return VersionSpec(
        model=model,
        version=files.version,
        artifacts=(),
        signature=plan.signature,
        options=options,
        digest=_digest(f"{text}\n{tensors!r}"),
        chain=plan,
    )


def _digest(words: str) -> str:
    return "sha256:" + hashlib.sha256(words.encode()).hexdigest()
