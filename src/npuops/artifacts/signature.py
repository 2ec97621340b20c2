"""Signatures: a DSSE envelope around an in-toto statement, in a file beside the manifest, which stays untouched.

The statement's subjects are `manifest.json` and every file that it lists. Each signature carries its public key,
not to be trusted, but so that damage to the envelope is seen even by someone who trusts no key yet: with it every
bit of the file is either signed, or the signature, or the key whose digest is the key id. Trust comes from
`TrustPolicy` only.

DSSE v1: https://github.com/secure-systems-lab/dsse ; in-toto Statement v1 and SLSA provenance v1 as predicate.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from npuops.artifacts.disk import read_small, write_durably
from npuops.artifacts.encoding import canonical_json
from npuops.artifacts.keys import PublicKey, SigningKey, b64, decode_public_key, read_public_key
from npuops.artifacts.locks import alone_in
from npuops.artifacts.manifest import MANIFEST_NAME, SIGNATURE_NAME, Artifact, Manifest
from npuops.errors import IntegrityError, OptionError, SignatureError

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "https://slsa.dev/provenance/v1"
BUILD_TYPE: Final = "urn:npuops:build:1"

_ENVELOPE_LIMIT_BYTES: Final = 16 * 1024 * 1024
_DAMAGED: Final = "get the artifact again, or take the signature away and have it signed again"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustPolicy:
    """Whose signature an artifact needs.

    With keys and no `require_signature`, an unsigned artifact passes, but a signed one must be signed by one of them.
    """

    require_signature: bool = False
    trusted_keys: tuple[Path, ...] = ()
    """PEM files of public keys."""

    def __post_init__(self) -> None:
        """A signature that anybody may give proves nothing.

        Raises:
            OptionError: a signature is required, and no key is trusted.
        """
        if self.require_signature and not self.trusted_keys:
            raise OptionError("a signature is required, but no key is trusted", advice="name the keys (--key pub.pem)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """Whole signatures, as key ids in alphabetical order."""

    signers: tuple[str, ...]
    """Everyone who signed; empty for an unsigned artifact."""
    trusted: tuple[str, ...]
    """Those among them whose key is trusted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Signature:
    keyid: str
    publicKey: str  # noqa: N815 - the name in the envelope
    sig: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Envelope:
    payload: str
    payloadType: str  # noqa: N815 - the name in the envelope
    signatures: tuple[_Signature, ...]


def sign(artifact: Artifact, key: SigningKey) -> Verified:
    """Add a signature (or renew the one of the same key). The manifest does not change.

    Args:
        artifact: verified, as `npuops.artifacts.folder.open_artifact` gives it.
        key: the signer's.

    Raises:
        SignatureError: the signature file that is there already is damaged, or its statement is another one than this
            npuops makes; it was left as it is.
        StorageError: the signature cannot be written; the old one is still there.
    """
    root = artifact.root.resolve()
    with alone_in(root):  # of two that sign at the same time, neither may lose the other's signature
        old = _read(artifact)
        payload = statement(artifact.manifest)
        if old and old.payload != b64(payload):
            # One envelope has one payload: to add our name to what someone else wrote there would be to vouch for it.
            raise SignatureError(
                f"{root / SIGNATURE_NAME} holds a statement that is not made from this manifest by this npuops",
                advice="take the file away, if you do not trust who signed it, or sign with the npuops that wrote it",
            )
        mine = _Signature(
            keyid=key.public.keyid, publicKey=b64(key.public.spki), sig=b64(key.sign(pre_authentication(payload)))
        )
        others = [one for one in old.signatures if one.keyid != mine.keyid] if old else []
        signatures = tuple(sorted([*others, mine], key=lambda one: one.keyid))
        envelope = _Envelope(payload=b64(payload), payloadType=PAYLOAD_TYPE, signatures=signatures)
        write_durably(root / SIGNATURE_NAME, _encode(envelope), scratch=_scratch(root))
    return Verified(signers=tuple(one.keyid for one in signatures), trusted=(key.public.keyid,))


def verify(artifact: Artifact, trusted: Iterable[PublicKey]) -> Verified:
    """Check the signatures of a verified artifact, and that a trusted key is among the signers.

    Raises:
        SignatureError: unsigned, damaged, of another artifact, or by unknown keys only.
    """
    known = {key.keyid for key in trusted}
    found = signers(artifact)
    if not found:
        raise SignatureError(
            f"{artifact.root} is not signed", advice="have it signed (npuops sign ART --key key.pem), or get it again"
        )
    both = tuple(keyid for keyid in found if keyid in known)
    if not both:
        raise SignatureError(
            f"{artifact.root} is signed by unknown keys only: {', '.join(keyid[:16] for keyid in found)}",
            advice="if you know the signer, add the public key to the trusted ones; else do not use the artifact",
        )
    return Verified(signers=found, trusted=both)


def enforce(artifact: Artifact, policy: TrustPolicy) -> Verified:
    """Judge a verified artifact by a policy.

    Raises:
        SignatureError: as `verify`; an unsigned artifact only where a signature is required.
        UsageError: a key file of the policy is no key.
    """
    trusted = [read_public_key(path) for path in policy.trusted_keys]
    found = signers(artifact)
    if not trusted or (not found and not policy.require_signature):
        return Verified(signers=found, trusted=())
    return verify(artifact, trusted)


def signers(artifact: Artifact) -> tuple[str, ...]:
    """Ids of all keys whose whole signature is there, trusted or not; empty for an unsigned artifact.

    Raises:
        SignatureError: one signature is damaged, or the statement is about something else.
    """
    envelope = _read(artifact)
    return tuple(one.keyid for one in envelope.signatures) if envelope else ()


def pre_authentication(payload: bytes) -> bytes:
    """What is really signed: DSSE's PAE, which binds the payload to its type."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def statement(manifest: Manifest) -> bytes:
    """The in-toto statement about an artifact, as JSON."""
    quantization = manifest.quantization
    materials = [_material(manifest.model.name, manifest.model.digest)]
    if quantization is not None:
        materials.append(_material("calibration", quantization.calibration_digest))
    content = {
        "_type": STATEMENT_TYPE,
        "subject": _subjects(manifest),
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "target": manifest.target,
                    "precision": manifest.precision,
                    "vendorOptions": manifest.compile.vendor_options,
                    "quantization": quantization.method if quantization else None,
                },
                "internalParameters": {
                    "cacheKey": manifest.compile.cache_key,
                    "compatibility": manifest.compatibility,
                },
                "resolvedDependencies": materials,
            },
            "runDetails": {
                "builder": {"id": "urn:npuops:builder", "version": {"npuops": manifest.npuops, **manifest.toolchain}},
                "metadata": {"finishedOn": manifest.created},
            },
        },
    }
    return msgspec.json.encode(content, order="sorted")


def _subjects(manifest: Manifest) -> list[dict[str, Any]]:
    own = {"name": MANIFEST_NAME, "digest": {"sha256": hashlib.sha256(canonical_json(manifest)).hexdigest()}}
    return [own, *({"name": record.name, "digest": {"sha256": record.sha256}} for record in manifest.files)]


def _material(name: str, digest: str) -> dict[str, Any]:
    algorithm, _, value = digest.rpartition(":")
    return {"name": name, "digest": {algorithm or "sha256": value}}


def _scratch(root: Path) -> Path:
    """Beside the folder if possible: an interrupted call must not leave an unlisted file in the artifact."""
    beside = root.parent.stat().st_dev == root.stat().st_dev and os.access(root.parent, os.W_OK)
    return (root.parent if beside else root) / f".{root.name}.{SIGNATURE_NAME}.{os.getpid()}"


def _read(artifact: Artifact) -> _Envelope | None:
    """The envelope, with every signature in it checked by its own key, or None where there is none."""
    path = artifact.root / SIGNATURE_NAME
    if not os.path.lexists(path):
        return None
    try:
        data = read_small(path, limit_bytes=_ENVELOPE_LIMIT_BYTES)
        envelope = msgspec.json.decode(data, type=_Envelope)
    except (IntegrityError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SignatureError(f"{path} is damaged: {error}", advice=_DAMAGED) from error
    if _encode(envelope) != data:
        raise SignatureError(f"{path} is damaged: it is not in canonical form", advice=_DAMAGED)
    if envelope.payloadType != PAYLOAD_TYPE or not envelope.signatures:
        raise SignatureError(f"{path} does not hold a signed in-toto statement", advice=_DAMAGED)
    payload = _unb64(envelope.payload, f"{path}: the payload")
    signed = pre_authentication(payload)
    for one in envelope.signatures:
        _check(one, signed, str(path))
    _check_statement(payload, artifact.manifest, str(path))
    return envelope


def _check(one: _Signature, signed: bytes, where: str) -> None:
    public = decode_public_key(_unb64(one.publicKey, f"{where}: a key"), where=f"{where}: a key")
    if public.keyid != one.keyid or not public.verifies(_unb64(one.sig, f"{where}: a signature"), signed):
        raise SignatureError(
            f"{where}: the signature of key {one.keyid[:16]} is not valid: it was tampered with or damaged",
            advice=_DAMAGED,
        )


def _check_statement(payload: bytes, manifest: Manifest, where: str) -> None:
    try:
        content = msgspec.json.decode(payload, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SignatureError(f"{where}: the payload is not JSON: {error}", advice=_DAMAGED) from error
    kind = (content.get("_type"), content.get("predicateType"))
    if kind != (STATEMENT_TYPE, PREDICATE_TYPE):
        raise SignatureError(f"{where}: the payload is not a provenance statement but {kind}", advice=_DAMAGED)
    if content.get("subject") != _subjects(manifest):
        raise SignatureError(
            f"{where} is the signature of another artifact", advice="take it away and have this artifact signed"
        )


def _encode(envelope: _Envelope) -> bytes:
    return msgspec.json.format(msgspec.json.encode(envelope, order="sorted"), indent=2) + b"\n"


def _unb64(text: str, where: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise SignatureError(f"{where} is not base64", advice=_DAMAGED) from error
    if b64(data) != text:
        # Several texts decode to the same bytes; taking one only makes every flipped bit visible.
        raise SignatureError(f"{where} is not canonical base64", advice=_DAMAGED)
    return data
