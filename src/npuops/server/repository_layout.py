"""What lies in a repository: models, versions, artifacts; and, entry by entry, what cannot be served and why.

    repo/<model>/model.toml                 optional
    repo/<model>/<version>/                 one artifact, or a folder of several: other shapes, other targets
    repo/<model>/<version>.npuart           the same in one file
    repo/<model>/manifest.json              a model that is one artifact: version 1
    repo/<model>.npuart                     the same in one file
    repo/<model>/chain.toml                 a chain of other models: version 1

Links are followed within the repository and refused where they lead out of it. Hidden entries, and files that are
nothing of this, are left alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from npuops.artifacts.bundle import SUFFIX, is_bundle
from npuops.artifacts.disk import read_small, storage_errors
from npuops.artifacts.manifest import MANIFEST_NAME
from npuops.errors import ArtifactError, NpuopsError, OptionError, StorageError, UsageError
from npuops.runtime.chain import circle, read_chain
from npuops.server.artifact_peek import ManifestReader
from npuops.server.model_options import FILE, ModelOptions, read_model_options
from npuops.server.version_policy import VERSION
from npuops.server.version_signature import published, signature_of
from npuops.server.version_spec import ChainFile, FoundArtifact, VersionFiles

MODEL_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
CHAIN: Final = "chain.toml"
_TEXT_LIMIT_BYTES: Final = 1024 * 1024
_ONLY_VERSION: Final = "1"
_JUDGED_KEPT: Final = 10_000
_CHANGING: Final = "it changed a moment ago; it is loaded when it stays as it is"
_VANISHED: Final = "it went away a moment ago; it is unloaded when it stays away"


@dataclass(frozen=True, slots=True)
class Problem:
    """An entry that cannot be served. `version` is "" where it is about the whole model."""

    path: Path
    model: str
    version: str
    reason: str
    advice: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFolder:
    """One model on disk.

    Attributes:
        name: as requests say it.
        text: of `model.toml`; None without one.
        options: None where the text is wrong; a problem says how.
        versions: that could be loaded.
    """

    name: str
    text: str | None = None
    options: ModelOptions | None = field(default_factory=ModelOptions)
    versions: Mapping[str, VersionFiles] = field(default_factory=dict)

    @property
    def members(self) -> tuple[str, ...]:
        """The models that it is a chain of."""
        chains = [files.chain for files in self.versions.values() if files.chain is not None]
        return tuple(dict.fromkeys(name for chain in chains for name in chain.options.models))


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A whole repository at one moment."""

    models: Mapping[str, ModelFolder] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    def problem(self, model: str, version: str = "") -> Problem | None:
        """What is wrong with a version, or with a whole model."""
        found = (item for item in self.problems if (item.model, item.version) == (model, version))
        return next(found, None)

    def moved(self, before: Layout) -> set[str]:
        """The models that something changed about: nearly always none, and the loop has better to do."""
        old, new = before.models, self.models
        names = {name for name in {*old, *new} if old.get(name) != new.get(name)}
        return names | {item.model for item in {*before.problems} ^ {*self.problems}}


def settled(now: Layout, before: Layout, *, trust: Collection[str] = ()) -> Layout:
    """The layout without what changed between two looks: it may be half of a copy.

    What vanished is held for one look too: `rm -r` and `cp -r` is how people replace a folder.

    Args:
        now: the later look.
        before: the earlier one.
        trust: models that somebody asked to load as they are.
    """
    models, problems = {}, list(now.problems)
    for name in sorted({*now.models, *before.models}):
        here, there = now.models.get(name), before.models.get(name)
        if here is None and (name in trust or there is None or not there.versions):
            continue
        folder = here or replace(there or ModelFolder(name=name), versions={})
        earlier = there or ModelFolder(name=name, text=folder.text)
        if name in trust:
            models[name] = folder
            continue
        moving = {
            version
            for version, files in folder.versions.items()
            if version not in earlier.versions or files.stamp != earlier.versions[version].stamp
        }
        away = set(earlier.versions) - set(folder.versions) - {item.version for item in problems if item.model == name}
        problems += [_problem(Path(name), name, version, ArtifactError(_CHANGING)) for version in sorted(moving)]
        problems += [_problem(Path(name), name, version, ArtifactError(_VANISHED)) for version in sorted(away)]
        still = {version: files for version, files in folder.versions.items() if version not in moving}
        models[name] = replace(folder, versions=still)
        if folder.text != earlier.text and folder.options is not None:
            models[name] = replace(models[name], options=None)
            problems.append(_problem(Path(name), name, "", OptionError(f"{FILE}: {_CHANGING}")))
    return replace(now, models=models, problems=tuple(problems))


class Scanner:
    """Looks at one place again and again; a manifest is decoded once, until its file changes.

    Attributes:
        root: the place.
        single: it is one artifact, not a repository.
    """

    def __init__(self, root: Path, *, options: ModelOptions | None = None) -> None:
        """Decide what the place is: that does not change while an artifact is written anew.

        Args:
            root: an artifact (folder or `.npuart`), or a repository.
            options: of the model, where the place is one artifact.

        Raises:
            UsageError: there is nothing.
            StorageError: it cannot be read.
        """
        with storage_errors("read", root):
            if not root.exists():
                raise UsageError(f"there is nothing at {root}", advice="give an artifact, or a folder of models")
            self.single = is_bundle(root) or (root / MANIFEST_NAME).exists()
        self.root = root
        self._options = options or ModelOptions()
        self._reader = ManifestReader()
        self._problems: list[Problem] = []
        self._volume: int | None = None
        # What was judged before; a repository is looked at for weeks, and hardly ever changes.
        self._read: dict[tuple[str, str | None], ModelOptions] = {}
        self._fitting: set[tuple[str, ...]] = set()

    def scan(self) -> Layout:
        """Look now. It reads manifests and the sizes of files, never their content.

        Raises:
            StorageError: the place itself cannot be read: nothing is known then, not that it is empty.
            NpuopsError: the one artifact that this is about cannot be served, and never could.
        """
        self._problems = []
        if len(self._read) + len(self._fitting) > _JUDGED_KEPT:
            self._read.clear()
            self._fitting.clear()
        layout = self._one() if self.single else self._all()
        self._reader.forget_unseen()
        return replace(layout, problems=tuple(self._problems))

    def _one(self) -> Layout:
        artifact = self._reader.read(self.root, name="")
        stem = Path(artifact.manifest.model.name).stem
        names = (stem, self.root.resolve().name.removesuffix(SUFFIX), "model")
        name = next(word for word in names if MODEL_NAME.fullmatch(word))
        published([artifact.manifest], signature_of([artifact.manifest]))
        versions = {_ONLY_VERSION: VersionFiles(_ONLY_VERSION, (artifact,))}
        return Layout(models={name: ModelFolder(name=name, options=self._options, versions=versions)})

    def _all(self) -> Layout:
        models: dict[str, ModelFolder] = {}
        for path in self._models_or_unmounted():
            name = path.name.removesuffix(SUFFIX) if path.suffix == SUFFIX else path.name
            with self._reporting(path, name):
                if not _may_be_served(path):
                    continue
                self._check(path, name, models)
                if path.is_dir() and os.path.lexists(path / CHAIN):
                    models[name] = self._chain(path, name)
                elif is_bundle(path) or (path / MANIFEST_NAME).exists():
                    models[name] = ModelFolder(name=name)  # so that it is known, also where its version is not whole
                    files = self._version(path, name, _ONLY_VERSION)
                    models[name] = ModelFolder(name=name, versions=files)
                else:
                    models[name] = self._model(path, name)
        return Layout(models=self._without_circles(models))

    def _models_or_unmounted(self) -> list[Path]:
        """What lies in the root. An empty folder in place of a volume with models is no order to unload them all."""
        with storage_errors("list", self.root):
            entries, volume = _entries(self.root), self.root.stat().st_dev
        if not entries and self._volume not in {None, volume}:
            raise StorageError(
                f"{self.root} is empty, and on another file system than its models were",
                advice="mount the volume again; models that are really gone are unloaded by the repository extension",
            )
        if entries:
            self._volume = volume
        return entries

    def _check(self, path: Path, name: str, taken: Collection[str]) -> None:
        if not MODEL_NAME.fullmatch(name):
            advice = "names begin with a letter or digit; then letters, digits, `.`, `_`, `-`; 128 at most"
            raise ArtifactError(f"{name!a} is no name for a model", advice=advice)
        if name in taken:
            raise ArtifactError(f"there are two models {name!r} here", advice="rename one of them")
        self._refuse_outside(path)

    def _model(self, folder: Path, name: str) -> ModelFolder:
        text, options = self._own_options(folder, name)
        versions: dict[str, VersionFiles] = {}
        seen = 0
        for path in _entries(folder):
            version = path.name.removesuffix(SUFFIX)
            with self._reporting(path, name, version):
                if not _may_be_served(path):
                    continue
                seen += 1
                if not VERSION.fullmatch(version):
                    advice = "name it by a whole number: 1, 2, 3, …"
                    raise ArtifactError(f"{version!a} is no version of {name!r}", advice=advice)
                if version in versions:
                    raise ArtifactError(f"there are two versions {version} of {name!r}", advice="take one away")
                versions |= self._version(path, name, version)
        if not seen:
            advice = f"put an artifact into {name}/1/"
            self._problems.append(_problem(folder, name, "", ArtifactError(f"{name!r} has no version", advice=advice)))
        return ModelFolder(name=name, text=text, options=options, versions=versions)

    def _own_options(self, folder: Path, name: str) -> tuple[str | None, ModelOptions | None]:
        """Text and meaning of its `model.toml`."""
        text = None
        with self._reporting(folder / FILE, name):
            text = self._text(folder / FILE) if os.path.lexists(folder / FILE) else None
            options = self._read.get((name, text))
            if options is None:
                options = self._read[name, text] = read_model_options(text, where=f"{name}/{FILE}")
            return text, options
        return text, None

    def _chain(self, folder: Path, name: str) -> ModelFolder:
        """A chain with its one version, or without it where the file is wrong."""
        text, options = self._own_options(folder, name)
        versions: dict[str, VersionFiles] = {}
        with self._reporting(folder / CHAIN, name, _ONLY_VERSION):
            artifacts = [path.name for path in _entries(folder) if path.is_dir() or path.suffix == SUFFIX]
            if artifacts:
                raise ArtifactError(f"{name!r} has a {CHAIN} and a version {artifacts[0]!r}", advice="take one away")
            words = self._text(folder / CHAIN)
            chain = ChainFile(words, read_chain(words, where=f"{name}/{CHAIN}"))
            versions = {_ONLY_VERSION: VersionFiles(_ONLY_VERSION, (), chain)}
        return ModelFolder(name=name, text=text, options=options, versions=versions)

    def _without_circles(self, models: dict[str, ModelFolder]) -> dict[str, ModelFolder]:
        """Chains that are made of each other could never load."""
        needs = {name: model.members for name, model in models.items() if model.members}
        for name in needs:
            with self._reporting(self.root / name / CHAIN, name, _ONLY_VERSION):
                found = circle(name, needs)
                if found:
                    models[name] = ModelFolder(name=name)
                    words = f"chains are made of each other: {' → '.join(found)}"
                    raise OptionError(words, advice="take one of them out")
        return models

    def _version(self, path: Path, name: str, version: str) -> dict[str, VersionFiles]:
        """One version, or none where it has a problem: half of a version is not served."""
        with self._reporting(path, name, version):
            self._refuse_outside(path)
            artifacts = tuple(self._artifacts(path))
            if not artifacts:
                raise ArtifactError(f"{path} has no {MANIFEST_NAME}", advice="it is no artifact, or a copy goes on")
            self._check_fit(artifacts)
            return {version: VersionFiles(version, artifacts)}
        return {}

    def _check_fit(self, artifacts: tuple[FoundArtifact, ...]) -> None:
        digests = tuple(item.manifest.digest for item in artifacts)
        if digests not in self._fitting:
            manifests = [item.manifest for item in artifacts]
            published(manifests, signature_of(manifests))
            self._fitting.add(digests)

    def _artifacts(self, path: Path) -> Iterator[FoundArtifact]:
        if is_bundle(path) or (path / MANIFEST_NAME).exists():
            yield self._reader.read(path, name="")
            return
        for inner in _entries(path):
            if inner.is_dir() or inner.suffix == SUFFIX:
                self._refuse_outside(inner)
                yield self._reader.read(inner, name=inner.name.removesuffix(SUFFIX))

    def _text(self, path: Path) -> str:
        self._refuse_outside(path)
        try:
            return read_small(path.resolve(), limit_bytes=_TEXT_LIMIT_BYTES).decode()
        except UnicodeDecodeError as error:
            raise OptionError(f"{path} is not UTF-8 text: {error}") from error

    def _refuse_outside(self, path: Path) -> None:
        if not path.is_symlink():  # its folder was looked at before; resolving every name would cost most of a scan
            return
        try:
            inside = path.resolve(strict=True).is_relative_to(self.root.resolve())
        except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
            raise ArtifactError(f"{path} is a link to nothing: {error}") from error
        if not inside:
            advice = "copy it here, or make the folder that holds both the repository"
            raise ArtifactError(f"{path} is a link that leads out of the repository", advice=advice)

    def _reporting(self, path: Path, model: str, version: str = "") -> _Reporting:
        return _Reporting(self._problems, path, model, version)


@dataclass(frozen=True, slots=True)
class _Reporting:
    """Turns the error of one entry into a problem, and goes on with the next."""

    problems: list[Problem]
    path: Path
    model: str
    version: str

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if isinstance(error, OSError):  # between two looks at one entry it may vanish
            error = ArtifactError(f"cannot read {self.path}: {error.strerror}")
        if not isinstance(error, NpuopsError):
            return False
        self.problems.append(_problem(self.path, self.model, self.version, error))
        return True


def _problem(path: Path, model: str, version: str, error: NpuopsError) -> Problem:
    words = (_printable(text) for text in (model, version, error.message, error.advice))
    return Problem(path, *words)


def _printable(text: str) -> str:
    """Names of files are bytes; what is no text in them must not end in an answer's JSON."""
    return text.encode("utf-8", "backslashreplace").decode()


def _may_be_served(path: Path) -> bool:
    """Other files are left alone; a link to nothing was meant to be something."""
    return path.suffix == SUFFIX or path.is_dir() or (path.is_symlink() and not path.exists())


def _entries(folder: Path) -> list[Path]:
    """What people put there: `lost+found` is the file system's own, at the root of every ext4 volume."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.name != "lost+found")
