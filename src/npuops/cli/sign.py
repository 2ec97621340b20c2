"""`npuops sign`: sign an artifact, or make a key."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from npuops.cli.show import JsonFlag, console, print_json
from npuops.errors import UsageError

SCHEMA = "npuops.sign/1"


def command(
    artifact: Annotated[Path | None, typer.Argument(help="Folder or .npuart file.")] = None,
    key: Annotated[
        Path | None, typer.Option("--key", help="Private key, PEM; its password in $NPUOPS_KEY_PASSWORD.")
    ] = None,
    new_key: Annotated[
        Path | None, typer.Option("--new-key", help="Make a key here, and PATH.pub; never overwrites.")
    ] = None,
    algorithm: Annotated[str, typer.Option("--algorithm", help="Of a new key: ed25519 or ecdsa-p256.")] = "ed25519",
    as_json: JsonFlag = False,
) -> None:
    """Sign an artifact (DSSE, in-toto statement), or make a key."""
    if new_key is not None and artifact is None and key is None:
        _make(new_key, algorithm, as_json=as_json)
    elif new_key is None and artifact is not None and key is not None:
        _sign(artifact, key, as_json=as_json)
    else:
        raise UsageError(
            "either sign or make a key", advice="npuops sign ART --key key.pem, or npuops sign --new-key key.pem"
        )


def _make(path: Path, algorithm: str, *, as_json: bool) -> None:
    from npuops.artifacts.keys import PASSWORD_VARIABLE, Algorithm, new_key, write_key  # noqa: PLC0415 - help stays fast
    from npuops.errors import OptionError, nearest  # noqa: PLC0415 - help stays fast

    known = [str(one) for one in Algorithm]
    if algorithm not in known:
        raise OptionError(f"no algorithm {algorithm!r}", advice=nearest(algorithm, known))
    password = os.environ.get(PASSWORD_VARIABLE, "").encode() or None
    key = new_key(Algorithm(algorithm))
    public = write_key(key, path, password=password)
    if as_json:
        print_json(
            {
                "schema": SCHEMA,
                "private_key": str(path),
                "public_key": str(public),
                "keyid": key.public.keyid,
                "algorithm": algorithm,
                "encrypted": password is not None,
            }
        )
        return
    screen = console()
    guard = "encrypted" if password else f"not encrypted: set ${PASSWORD_VARIABLE} before, to have it encrypted"
    screen.print(f"private key  {path} ({guard})", soft_wrap=True)
    screen.print(f"public key   {public}", soft_wrap=True)
    screen.print(f"key id       {key.public.keyid}", soft_wrap=True)


def _sign(path: Path, key_path: Path, *, as_json: bool) -> None:
    from npuops.artifacts.bundle import is_bundle, pack  # noqa: PLC0415 - help stays fast
    from npuops.artifacts.folder import opened  # noqa: PLC0415 - help stays fast
    from npuops.artifacts.keys import read_signing_key  # noqa: PLC0415 - help stays fast
    from npuops.artifacts.signature import sign  # noqa: PLC0415 - help stays fast

    key = read_signing_key(key_path)
    with opened(path) as artifact:
        done = sign(artifact, key)
        if is_bundle(path):
            pack(artifact.root, path.resolve(), overwrite=True)
    if as_json:
        print_json(
            {
                "schema": SCHEMA,
                "artifact": str(path),
                "digest": artifact.manifest.digest,
                "keyid": key.public.keyid,
                "signers": done.signers,
            }
        )
        return
    screen = console()
    screen.print(f"signed   {path} ({artifact.manifest.digest})", soft_wrap=True)
    screen.print(f"key id   {key.public.keyid} ({key.public.algorithm})", soft_wrap=True)
    others = len(done.signers) - 1
    if others:
        screen.print(f"besides  {others} other signature{'s' if others > 1 else ''}")
