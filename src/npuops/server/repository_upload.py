"""Models that come with a load request. Off unless somebody asks for it: a file is a program that this server runs."""

from __future__ import annotations

import base64
import binascii
import re
import shutil
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

from npuops.artifacts.disk import storage_errors
from npuops.errors import ArtifactError, OptionError
from npuops.server.repository_layout import MODEL_NAME, ModelFolder, Scanner
from npuops.server.version_policy import VERSION

PREFIX: Final = "file:"
_PART: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_PARTS: Final = 8
ADVICE: Final = "`file:<version>/<file>`, with the files of an artifact, or `file:<version>.npuart`"


class Uploads:
    """Writes uploaded files into folders of its own, each laid out as a repository with one model."""

    def __init__(self, parent: Path | None = None) -> None:
        """Nothing is written before the first upload; then into a new folder in `parent`, or where the system's are."""
        self._parent = parent
        self._root: Path | None = None
        self._folders: list[Path] = []

    def take(self, name: str, files: Mapping[str, Any]) -> ModelFolder:
        """Write the files of one request and look at what they are.

        Args:
            name: of the model.
            files: `file:<version>/<file>` → its bytes, or base64 text of them.

        Raises:
            OptionError: a name that is none, or text that is no base64; nothing was written.
            ArtifactError: they are no artifact; nothing is left behind.
            StorageError: they cannot be written; nothing is left behind.
        """
        if not MODEL_NAME.fullmatch(name):
            raise OptionError(f"{name!a} is no name for a model")
        contents = {_parts(key): _content(key, value) for key, value in files.items()}
        if self._root is None:
            self._root = Path(tempfile.mkdtemp(prefix="npuops-uploads-", dir=self._parent))
        folder = Path(tempfile.mkdtemp(dir=self._root))
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
        if self._root is not None:
            shutil.rmtree(self._root)
        self._root, self._folders = None, []


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
        raise ArtifactError(f"the uploaded files cannot be served: {words}", advice=ADVICE)
    return layout.models[name]


def _parts(key: str) -> tuple[str, ...]:
    parts = tuple(key.removeprefix(PREFIX).split("/"))
    safe = all(_PART.fullmatch(part) for part in parts) and len(parts) <= _PARTS
    if not safe or not VERSION.fullmatch(parts[0].removesuffix(".npuart")):
        raise OptionError(f"{key[:200]!a} is no name for an uploaded file", advice=ADVICE)
    return parts


def _content(key: str, value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    try:
        return base64.b64decode(value if isinstance(value, str) else "?", validate=True)
    except binascii.Error as error:
        raise OptionError(f"{key[:200]!a} holds no base64 text") from error
