"""Whose signature an artifact needs before a verb loads it: an option, or a rule of this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Final

import typer

from npuops.artifacts.signature import TrustPolicy

TRUSTED_KEYS_VARIABLE: Final = "NPUOPS_TRUSTED_KEYS"
"""Files of public keys, separated by colons: with it, no verb of this machine runs an artifact without a signature."""

TrustFlag = Annotated[
    list[Path] | None,
    typer.Option("--key", help=f"Require a signature by this public key (repeatable; or ${TRUSTED_KEYS_VARIABLE})."),
]


def trust_policy(keys: list[Path] | None) -> TrustPolicy | None:
    """The policy of the option, else of the environment, else none."""
    words = os.environ.get(TRUSTED_KEYS_VARIABLE, "")
    trusted = tuple(keys or (Path(word) for word in words.split(os.pathsep) if word))
    return TrustPolicy(require_signature=True, trusted_keys=trusted) if trusted else None
