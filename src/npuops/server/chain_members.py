"""The models that chains are made of: whatever the repository serves at the moment."""

from __future__ import annotations

from npuops.errors import NpuopsError
from npuops.server.repository import Repository
from npuops.server.served_version import Answers, ServedVersion


class ServedMembers:
    """Finds them in a repository."""

    def __init__(self, repository: Repository[ServedVersion]) -> None:
        """`repository` serves the chains, too."""
        self._repository = repository

    def find(self, model: str, version: str) -> Answers | None:
        """What answers; None where nothing does: it may be cold."""
        served = self._repository.serving.get((model, version))
        return None if served is None else served.engine

    async def wake(self, model: str, version: str) -> Answers:
        """What answers, as soon as it is loaded.

        Raises:
            NpuopsError: it is not served, or does not load.
        """
        return (await self._repository.wake(model, version)).engine

    def is_ready(self, model: str, version: str) -> bool:
        """A request gets an answer: now, or after a cold start."""
        try:
            return self._repository.model_ready(model, version)
        except NpuopsError:
            return False
