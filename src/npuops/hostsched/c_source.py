"""Our own C: compiled once per source, into npuops' cache, whole or not at all."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

from npuops.artifacts.disk import storage_errors
from npuops.artifacts.store import default_root
from npuops.errors import CompileError, MissingToolchainError, ToolchainTimeoutError
from npuops.private_folder import private_folder

_FLAGS: Final = ("-O2", "-std=gnu11", "-Wall", "-Wextra", "-pthread")
_LIMIT_S: Final = 120
_MODE: Final = 0o755


@dataclass(frozen=True, slots=True)
class CSource:
    """What is compiled.

    Attributes:
        package: where its sources are.
        name: of the file that is made, before the digest of the sources.
        sources: files of that package; those that end in `.c` are compiled.
        flags: of the compiler, besides those that all have.
    """

    package: str
    name: str
    sources: Sequence[str]
    flags: Sequence[str] = ()

    def compiled(self, folder: Path | None = None) -> Path:
        """Path of what was made, in `folder`, by default in npuops' cache; compiled now if it is not there yet.

        Any number of processes may ask at once: each compiles for itself, the last one's (equal) file stays.

        Raises:
            MissingToolchainError: no C compiler here.
            CompileError: it refused; its words are in the message.
            ToolchainTimeoutError: it did not end.
            StorageError: the folder cannot be written.
        """
        texts = {source: (files(self.package) / source).read_bytes() for source in self.sources}
        flags = (*_FLAGS, *self.flags)
        digest = hashlib.sha256(platform.machine().encode() + repr((flags, texts)).encode()).hexdigest()[:16]
        place = (default_root() if folder is None else folder) / self.package.rpartition(".")[2]
        made = place / f"{self.name}-{digest}"
        if made.is_file():
            return made
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if compiler is None:
            raise MissingToolchainError(
                f"no C compiler was found: {self.name} is written in C", advice="apt install gcc libc6-dev"
            )
        with storage_errors(f"compile {self.name} in", place):
            place.mkdir(parents=True, exist_ok=True, mode=0o700)
            with private_folder() as scratch:
                for source, text in texts.items():
                    (scratch / source).write_bytes(text)
                self._compile((compiler, *flags), scratch)
                _publish(scratch / self.name, made)
        return made

    def _compile(self, compiler: Sequence[str], scratch: Path) -> None:
        command = [*compiler, "-o", self.name, *(name for name in self.sources if name.endswith(".c"))]
        try:
            ended = subprocess.run(  # noqa: S603 - our own list of words
                command, cwd=scratch, capture_output=True, text=True, timeout=_LIMIT_S, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise ToolchainTimeoutError(f"{compiler[0]} did not compile {self.name} within {_LIMIT_S} s") from error
        if ended.returncode:
            raise CompileError(
                f"{compiler[0]} refused {self.name}: {ended.stderr.strip()[-2000:]}",
                advice="the disk may be full, or the C library's headers missing: apt install gcc libc6-dev",
            )


def _publish(made: Path, place: Path) -> None:
    """Whole or not at all: the scratch folder may be of another file system. Others may not write it (umask or not)."""
    beside = place.with_name(f".{place.name}-{os.getpid()}-{threading.get_ident()}")
    try:
        shutil.copyfile(made, beside)
        beside.chmod(_MODE)
        beside.replace(place)
    finally:
        beside.unlink(missing_ok=True)
