"""Where agent and applications meet: the path of the socket, the same rule for both (`npuops_hint.h` has it too)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

VARIABLE: Final = "NPUOPS_HINT_SOCKET"
NAME: Final = "npuops/hostsched.sock"
FOR_ALL: Final = f"/run/{NAME}"
LONGEST: Final = 107
"""Bytes of a socket's path that the kernel takes (unix(7): 108 with the final zero)."""


def places(environment: Mapping[str, str]) -> list[str]:
    """Where an application looks, in this order; the first socket that answers is taken."""
    if named := environment.get(VARIABLE, ""):
        return [named]
    own = environment.get("XDG_RUNTIME_DIR", "")
    return [*([os.path.join(own, NAME)] if own else []), FOR_ALL]  # noqa: PTH118 - clients stay light


def place_of_agent(environment: Mapping[str, str], uid: int) -> str | None:
    """Where an agent listens if nobody says otherwise: root for all, others for themselves; None: nowhere to."""
    if named := environment.get(VARIABLE, ""):
        return named
    if uid == 0:
        return FOR_ALL
    own = environment.get("XDG_RUNTIME_DIR", "")
    return os.path.join(own, NAME) if own else None  # noqa: PTH118 - as above
