"""Looks at the repository from time to time, at once when it is told to, and puts idle models to rest."""

from __future__ import annotations

import asyncio
from typing import Any, Final, Protocol

from npuops.errors import NpuopsError
from npuops.events import Observer, Warned, ignore

TICK_S: Final = 1.0
"""How often idle models are looked for."""


class Watched(Protocol):
    """A repository, as far as it is watched."""

    async def refresh(self, *, settle: bool = False) -> None:
        """Look at the disk."""
        ...

    def tick(self) -> None:
        """Put to rest what is idle."""
        ...


class RepositoryWatch:
    """One task that looks."""

    def __init__(
        self, repository: Watched, *, poll_s: float | None, observe: Observer = ignore, tick_s: float = TICK_S
    ) -> None:
        """`run` looks.

        Args:
            repository: what is looked at.
            poll_s: seconds between two looks at the disk; None looks only when told to.
            observe: gets a `Warned` where the disk cannot be read, once until that is over.
            tick_s: seconds between two looks for idle models.
        """
        self._repository, self._observe = repository, observe
        self._poll_s, self._tick_s = poll_s, tick_s
        self._asked = asyncio.Event()
        self._trouble = ""

    def look_now(self, *_: Any) -> None:
        """Take everything as it lies there now, also what changed a moment ago: SIGHUP. Returns at once."""
        self._asked.set()

    def poll_every(self, poll_s: float | None) -> None:
        """Look at the disk in another rhythm; None looks only when told to."""
        self._poll_s = poll_s

    async def run(self) -> None:
        """Until it is cancelled."""
        loop = asyncio.get_running_loop()
        last_s = loop.time()
        while True:
            asked = await self._sleep()
            if asked or (self._poll_s is not None and loop.time() - last_s >= self._poll_s):
                await self._look(settle=not asked)
                last_s = loop.time()
            self._repository.tick()

    async def _sleep(self) -> bool:
        """True where somebody asked for a look."""
        period_s = self._tick_s if self._poll_s is None else min(self._tick_s, self._poll_s)
        try:
            async with asyncio.timeout(period_s):
                await self._asked.wait()
        except TimeoutError:
            return False
        self._asked.clear()
        return True

    async def _look(self, *, settle: bool) -> None:
        try:
            await self._repository.refresh(settle=settle)
        except NpuopsError as error:
            self._tell(error.message, error.advice)
        except Exception as error:  # noqa: BLE001 - a defect in one look must not end all the later ones in silence
            self._tell(f"{type(error).__name__}: {error}", "this is a defect of npuops; SIGHUP looks again")
        else:
            self._trouble = ""

    def _tell(self, words: str, advice: str) -> None:
        if words != self._trouble:
            self._trouble = words
            self._observe(Warned(step="repository", message=f"the repository stays as it is: {words}", advice=advice))
