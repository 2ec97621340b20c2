"""What a training was asked for, and of which source: with these it can be done again."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, Final

import msgspec

import npuops
from npuops.hostsched.policy_card import Recipe

_LIMIT_S: Final = 10.0


def recipe_of(options: Any) -> Recipe:
    """Of a dataclass of options; how many processes worked is not in it, for nothing depends on that.

    Args:
        options: whatever fields it has, and theirs.
    """
    asked: dict[str, Any] = msgspec.to_builtins(options)
    asked.pop("processes", None)
    return Recipe(commit=commit_of(Path(npuops.__file__).parent), options=asked)


def commit_of(package: Path) -> str | None:
    """The commit of the checkout whose source this is, `-dirty` behind it where files were changed since.

    None where it is no checkout's (a package in a virtual environment that lies in one is not), or git is not there.
    """
    try:
        _git(package, "ls-files", "--error-unmatch", "__init__.py")
        return _git(package, "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty") or None
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), *words]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=_LIMIT_S)  # noqa: S603 - git
    return done.stdout.strip()
