"""Where files lie is the operator's business: clients hear of paths within the repository, and of no others."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from npuops.errors import NpuopsError

OPERATOR: Final = "ask whoever runs this server: its log says more"

_PATH: Final = re.compile(r"(?<![\w.:/])/([^\s/'\"`,;:()]+)/(?:[^\s/'\"`,;:()]+/)*([^\s/'\"`,;:()]*)")
"""A path from the root of the file system: its first folder, and its last name. It is no part of a URL."""


def names_alone(words: str) -> str:
    """The same words; of each file on this machine only its own name is left."""
    return _PATH.sub(_name_alone, words)


def _name_alone(path: re.Match[str]) -> str:
    """What begins with no folder of this machine is no file: a model's node `/encoder/Gather`."""
    return f"…/{path[2]}" if os.path.lexists(f"/{path[1]}") else path[0]


class Places:
    """Takes the places of one server out of words that clients read."""

    def __init__(self, root: Path) -> None:
        """`root`: of what is served; paths below it keep what follows it: `digits/1/manifest.json`."""
        known = (root, root.absolute(), os.path.normpath(root.absolute()), root.resolve())
        spelt = {str(path).rstrip("/") for path in known} - {"", "."}
        spelt_longest_first = sorted(spelt, key=len, reverse=True)
        self._roots = [re.compile(rf"(?<![\w./-]){re.escape(words)}(/|(?![\w.-]))") for words in spelt_longest_first]

    def hidden(self, words: str) -> str:
        """The same words; of every other place on this machine only the file's own name is left."""
        for root in self._roots:
            words = root.sub(lambda found: "" if found[1] else "what is served", words)
        return names_alone(words)

    def without(self, error: NpuopsError) -> NpuopsError:
        """The error as a client may read it; the same one where it names no place."""
        message, advice = self.hidden(error.message), self.hidden(error.advice)
        if (message, advice) == (error.message, error.advice):
            return error
        return type(error)(message, advice=advice or OPERATOR)
