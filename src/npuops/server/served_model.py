"""One model of a repository: its versions, and the rules that say which of them are wanted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from npuops.errors import ArtifactError, NotServedError, NpuopsError, OptionError, ServingError
from npuops.events import Observer, ignore
from npuops.runtime.chain import FindSignature, plan_chain
from npuops.runtime.version_facts import VersionStandsIn
from npuops.server.device_plan import plan_devices
from npuops.server.engine_settings import engine_options
from npuops.server.model_life import ModelState
from npuops.server.model_options import ModelOptions, read_model_options
from npuops.server.places import OPERATOR, Places
from npuops.server.repository_layout import Layout, ModelFolder
from npuops.server.version_loader import Running, VersionLoader
from npuops.server.version_policy import (
    VERSION,
    Listed,
    default_version,
    in_order,
    keeps_all,
    kept,
    ready,
    stand_in,
    wanted,
)
from npuops.server.version_signature import published, signature_of
from npuops.server.version_spec import VersionFiles, VersionSpec, chain_spec
from npuops.server.warm_pool import LoadedModel

R = TypeVar("R", bound=Running)

COLD_WORDS = "cold: the next request loads it"
IN_PLACE = "it answers in place of what does not load: version"


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexEntry:
    """One line of the repository's index, in the words of the protocol. `version` is "" where it has none."""

    name: str
    version: str
    state: str
    reason: str


class ServedModel(Generic[R]):
    """One model.

    Attributes:
        folder: as it was last seen whole.
        options: that hold now.
        unloaded: by a client; files do not bring it back, only a load does.
        override: `config` of the last load request.
        loaders: version → what brings it up and down.
        flaws: version → why it could not even be tried.
        uploaded: files of the last load request, in place of the folder's.
        waiting: requests that wait for a cold start.
        claims: on a place in memory, by those who are about to load it.
        turn: of the one among them that goes for a place.
        standing_in: the version that answers while none of the latest ones comes up; None where these do.
    """

    def __init__(
        self,
        name: str,
        make_loader: Callable[[str, str], VersionLoader[R]],
        find_signature: FindSignature,
        places: Places,
        observe: Observer = ignore,
    ) -> None:
        """Nothing of it is known yet.

        Args:
            name: of the model.
            make_loader: by model and version.
            find_signature: of the models that a chain is made of.
            places: that clients do not hear of.
            observe: gets a `VersionStandsIn`.
        """
        self.name = name
        self.places = places
        self._observe = observe
        self.folder = ModelFolder(name=name)
        self.options = ModelOptions()
        self.unloaded = False
        self.override: Mapping[str, Any] | None = None
        self.loaders: dict[str, VersionLoader[R]] = {}
        self.flaws: dict[str, NpuopsError] = {}
        self.uploaded: ModelFolder | None = None
        self.waiting = 0
        self.claims = 0
        self.turn = asyncio.Lock()
        self.standing_in: str | None = None
        self._wanted: frozenset[str] = frozenset()
        self._broken: dict[str, str] = {}
        self._make_loader, self._find_signature = make_loader, find_signature

    @property
    def members(self) -> tuple[str, ...]:
        """The models that it is a chain of; none for all others."""
        if self.folder.members:
            return self.folder.members
        chains = [loader.spec.chain for loader in self.loaders.values() if loader.spec is not None]
        return tuple(step.model for chain in chains if chain is not None for step in chain.steps)

    @property
    def able(self) -> list[str]:
        """Versions that answer, or would after a cold start."""
        return [version for version, loader in self.loaders.items() if loader.able]

    @property
    def default(self) -> str | None:
        """What a request gets that names no version."""
        return default_version(self.able, self.options.canary)

    @property
    def in_memory(self) -> bool:
        """A version of it is loaded, or comes or goes. Of a chain there is nothing in memory: its models count."""
        if self.members:
            return False
        return self.claims > 0 or any(loader.in_memory for loader in self.loaders.values())

    @property
    def busy(self) -> bool:
        """Something was begun that has not ended: a load, or the end of what was replaced."""
        return any(loader.busy or loader.retiring for loader in self.loaders.values())

    @property
    def leaving(self) -> bool:
        """It is in memory, and will not be in a moment."""
        return self.in_memory and not self.claims and not any(loader.warm for loader in self.loaders.values())

    @property
    def paths(self) -> list[Path]:
        """Of all artifacts that are loaded, or should be."""
        specs = [spec for loader in self.loaders.values() for spec in (loader.spec, loader.wish) if spec is not None]
        return [item.path for spec in specs for item in spec.artifacts]

    async def closed(self) -> None:
        """Return when everything that was begun has ended."""
        for loader in list(self.loaders.values()):
            await loader.closed()

    def loaded(self) -> LoadedModel:
        """As the judges of `warm_pool` see it."""
        runs = [(loader, loader.running) for loader in self.loaders.values() if loader.running is not None]
        return LoadedModel(
            name=self.name,
            in_flight=self.waiting + sum(running.in_flight for _, running in runs),
            last_used_us=max((max(loader.loaded_us, running.last_used_us) for loader, running in runs), default=0),
            keep_alive_s=self.options.idle.keep_alive_s,
            busy=self.busy,
        )

    def see(self, folder: ModelFolder, layout: Layout) -> None:
        """Take over what a scan found. What is broken for the moment stays as it was.

        Args:
            folder: without versions where the model is not there at all any more.
            layout: for the problems.
        """
        problems = layout.problems if self.uploaded is None else ()
        folder = self.uploaded or folder
        self._broken = {item.version: item.reason for item in problems if item.model == self.name}
        if folder.options is not None:
            try:
                self.options = self.overridden(folder, self.override)
            except OptionError as error:
                self._broken[""] = error.message
        elif not self.loaders:
            # Its options are wrong and nothing runs by older ones: loading it by the defaults would be a guess.
            folder = ModelFolder(name=self.name, text=folder.text, options=None)
        self.folder = folder

    def overridden(self, folder: ModelFolder, override: Mapping[str, Any] | None) -> ModelOptions:
        """The options of its file, with those of a load request above them.

        Raises:
            OptionError: the two contradict each other.
        """
        if override is None:
            return folder.options or self.options
        return read_model_options(folder.text, override, where=f"{self.name}/model.toml")

    def follow(self, *, room: bool, warm: bool = False, retry: bool = False) -> None:
        """Let every version become what the rules want. Calling it again changes nothing.

        Args:
            room: a model that is not in memory may come there.
            warm: load now, whatever the options say about cold starts.
            retry: also what failed before.
        """
        held = {version for version in self._broken if version in self.loaders}
        available = {} if self.unloaded else dict(self.folder.versions)
        present = set() if self.unloaded else {*available, *held}
        before = self.standing_in
        self._follow(available, present, () if retry else self.failed, room=room, warm=warm, retry=retry)
        for _ in present:  # what the options do not let run is known only now
            if self._find_stand_in(present, self.failed) == self.standing_in:
                break
            self._follow(available, present, self.failed, room=room, warm=warm, retry=False)
        self._drop_gone()
        if self.standing_in not in {None, before}:
            failed = tuple(in_order(self.failed))
            self._observe(VersionStandsIn(model=self.name, version=str(self.standing_in), instead_of=failed))

    def _follow(
        self,
        available: Mapping[str, VersionFiles],
        present: Collection[str],
        failed: Collection[str],
        *,
        room: bool,
        warm: bool,
        retry: bool,
    ) -> None:
        self.standing_in = self._find_stand_in(present, failed)
        chosen = wanted(self.options.rule, present, self.options.canary)
        self._wanted = chosen if self.standing_in is None else chosen | {self.standing_in}
        staying = self._staying(present)
        resting = any(loader.on_demand for loader in self.loaders.values())
        loaded = any(loader.warm and loader.in_memory for loader in self.loaders.values())
        room = room or bool(self.members)
        now = warm or loaded or (room and self.options.idle.prewarm and not resting)
        for version in in_order(self._wanted | staying):
            if version in available:
                self._want(available[version], warm=now, retry=retry)
        for version in set(self.loaders) - self._wanted - staying:
            self.loaders[version].want(None)

    @property
    def failed(self) -> set[str]:
        """Versions that do not come up, and are left alone until something of them changes."""
        failed = {version for version, loader in self.loaders.items() if loader.failed}
        loaders = {version: self.loaders.get(version) for version in self.flaws}
        return failed | {version for version, loader in loaders.items() if loader is None or loader.running is None}

    def _find_stand_in(self, present: Collection[str], failed: Collection[str]) -> str | None:
        return stand_in(self.options.rule, present, failed, self.options.canary)

    def _staying(self, present: Collection[str]) -> frozenset[str]:
        if self.unloaded:
            return frozenset()
        if keeps_all(self.options.rule, present, self.options.canary):
            return frozenset(version for version, loader in self.loaders.items() if loader.wish is not None)
        return kept(self.loaders, self._wanted, self.able, self.options.canary)

    def _want(self, files: VersionFiles, *, warm: bool, retry: bool) -> None:
        try:
            spec = self._spec(files)
        except NpuopsError as error:
            self.flaws[files.version] = error
            if files.chain is not None and files.version in self.loaders:
                self.loaders[files.version].want(None)  # what it is made of is not there any more
            return
        self.flaws.pop(files.version, None)
        loader = self.loaders.get(files.version)
        if loader is None:
            loader = self.loaders[files.version] = self._make_loader(self.name, files.version)
        loader.want(spec, warm=warm, retry=retry)

    def _spec(self, files: VersionFiles) -> VersionSpec:
        if files.chain is not None:
            plan = plan_chain(files.chain.options, self._find_signature, where=f"{self.name}/chain.toml")
            return chain_spec(self.name, files, plan, self.options)
        plan_devices(files.artifacts, self.options)
        manifests = [item.manifest for item in files.artifacts]
        rows = self.options.batching.max_rows
        inside = signature_of(manifests, max_rows=rows, free_rows=self.options.padding.rows)
        engine_options(self.options, inside)  # refused before a process is started
        signature = published(manifests, inside)
        return VersionSpec(
            model=self.name,
            version=files.version,
            artifacts=files.artifacts,
            signature=signature,
            options=self.options,
            digest=files.digest,
            inside=None if signature is inside else inside,
        )

    def _drop_gone(self) -> None:
        for version, loader in list(self.loaders.items()):
            if loader.wish is None and loader.state is ModelState.UNAVAILABLE and not (loader.busy or loader.retiring):
                del self.loaders[version]
        for version in set(self.flaws) - self._wanted:
            del self.flaws[version]

    def cool(self) -> None:
        """Out of memory, until the next request."""
        for loader in self.loaders.values():
            if loader.wish is not None:
                loader.want(loader.wish, warm=False)

    def ready(self, *, started: bool) -> bool:
        """Whether it does what readiness promises; see `version_policy.ready`."""
        if self.unloaded:
            return True
        states = {version: loader.able for version, loader in self.loaders.items() if loader.wish is not None}
        states |= dict.fromkeys(self.flaws, False)
        if self.standing_in is not None:
            states = {version: able for version, able in states.items() if version not in self.failed}
        hopeless = self.folder.options is None or self._has_broken_version or self._lists_nothing
        if not started and self.default is None and hopeless:
            return False
        proven = [version for version, loader in self.loaders.items() if loader.proven]
        return ready(states, proven, self.options.canary, started=started)

    @property
    def _lists_nothing(self) -> bool:
        return keeps_all(self.options.rule, self.folder.versions, self.options.canary)

    @property
    def _has_broken_version(self) -> bool:
        return any(VERSION.fullmatch(version) for version in self._broken)

    def raise_failure(self) -> None:
        """Do nothing if what is wanted answers.

        Raises:
            NotServedError: it was unloaded meanwhile.
            NpuopsError: what a version failed with, or why there is none.
        """
        if self.unloaded:
            raise NotServedError(f"model {self.name!r} was unloaded while it was loading")
        failed: list[tuple[str, BaseException]] = list(self.flaws.items())
        failed += [  # what an older version failed with, while this one came, is no news
            (version, loader.error)
            for version, loader in self.loaders.items()
            if loader.error is not None and loader.wish is not None
        ]
        for version, error in failed:
            words = f"model {self.name!r} version {version}: "
            if isinstance(error, NpuopsError):
                # A new error: one that several wait for would collect all their tracebacks.
                kind = OptionError if self.uploaded is not None and isinstance(error, ArtifactError) else type(error)
                raise self.places.without(kind(words + error.message, advice=error.advice)) from error
            raise ServingError(f"{words}{type(error).__name__}", advice=OPERATOR) from error
        if self._lists_nothing:
            listed = f"none of the versions that `versions` lists is here: {', '.join(self.options.versions)}"
            raise OptionError(f"model {self.name!r}: {listed}", advice=f"here are {', '.join(self.folder.versions)}")
        if not self.able:
            why = self.why_not() or "it has no version"
            raise ArtifactError(f"model {self.name!r} cannot be loaded: {why}", advice=OPERATOR)

    def index(self) -> Iterator[IndexEntry]:
        """All its versions on disk and in memory, by number; then what has no number."""
        rule = self.options.rule
        known = {*self.folder.versions, *self.loaders}
        absent = set(rule.versions) - known - set(self._broken) if isinstance(rule, Listed) else set()
        for version in in_order(known | absent):
            state, reason = self._state(version)
            yield IndexEntry(name=self.name, version=version, state=state, reason=self.places.hidden(reason))
        for version, reason in sorted(self._broken.items()):
            if version not in known:
                words = self.places.hidden(reason)
                yield IndexEntry(name=self.name, version=version, state="UNAVAILABLE", reason=words)

    def why_not(self, version: str | None = None) -> str:
        """Why it, or one version, does not answer, in words."""
        if self.unloaded:
            return "it was unloaded"
        lines = [
            f"version {line.version}: {line.reason}" if line.version else line.reason
            for line in self.index()
            if version in {None, line.version} and line.reason and line.state != "READY"
        ]
        return "; ".join(lines)

    def _state(self, version: str) -> tuple[str, str]:
        """Its state in the words of the protocol, and why it is not better."""
        loader = self.loaders.get(version)
        flaw = self.flaws.get(version)
        ails = (flaw.message if flaw is not None else "") or self._broken.get(version, "")
        if loader is None:
            chosen = (
                "not chosen by `versions`" if version in self.folder.versions else "`versions` lists it; it is not here"
            )
            return "UNAVAILABLE", ails or ("unloaded" if self.unloaded else chosen)
        if loader.able and loader.state in {ModelState.COLD, ModelState.UNLOADING}:
            return "READY", COLD_WORDS
        state = "UNAVAILABLE" if loader.state is ModelState.COLD else str(loader.state)
        if version == self.standing_in and loader.able:
            return state, f"{IN_PLACE} {', '.join(in_order(self.failed))}"
        return state, ails or loader.reason
