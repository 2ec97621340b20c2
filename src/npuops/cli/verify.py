"""`npuops verify`: digests, signature, and whether the artifact can run on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from npuops.cli.artifact_argument import ArtifactArgument
from npuops.cli.show import JsonFlag, console, print_json
from npuops.errors import NpuopsError

if TYPE_CHECKING:
    from npuops.artifacts.manifest import Artifact
    from npuops.artifacts.signature import Verified

SCHEMA = "npuops.verify/1"


def command(
    artifact: ArtifactArgument,
    key: Annotated[
        list[Path] | None,
        typer.Option("--key", help="A trusted public key; it (or another one given) must have signed."),
    ] = None,
    require_signature: Annotated[
        bool, typer.Option("--require-signature", help="Refuse even when no key is given, rather than not look.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Verify an artifact's digests and signature; ends with 1 when it is refused."""
    from npuops.artifacts.folder import opened  # noqa: PLC0415 - help stays fast
    from npuops.artifacts.signature import TrustPolicy, enforce  # noqa: PLC0415 - help stays fast

    # A key on the command line means: by this one. An unsigned artifact would otherwise pass.
    policy = TrustPolicy(require_signature=require_signature or bool(key), trusted_keys=tuple(key or ()))
    with opened(artifact, require=policy) as whole:
        found = enforce(whole, policy)
        answer = _answer(artifact, whole, found)
    if as_json:
        print_json(answer)
    else:
        _print(answer)


def _answer(path: Path, artifact: Artifact, found: Verified) -> dict[str, Any]:
    manifest = artifact.manifest
    return {
        "schema": SCHEMA,
        "artifact": str(path),
        "ok": True,
        "digest": manifest.digest,
        "target": manifest.target,
        "files": [{"name": record.name, "bytes": record.bytes, "sha256": record.sha256} for record in manifest.files],
        "signature": {"signed": bool(found.signers), "signers": found.signers, "trusted": found.trusted},
        "compatibility": _compatibility(artifact),
    }


def _compatibility(artifact: Artifact) -> dict[str, Any]:
    """What this machine's own probe of the artifact's target makes of it; never a reason to refuse."""
    from npuops.artifacts.compatibility import compatible  # noqa: PLC0415 - help stays fast
    from npuops.targets.registry import open_target  # noqa: PLC0415 - help stays fast

    manifest = artifact.manifest
    try:
        probe = open_target(manifest.target).probe()
    except NpuopsError as error:
        return {"verdict": "error", "reasons": [error.message], "advice": [error.advice] if error.advice else []}
    if not probe.available:
        advice = [f"install it: {probe.install}"] if probe.install else []
        return {"verdict": "fail", "reasons": [f"{manifest.target}: {probe.why_not}"], "advice": advice}
    answer = compatible(manifest, probe.toolchain)
    return {"verdict": str(answer.verdict), "reasons": list(answer.reasons), "advice": list(answer.advice)}


def _print(answer: dict[str, Any]) -> None:
    from npuops.units import format_bytes  # noqa: PLC0415 - help stays fast

    screen = console()

    def line(label: str, text: str) -> None:
        screen.print(f"{label:<14} {text}", soft_wrap=True)

    size = format_bytes(sum(record["bytes"] for record in answer["files"]))
    line("artifact", f"{answer['artifact']} for {answer['target']}")
    line("digests", f"ok: {len(answer['files'])} files, {size}, {answer['digest']}")
    signature = answer["signature"]
    if not signature["signed"]:
        line("signature", "none")
    for keyid in signature["signers"]:
        trust = "trusted" if keyid in signature["trusted"] else "whole, but of a key that was not given as trusted"
        line("signature", f"{keyid} ({trust})")
    compatibility = answer["compatibility"]
    line("runs here", compatibility["verdict"])
    for reason in compatibility["reasons"]:
        line("", reason)
    for advice in compatibility["advice"]:
        line("", f"→ {advice}")
