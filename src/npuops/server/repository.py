"""All models of a server: the disk is followed, and what clients ask for is done.

Everything here runs in one event loop. The hot path reads one dict, `serving`; a key that is missing there is the way
to `wake`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Final, Generic, TypeVar

from npuops.clock import Clock
from npuops.errors import NotReadyError, NotServedError, NpuopsError, nearest
from npuops.events import Observer, Warned, ignore
from npuops.runtime.signature import Signature
from npuops.server.cold_starts import ROOM_WAIT_S, ColdStarts
from npuops.server.load_request import read_load_request
from npuops.server.places import OPERATOR, Places
from npuops.server.repository_layout import Layout, ModelFolder, Scanner, settled
from npuops.server.repository_upload import Intake, Uploads
from npuops.server.served_model import IndexEntry, ServedModel
from npuops.server.version_loader import Launcher, Running, VersionLoader
from npuops.server.version_spec import VersionSpec

R = TypeVar("R", bound=Running)

LAUNCHES: Final = 2
"""Versions that are launched at the same time: more would disturb each other's measurements, and those that serve."""

DRAIN_S: Final = 30.0


class Repository(Generic[R]):
    """The models of one server.

    Attributes:
        serving: (model, version) → what answers; version "" for requests that name none.
    """

    def __init__(
        self,
        scanner: Scanner,
        launcher: Launcher[R],
        *,
        clock: Clock,
        observe: Observer = ignore,
        max_loaded: int | None = None,
        room_wait_s: float = ROOM_WAIT_S,
        drain_s: float = DRAIN_S,
        uploads: Uploads | None = None,
    ) -> None:
        """Nothing is loaded before the first `refresh`.

        Args:
            scanner: of the place that is served.
            launcher: starts versions.
            clock: the one that `Running.last_used_us` is on.
            observe: gets a `VersionChanged` for all that happens to a version, a `Warned` for what is not served.
            max_loaded: models in memory at the same time; None for all. A version that replaces another of the same
                model does not count.
            room_wait_s: how long a load waits for some model to have no request under way.
            drain_s: how long requests of a version that leaves may take.
            uploads: takes the files of load requests; None refuses them.
        """
        self.serving: dict[tuple[str, str], R] = {}
        self._intake = Intake(uploads, lambda: [path for model in self._models.values() for path in model.paths])
        self._scanner, self._launcher = scanner, launcher
        self._places = Places(scanner.root)
        self._clock, self._observe = clock, observe
        self._gate = asyncio.Semaphore(LAUNCHES)
        self._models: dict[str, ServedModel[R]] = {}
        self._drain_s = drain_s
        self._cold = ColdStarts(self._models, clock, max_loaded, room_wait_s)
        self._layout = Layout()
        self._before: Layout | None = None
        self._scanning = asyncio.Lock()
        self._due: set[str] = set()
        self._started = False
        self._closing = False

    @property
    def ready(self) -> bool:
        """Every model does what readiness promises (`version_policy.ready`)."""
        looked = self._before is not None and not self._closing
        return looked and all(model.ready(started=self._started) for model in self._models.values())

    def model_ready(self, name: str, version: str = "") -> bool:
        """A request to it gets an answer: now, or after a cold start.

        Raises:
            NotServedError: no such model or version. NotReadyError: before the first look at the disk.
        """
        model = self._model(name)
        wanted = version or model.default
        if wanted is None:
            return False
        loader = self._loader(model, wanted)
        return loader.able and (loader.running is None or loader.running.ready)

    def index(self, *, ready_only: bool = False) -> list[IndexEntry]:
        """Every version, loaded or not, and why not."""
        lines = [line for _, model in sorted(self._models.items()) for line in model.index()]
        for item in [item for item in self._layout.problems if item.model not in self._models]:
            reason = self._places.hidden(item.reason)
            lines.append(IndexEntry(name=item.model, version=item.version, state="UNAVAILABLE", reason=reason))
        return [line for line in lines if not ready_only or line.state == "READY"]

    def spec(self, name: str, version: str = "", *, able: bool = False) -> VersionSpec:
        """What a version takes and gives, for its metadata; a cold one is not loaded for that.

        Raises:
            NotServedError: no such model or version.
            NotReadyError: it has no version that can answer; with `able` also where this one cannot.
        """
        model, loader = self._found(name, version)
        spec = loader.spec or loader.wish
        if spec is None or (able and not loader.able):
            why = model.why_not(loader.version)
            raise NotReadyError(f"model {model.name!r} version {loader.version} is not ready: {why}")
        return spec

    def able(self, name: str) -> list[str]:
        """Versions of a model that answer, or would after a cold start, by number.

        Raises:
            NotServedError: no such model. NotReadyError: before the first look at the disk.
        """
        return sorted(self._model(name).able, key=int)

    async def wake(self, name: str, version: str = "") -> R:
        """Load a cold model for a request, and return what answers. All who ask meanwhile wait for the same load.

        Args:
            name: of the model.
            version: "" for the default.

        Raises:
            NotServedError: no such model or version, or it was unloaded.
            NotReadyError: it loads, failed to, or there is no room in memory now.
            OverloadedError: too many requests wait for it already.
        """
        model, loader = self._found(name, version)
        if loader.running is not None:
            return loader.running
        return await self._cold.wake(model, loader)

    async def load(self, name: str, parameters: Mapping[str, Any] | None = None) -> None:
        """Load a model as it lies on disk now, and return when its wanted versions answer.

        What is loaded and did not change stays; what failed is tried again. Two at the same time join.

        Args:
            name: of the model.
            parameters: of the request; `config` is JSON text with keys of `model.toml`, for this load; `file:…`, where
                uploads are taken, are the artifact.

        Raises:
            NotServedError: no such model, or it was unloaded meanwhile.
            OptionError: a parameter that does not exist, or holds what it must not.
            NpuopsError: whatever a version failed with; what was loaded before still answers, and what the request
                brought is forgotten.
        """
        try:
            await self._load_as_asked(name, parameters or {})
        except NpuopsError as error:
            told = self._places.without(error)
            if told is error:
                raise
            self._observe(Warned(step="load", message=f"model {name!r}: {error.message}", advice=error.advice))
            raise told from error

    async def _load_as_asked(self, name: str, parameters: Mapping[str, Any]) -> None:
        request = read_load_request(parameters, uploads=self._intake.is_open)
        await self.refresh(trust=(name,))
        async with self._intake.taken(name, request.files) as uploaded:
            if uploaded is not None and name not in self._models:
                self._models[name] = self._make_model(name)
            model = self._model(name)
            before = (model.unloaded, model.override, model.uploaded)
            try:
                await self._load(model, request.override, uploaded)
            except NpuopsError:
                ours = not model.unloaded and model.override is request.override and model.uploaded is uploaded
                if ours and not request.is_plain:
                    model.unloaded, model.override, model.uploaded = before
                self._see(model)
                raise

    async def _load(
        self, model: ServedModel[R], override: Mapping[str, Any] | None, uploaded: ModelFolder | None
    ) -> None:
        for member in model.members:
            if member not in self._models or not self._models[member].able:
                await self.load(member)
        if model.folder.options is not None:
            model.overridden(model.folder, override)  # refused before anything is touched
        async with self._cold.room(model):
            if self._closing:
                raise NotReadyError("the server is ending")
            model.unloaded, model.override, model.uploaded = False, override, uploaded
            model.see(self._layout.models.get(model.name, ModelFolder(name=model.name)), self._layout)
            model.follow(room=True, warm=True, retry=True)
        # Again: an unload and another load may come meanwhile, and bring another loader. Who leaves is not waited for.
        while coming := [loader for loader in model.loaders.values() if loader.busy and loader.wish is not None]:
            for loader in coming:
                await loader.settled()
        model.raise_failure()

    async def unload(self, name: str) -> None:
        """Close all versions of a model, and return when their memory is given back. A load under way is cancelled.

        It stays away until it is loaded by `load`, whatever happens to its files.

        Raises:
            NotServedError: no such model.
        """
        model = self._model(name)
        model.unloaded, model.override, model.uploaded = True, None, None
        loaders = list(model.loaders.values())
        model.follow(room=False)
        for loader in loaders:
            await loader.closed()
        self._follow(model)
        await self._intake.forget()

    def members(self, name: str) -> tuple[str, ...]:
        """The models that are served here, and that a chain is made of, also by way of other chains; else none.

        Raises:
            NotServedError: no such model.
        """
        found = dict.fromkeys(self._model(name).members)
        todo = list(found)
        while todo:
            model = self._models.get(todo.pop())
            inner = [each for each in model.members if each not in found] if model is not None else []
            found |= dict.fromkeys(inner)
            todo += inner
        return tuple(each for each in found if each in self._models)

    async def refresh(self, *, settle: bool = False, trust: Iterable[str] = ()) -> None:
        """Look at the disk and begin what follows from it; `settled` waits for the end of that.

        Args:
            settle: leave what changed since the last look for the next one: it may be half of a copy.
            trust: models that are taken as they are, even so.

        Raises:
            StorageError: the repository cannot be read; everything stays as it is.
            NpuopsError: the one artifact that is served is not whole; everything stays as it is.
        """
        trusted = frozenset(trust)
        async with self._scanning:
            found = await asyncio.to_thread(self._scanner.scan)
            before, self._before = self._before, found
            careful = settle or bool(trusted)
            layout = settled(found, before, trust=trusted) if before is not None and careful else found
            self._warn(found, before)
            moved, self._layout = layout.moved(self._layout), layout
            self._follow_layout(moved)

    async def settled(self) -> None:
        """Return when everything that was begun has ended, well or not."""
        while busy := [model for model in self._models.values() if model.busy]:
            for model in busy:
                await model.closed()
            await asyncio.sleep(0)  # what their end has set going, as the end of an older version

    def _warn(self, found: Layout, before: Layout | None) -> None:
        """What cannot be served is said once, not at every look."""
        for item in found.problems:
            if before is None or item not in before.problems:
                words = f"{item.path} is not served: {item.reason}"
                self._observe(Warned(step="repository", message=words, advice=item.advice))

    def _follow_layout(self, names: Iterable[str]) -> None:
        if self._closing:
            return
        unreadable = {item.model for item in self._layout.problems if not item.version}
        for name in sorted({*self._models, *self._layout.models} & set(names)):
            folder = self._layout.models.get(name)
            if folder is None and name in unreadable:
                continue  # it is there, and cannot be looked into: that is no reason to stop serving it
            if name not in self._models:
                self._models[name] = self._make_model(name)
            self._see(self._models[name])

    def _see(self, model: ServedModel[R]) -> None:
        model.see(self._layout.models.get(model.name, ModelFolder(name=model.name)), self._layout)
        self._follow(model)

    def _follow(self, model: ServedModel[R]) -> None:
        model.follow(room=self._cold.has_room)
        self._point(model)
        if model.name not in self._layout.models and not model.loaders and not (model.uploaded or model.claims):
            self._models.pop(model.name, None)

    def tick(self) -> None:
        """Once a second or so: put models to rest that nobody used for as long as they are kept."""
        self._cold.tick()

    def end(self) -> None:
        """The server stops: what is loaded still answers, but nothing is ready, and nothing is loaded, any more."""
        self._closing = True

    async def close(self) -> None:
        """Drain and close everything."""
        self.end()
        loaders = [loader for model in self._models.values() for loader in model.loaders.values()]
        for loader in loaders:
            loader.want(None)
        await asyncio.gather(*(loader.closed() for loader in loaders))
        await self._intake.close()

    def _make_model(self, name: str) -> ServedModel[R]:
        return ServedModel(name, self._make_loader, self._signature, self._places, self._observe)

    def _signature(self, name: str, version: str) -> Signature:
        """What a model that answers takes and gives, for the chains that it is in."""
        return self.spec(name, version, able=True).signature

    def _make_loader(self, name: str, version: str) -> VersionLoader[R]:
        return VersionLoader(
            name,
            version,
            launcher=self._launcher,
            gate=self._gate,
            clock=self._clock,
            observe=self._observe,
            drain_s=self._drain_s,
            changed=self._changed,
        )

    def _changed(self, loader: VersionLoader[R]) -> None:
        """A loader moved: so do the pointers at once, and in the next round the versions that waited for it."""
        model = self._models.get(loader.model)
        if model is None:
            return
        self._point(model)
        if model.name not in self._due:
            self._due.add(model.name)
            asyncio.get_running_loop().call_soon(self._follow_again, model)

    def _follow_again(self, model: ServedModel[R]) -> None:
        self._due.discard(model.name)
        self._started = self._started or self.ready
        if not self._closing and self._models.get(model.name) is model:
            self._follow(model)
        for chain in [other for other in self._models.values() if model.name in other.members]:
            if not self._closing:
                self._follow(chain)

    def _point(self, model: ServedModel[R]) -> None:
        answers = {version: loader.running for version, loader in model.loaders.items()}
        answers[""] = answers.get(model.default or "")
        leaving = {version for name, version in self.serving if name == model.name} - set(answers)
        for version, running in [*answers.items(), *((version, None) for version in leaving)]:
            key = (model.name, version)
            if self.serving.get(key) is running:
                continue
            if running is None:
                del self.serving[key]
            else:
                self.serving[key] = running

    def _model(self, name: str) -> ServedModel[R]:
        try:
            return self._models[name]
        except KeyError:
            if self._before is None:  # it listens already: a client that came early shall come again
                raise NotReadyError(f"model {name!r} is not ready: the server has only begun to look") from None
            advice = nearest(name, self._models) if self._models else "nothing is served here"
            raise NotServedError(f"no model {name!r} is served here", advice=advice) from None

    def _found(self, name: str, version: str) -> tuple[ServedModel[R], VersionLoader[R]]:
        model = self._model(name)
        return model, self._loader(model, version or self._default(model))

    def _loader(self, model: ServedModel[R], version: str) -> VersionLoader[R]:
        try:
            return model.loaders[version]
        except KeyError:
            why = model.why_not(version)
            words = f"model {model.name!r} has no version {version!r} loaded" + (f": {why}" if why else "")
            # A chain whose models are not there may come back: who asks again may get an answer.
            kind = NotReadyError if version in model.flaws and model.members else NotServedError
            raise kind(words, advice=nearest(version, model.loaders) if model.loaders else "") from None

    def _default(self, model: ServedModel[R]) -> str:
        if model.default is not None:
            return model.default
        if model.unloaded:
            raise NotServedError(f"model {model.name!r} was unloaded", advice="load it with the repository extension")
        if model.able:
            advice = f"name a version: {', '.join(sorted(model.able, key=int))}"
            raise NotReadyError(f"model {model.name!r} is not ready: only canaries answer", advice=advice)
        why = model.why_not() or "it is loading"
        raise NotReadyError(f"model {model.name!r} is not ready: {why}", advice=OPERATOR if model.failed else "")
