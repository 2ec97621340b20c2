"""A folder for what a server unpacks and is sent, which goes with the server however it ends."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

_KEEPER: Final = 'cat > /dev/null; rm -rf -- "$1"'
"""Its standard input ends when the server does, also by SIGKILL: nobody else holds the other end."""


class Scratch:
    """Made at once, removed by `close`, or by a keeper process where that is never called.

    Attributes:
        path: of the folder.
    """

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="npuops-serve-"))
        # In a session of its own: the Ctrl-C of a terminal must not end it first.
        self._keeper = subprocess.Popen(  # noqa: S603 - a constant, and a path of ours as its argument
            ["/bin/sh", "-c", _KEEPER, "npuops-serve-keeper", str(self.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def close(self) -> None:
        """Remove the folder, and end the keeper."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._keeper.stdin is not None:
            self._keeper.stdin.close()
        self._keeper.wait()
