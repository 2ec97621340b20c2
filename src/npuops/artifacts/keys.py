"""Keys for signatures: Ed25519 and ECDSA over P-256, in PEM files, named by the SHA-256 of their public half."""

from __future__ import annotations

import base64
import hashlib
import os
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from npuops.artifacts.disk import storage_errors
from npuops.errors import SignatureError, UsageError

PASSWORD_VARIABLE: Final = "NPUOPS_KEY_PASSWORD"  # noqa: S105 - the name of a variable, not a password

_KEY_LIMIT_BYTES: Final = 64 * 1024
_ECDSA: Final = ec.ECDSA(hashes.SHA256())

_Public = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey
_Private = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey


class Algorithm(StrEnum):
    """What npuops signs with; everything else is refused."""

    ED25519 = "ed25519"
    ECDSA_P256 = "ecdsa-p256"
    """With SHA-256; the signature is DER."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """Verifies. Two are equal when their SubjectPublicKeyInfo is."""

    spki: bytes
    """SubjectPublicKeyInfo, DER."""
    algorithm: Algorithm
    _key: _Public = field(repr=False, compare=False)

    @property
    def keyid(self) -> str:
        """SHA-256 of the SPKI, in hex."""
        return hashlib.sha256(self.spki).hexdigest()

    @property
    def pem(self) -> bytes:
        """The text of a `.pub` file."""
        return self._key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Whether the signature is this key's over exactly these bytes."""
        try:
            if isinstance(self._key, ed25519.Ed25519PublicKey):
                self._key.verify(signature, data)
            else:
                self._key.verify(signature, data, _ECDSA)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class SigningKey:
    """Signs."""

    public: PublicKey
    _key: _Private = field(repr=False, compare=False)

    def sign(self, data: bytes) -> bytes:
        """64 bytes for Ed25519, DER for ECDSA."""
        if isinstance(self._key, ed25519.Ed25519PrivateKey):
            return self._key.sign(data)
        return self._key.sign(data, _ECDSA)


def new_key(algorithm: Algorithm) -> SigningKey:
    """A fresh key from the system's random source."""
    if algorithm is Algorithm.ED25519:
        return _signing(ed25519.Ed25519PrivateKey.generate(), "a new key")
    return _signing(ec.generate_private_key(ec.SECP256R1()), "a new key")


def write_key(key: SigningKey, path: Path, *, password: bytes | None = None) -> Path:
    """Write the private key to `path`, readable by its owner only, and the public one to `path.pub`.

    Args:
        key: what to write.
        path: neither it nor `path.pub` may exist.
        password: encrypts the private key (PKCS#8 with PBES2).

    Returns:
        The path of the public key.

    Raises:
        UsageError: one of the two exists; nothing was changed.
        StorageError: a file cannot be written; nothing was left behind.
    """
    public = path.with_name(path.name + ".pub")
    for place in (path, public):
        if os.path.lexists(place):
            raise UsageError(f"{place} exists; a key is never overwritten", advice="choose another path")
    protection = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    pem = key._key.private_bytes(Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)  # noqa: SLF001 - our own noun
    _create(path, pem, mode=0o600)
    try:
        _create(public, key.public.pem, mode=0o644)
    except BaseException:
        path.unlink()
        raise
    return public


def read_signing_key(path: Path, *, password: bytes | None = None) -> SigningKey:
    """Read a private key from a PEM file.

    Args:
        path: PKCS#8, SEC1 or OpenSSL's own form.
        password: for an encrypted file; by default the value of `NPUOPS_KEY_PASSWORD`.

    Raises:
        UsageError: the file is no private key, or its password is missing or wrong.
        SignatureError: a key of another algorithm or curve.
        StorageError: it cannot be read.
    """
    pem = _read(path)
    secret = password or os.environ.get(PASSWORD_VARIABLE, "").encode() or None
    encrypted = b"ENCRYPTED" in pem
    if encrypted and secret is None:
        raise UsageError(f"{path} is encrypted", advice=f"give its password in ${PASSWORD_VARIABLE}")
    try:
        # To the library a password for a plain file is an error; in the environment it may be meant for another key.
        key = serialization.load_pem_private_key(pem, secret if encrypted else None)
    except (ValueError, TypeError) as error:
        why = (
            f"is damaged, or the password in ${PASSWORD_VARIABLE} is wrong" if encrypted else "is no private key in PEM"
        )
        raise UsageError(f"{path} {why}", advice="`npuops sign --new-key PATH` makes one") from error
    except UnsupportedAlgorithm as error:
        raise _refused(str(path), str(error)) from error
    return _signing(key, str(path))


def read_public_key(path: Path) -> PublicKey:
    """Read a public key from a PEM file.

    Raises:
        UsageError: the file is no public key (a private one is not taken in its place).
        SignatureError: a key of another algorithm or curve.
        StorageError: it cannot be read.
    """
    pem = _read(path)
    if b"PRIVATE KEY" in pem:
        raise UsageError(f"{path} is a private key", advice="give the public one (.pub); keep the private one private")
    try:
        key = serialization.load_pem_public_key(pem)
    except ValueError as error:
        raise UsageError(f"{path} is no public key in PEM", advice="give the .pub file of the signer") from error
    except UnsupportedAlgorithm as error:
        raise _refused(str(path), str(error)) from error
    return _public(key, str(path))


def decode_public_key(spki: bytes, *, where: str) -> PublicKey:
    """A public key from its SubjectPublicKeyInfo, which must be the one DER form of that key.

    Raises:
        SignatureError: not a key, another algorithm or curve, or not canonical.
    """
    try:
        public = _public(serialization.load_der_public_key(spki), where)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SignatureError(f"{where} is not a public key") from error
    if public.spki != spki:
        raise SignatureError(f"{where} is not in canonical form")
    return public


def _signing(key: object, where: str) -> SigningKey:
    if isinstance(key, ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey):
        return SigningKey(_public(key.public_key(), where), key)
    raise _refused(where, type(key).__name__)


def _public(key: object, where: str) -> PublicKey:
    if isinstance(key, ed25519.Ed25519PublicKey):
        algorithm = Algorithm.ED25519
    elif isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        algorithm = Algorithm.ECDSA_P256
    else:
        raise _refused(where, key.curve.name if isinstance(key, ec.EllipticCurvePublicKey) else type(key).__name__)
    return PublicKey(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo), algorithm, key)


def _refused(where: str, found: str) -> SignatureError:
    return SignatureError(
        f"{where}: the algorithm is not accepted ({found})", advice=f"npuops takes {' and '.join(Algorithm)} keys"
    )


def _read(path: Path) -> bytes:
    # Links are fine here: secrets are mounted as links in Kubernetes.
    with storage_errors("read key", path), path.open("rb") as file:
        data = file.read(_KEY_LIMIT_BYTES + 1)
    if len(data) > _KEY_LIMIT_BYTES:
        raise UsageError(f"{path} is too large for a key", advice="give a PEM file")
    return data


def _create(path: Path, data: bytes, *, mode: int) -> None:
    with storage_errors("write key", path, need_bytes=len(data)):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            with open(descriptor, "wb") as file:  # noqa: PTH123 - only open() takes a descriptor
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            path.unlink()
            raise


def b64(data: bytes) -> str:
    """Standard base64, with padding."""
    return base64.b64encode(data).decode("ascii")
