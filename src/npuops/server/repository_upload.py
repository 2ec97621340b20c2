"""Models that come with a load request. Off unless somebody asks for it: a file is a program that this server runs."""

from __future__ import annotations

import asyncio
import base64
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from npuops.artifacts.disk import storage_errors
from npuops.errors import OptionError
from npuops.server.load_request import PREFIX
from npuops.server.repository_layout import MODEL_NAME, ModelFolder, Scanner
from npuops.server.version_policy import VERSION

_PART: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_PARTS: Final = 8
ADVICE: Final = "`file:<version>/<file>`, with the files of an artifact, or `file:<version>.npuart`"


class Uploads:
    """Writes uploaded files into folders of its own, each laid out as a repository with one model."""

    def __init__(self, parent: Path | None = None) -> None:
        """Nothing is written before the first upload; then into new folders in `parent`, or where the system's are."""
        self._parent = parent
        self._folders: list[Path] = []

    def take(self, name: str, files: Mapping[str, Any]) -> ModelFolder:
        """Write the files of one request and look at what they are.

        Args:
            name: of the model.
            files: `file:<version>/<file>` → its bytes, or base64 text of them.

        Raises:
            OptionError: a name that is none, text that is no base64, or no artifact; nothing is left behind.
            StorageError: they cannot be written; nothing is left behind.
        """
        if not MODEL_NAME.fullmatch(name):
            raise OptionError(f"{name[:200]!a} is no name for a model")
        contents = {_parts(key): _content(key, value) for key, value in files.items()}
        _refuse_files_as_folders(contents)
        with storage_errors("make a folder in", self._parent or Path(tempfile.gettempdir())):
            folder = Path(tempfile.mkdtemp(prefix="npuops-upload-", dir=self._parent))
        try:
            model = _written(folder, name, contents)
        except BaseException:
            shutil.rmtree(folder)
            raise
        self._folders.append(folder)
        return model

    def keep(self, used: Collection[Path]) -> None:
        """Remove every upload that holds none of these artifacts."""
        for folder in list(self._folders):
            if not any(path.is_relative_to(folder) for path in used):
                self._folders.remove(folder)
                shutil.rmtree(folder)

    def close(self) -> None:
        """Remove everything."""
        self.keep(())


class Intake:
    """Takes the files of load requests, and forgets them as soon as nothing is loaded from them. For the event loop."""

    def __init__(self, uploads: Uploads | None, used: Callable[[], Iterable[Path]]) -> None:
        """Nothing is taken yet.

        Args:
            uploads: where files go; None takes none.
            used: the artifacts that are loaded, or should be.
        """
        self._uploads, self._used = uploads, used
        self._coming: list[ModelFolder] = []
        self._lock = asyncio.Lock()

    @property
    def is_open(self) -> bool:
        """Files are taken here."""
        return self._uploads is not None

    @asynccontextmanager
    async def taken(self, name: str, files: Mapping[str, Any]) -> AsyncIterator[ModelFolder | None]:
        """The model that the files are; None without any. It is in use at the end of the block, or forgotten then.

        Raises:
            OptionError: they are none; nothing is left behind.
            StorageError: they cannot be written; nothing is left behind.
        """
        if self._uploads is None or not files:
            yield None
            return
        async with self._lock:
            model = await asyncio.to_thread(self._uploads.take, name, files)
            self._coming.append(model)  # before another request forgets what nobody uses
        try:
            yield model
        finally:
            self._coming.remove(model)
            await self.forget()

    async def forget(self) -> None:
        """Remove the files that nothing is loaded from any more."""
        if self._uploads is None:
            return
        async with self._lock:
            coming = (
                item.path for model in self._coming for files in model.versions.values() for item in files.artifacts
            )
            await asyncio.to_thread(self._uploads.keep, [*self._used(), *coming])

    async def close(self) -> None:
        """Remove everything."""
        if self._uploads is not None:
            async with self._lock:
                await asyncio.to_thread(self._uploads.close)


def _written(folder: Path, name: str, contents: Mapping[tuple[str, ...], bytes]) -> ModelFolder:
    with storage_errors("write", folder, need_bytes=sum(map(len, contents.values()))):
        for parts, data in contents.items():
            path = folder.joinpath(name, *parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                file.write(data)
    layout = Scanner(folder).scan()
    if layout.problems:
        words = layout.problems[0].reason.replace(f"{folder}/", "")
        raise OptionError(f"the uploaded files cannot be served: {words}", advice=ADVICE)
    return layout.models[name]


def _parts(key: str) -> tuple[str, ...]:
    parts = tuple(key.removeprefix(PREFIX).split("/"))
    safe = all(_PART.fullmatch(part) for part in parts) and len(parts) <= _PARTS
    if not safe or not VERSION.fullmatch(parts[0].removesuffix(".npuart")):
        raise OptionError(f"{key[:200]!a} is no name for an uploaded file", advice=ADVICE)
    return parts


def _refuse_files_as_folders(contents: Collection[tuple[str, ...]]) -> None:
    folders = {parts[:length] for parts in contents for length in range(1, len(parts))}
    for parts in contents:
        if parts in folders:
            raise OptionError(f"'{PREFIX}{'/'.join(parts)}' is a file and a folder at once", advice=ADVICE)


def _content(key: str, value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    try:
        return base64.b64decode(value if isinstance(value, str) else "?", validate=True)
    except ValueError as error:  # no base64, or no ASCII
        raise OptionError(f"{key[:200]!a} holds no base64 text") from error
