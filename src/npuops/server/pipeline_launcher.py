"""Launches versions that are more than an engine: with steps around the inference, or a chain of other models."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from npuops.errors import MissingToolchainError
from npuops.runtime.chain_engine import ChainEngine, Members
from npuops.runtime.facts import ColdCause
from npuops.runtime.replicas import Services
from npuops.runtime.step_engine import PipelinedModel
from npuops.runtime.step_pool import StepPool
from npuops.server.served_version import ServedVersion
from npuops.server.version_loader import Launcher
from npuops.server.version_spec import VersionSpec


class PipelinedVersion(ServedVersion):
    """A version whose artifacts have a pipeline: steps around an engine.

    Attributes:
        inner: the engine's own version, which takes tensors.
    """

    __slots__ = ("inner",)

    def __init__(self, spec: VersionSpec, engine: PipelinedModel, inner: ServedVersion) -> None:
        """`inner` belongs to it from now on."""
        super().__init__(spec, engine)
        self.inner = inner

    def reconfigure(self, spec: VersionSpec) -> None:
        """Follow other options that need no new launch."""
        super().reconfigure(spec)
        self.inner.reconfigure(spec.without_steps)

    async def drain(self, limit_s: float) -> None:
        """Return when all that was taken is answered, or so much time is over."""
        await super().drain(limit_s)
        await self.inner.drain(limit_s)

    async def close(self) -> None:
        """End its processes and give their memory back; those that prepare pictures are the server's."""
        try:
            await super().close()
        finally:
            await self.inner.close()


class PipelineLauncher:
    """Starts versions of every kind."""

    def __init__(
        self,
        engines: Launcher[ServedVersion],
        services: Services,
        pool: StepPool,
        members: Callable[[], Members],
    ) -> None:
        """Nothing runs yet.

        Args:
            engines: starts those that are engines, or have one inside.
            services: of the engines.
            pool: prepares pictures; started with the first version that needs it, and closed by its owner.
            members: what is served, for chains; asked for at a launch.
        """
        self._engines, self._services, self._pool, self._members = engines, services, pool, members

    async def launch(self, spec: VersionSpec, cause: ColdCause) -> ServedVersion:
        """Verify, load and warm up. When it is cancelled it leaves nothing behind.

        Raises:
            NpuopsError: it cannot be served; nothing is left behind.
        """
        clock, observe = self._services.clock, self._services.observe
        identity = (spec.model, spec.version)
        if spec.chain is not None:
            return ServedVersion(spec, ChainEngine(identity, spec.chain, self._members(), clock, observe))
        if spec.inside is None:
            return await self._engines.launch(spec, cause)
        if find_spec("PIL") is None:  # not imported: strangers' pictures are nothing for this process
            raise MissingToolchainError(
                f"model {spec.model!r} takes pictures, which need Pillow", advice="pip install 'npuops[images]'"
            )
        await self._pool.start()
        inner = await self._engines.launch(spec.without_steps, cause)
        manifest = spec.artifacts[0].manifest
        assert manifest.pipeline is not None  # noqa: S101 - so it was published
        engine = PipelinedModel(identity, manifest.pipeline, manifest.labels, inner.engine, self._pool, clock, observe)
        return PipelinedVersion(spec, engine, inner)
