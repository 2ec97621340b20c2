from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
)

from npuops.artifacts.keys import (
    Algorithm,
    decode_public_key,
    new_key,
    read_public_key,
    read_signing_key,
    write_key,
)
from npuops.errors import SignatureError, StorageError, UsageError

FOREIGN = {
    "rsa-2048": lambda: rsa.generate_private_key(65537, 2048),
    "p-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()),
    "x25519": x25519.X25519PrivateKey.generate,
    "ed448": ed448.Ed448PrivateKey.generate,
}


@pytest.fixture(autouse=True)
def no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NPUOPS_KEY_PASSWORD", raising=False)


@pytest.mark.parametrize("algorithm", Algorithm)
@pytest.mark.parametrize("password", [None, "grüße".encode()])
def test_a_key_survives_its_files(tmp_path: Path, algorithm: Algorithm, password: bytes | None):
    key = new_key(algorithm)
    public = read_public_key(write_key(key, tmp_path / "k.pem", password=password))
    again = read_signing_key(tmp_path / "k.pem", password=password)
    assert public == key.public == again.public
    assert public.algorithm is algorithm
    signature = again.sign(b"data")
    assert public.verifies(signature, b"data")
    assert not public.verifies(signature, b"date")
    assert not public.verifies(signature[:-1], b"data")
    assert not public.verifies(b"", b"data")
    assert not new_key(algorithm).public.verifies(signature, b"data")


def test_the_key_id_is_the_sha256_of_the_public_key_as_any_tool_computes_it(tmp_path: Path):
    public = write_key(new_key(Algorithm.ECDSA_P256), tmp_path / "k.pem")
    der = load_pem_public_key(public.read_bytes()).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert read_public_key(public).keyid == hashlib.sha256(der).hexdigest()


def test_the_private_key_is_for_its_owner_only_and_an_encrypted_one_says_so(tmp_path: Path):
    write_key(new_key(Algorithm.ED25519), tmp_path / "k.pem", password=b"secret")
    assert stat.S_IMODE((tmp_path / "k.pem").stat().st_mode) == 0o600
    assert (tmp_path / "k.pem").read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")


@pytest.mark.parametrize("taken", ["k.pem", "k.pem.pub"])
def test_a_key_is_never_overwritten_not_even_by_half(tmp_path: Path, taken: str):
    (tmp_path / taken).write_text("precious")
    with pytest.raises(UsageError, match="never overwritten"):
        write_key(new_key(Algorithm.ED25519), tmp_path / "k.pem")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["precious"]


def test_a_link_into_nowhere_counts_as_taken(tmp_path: Path):
    (tmp_path / "k.pem").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="never overwritten"):
        write_key(new_key(Algorithm.ED25519), tmp_path / "k.pem")
    assert not (tmp_path / "elsewhere").exists()


def test_the_password_comes_from_the_environment_and_a_plain_key_ignores_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_key(new_key(Algorithm.ED25519), tmp_path / "locked.pem", password=b"secret")
    write_key(new_key(Algorithm.ED25519), tmp_path / "plain.pem")
    with pytest.raises(UsageError, match="is encrypted") as caught:
        read_signing_key(tmp_path / "locked.pem")
    assert "$NPUOPS_KEY_PASSWORD" in caught.value.advice
    monkeypatch.setenv("NPUOPS_KEY_PASSWORD", "wrong")
    with pytest.raises(UsageError, match="password"):
        read_signing_key(tmp_path / "locked.pem")
    monkeypatch.setenv("NPUOPS_KEY_PASSWORD", "secret")
    read_signing_key(tmp_path / "locked.pem")
    read_signing_key(tmp_path / "plain.pem")


@pytest.mark.parametrize("name", FOREIGN)
def test_other_algorithms_and_curves_are_refused(tmp_path: Path, name: str):
    key = FOREIGN[name]()
    private, public = tmp_path / "k.pem", tmp_path / "k.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(SignatureError, match="not accepted") as caught:
        read_signing_key(private)
    assert "ed25519" in caught.value.advice
    with pytest.raises(SignatureError, match="not accepted"):
        read_public_key(public)
    der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(SignatureError):
        decode_public_key(der, where="here")


def test_a_private_key_is_not_taken_for_a_public_one(tmp_path: Path):
    write_key(new_key(Algorithm.ED25519), tmp_path / "k.pem")
    with pytest.raises(UsageError, match="is a private key"):
        read_public_key(tmp_path / "k.pem")
    with pytest.raises(UsageError, match="no private key"):
        read_signing_key(tmp_path / "k.pem.pub")


@pytest.mark.parametrize(
    "data",
    [b"", b"garbage", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", b"\0" * 70_000],
    ids=["empty", "garbage", "short", "huge"],
)
def test_what_is_no_key_is_refused(tmp_path: Path, data: bytes):
    (tmp_path / "k").write_bytes(data)
    with pytest.raises(UsageError):
        read_public_key(tmp_path / "k")
    with pytest.raises(UsageError):
        read_signing_key(tmp_path / "k")
    with pytest.raises(SignatureError):
        decode_public_key(data, where="here")


def test_a_key_cut_off_anywhere_is_refused(tmp_path: Path):
    write_key(new_key(Algorithm.ECDSA_P256), tmp_path / "k.pem")
    whole = (tmp_path / "k.pem").read_bytes()
    for length in range(len(whole) - 2):  # the last newline, and the last dash, do not matter to PEM
        (tmp_path / "k.pem").write_bytes(whole[:length])
        with pytest.raises(UsageError):
            read_signing_key(tmp_path / "k.pem")


def test_a_compressed_point_is_another_form_of_the_same_key_and_refused():
    key = new_key(Algorithm.ECDSA_P256).public
    x, y = key.spki[-64:-32], key.spki[-32:]
    prefix = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200")
    with pytest.raises(SignatureError, match="canonical"):
        decode_public_key(prefix + bytes([2 + (y[-1] & 1)]) + x, where="here")


def test_a_key_of_openssl_is_read(tmp_path: Path):
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    path, public = tmp_path / "k.pem", tmp_path / "k.pub"
    for command in (
        ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", path],
        ["openssl", "ec", "-in", path, "-pubout", "-out", public],
    ):
        subprocess.run(command, check=True, capture_output=True)
    key = read_signing_key(path)
    assert read_public_key(public) == key.public
    (tmp_path / "data").write_bytes(b"data")
    (tmp_path / "sig").write_bytes(key.sign(b"data"))
    check = ["openssl", "dgst", "-sha256", "-verify", public, "-signature", tmp_path / "sig", tmp_path / "data"]
    assert b"Verified OK" in subprocess.run(check, check=True, capture_output=True).stdout


def test_a_key_file_that_is_absent_or_cannot_be_written_is_a_storage_error(tmp_path: Path):
    with pytest.raises(StorageError, match="cannot read key"):
        read_signing_key(tmp_path / "none")
    with pytest.raises(StorageError, match="cannot write key"):
        write_key(new_key(Algorithm.ED25519), tmp_path / "none" / "k.pem")


def test_the_private_half_is_removed_when_the_public_half_cannot_be_written(tmp_path: Path):
    name = "k" * (os.pathconf(tmp_path, "PC_NAME_MAX") - 3)
    with pytest.raises(StorageError, match="too long"):
        write_key(new_key(Algorithm.ED25519), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_key_does_not_show_its_private_half_when_it_is_printed():
    assert "_key" not in repr(new_key(Algorithm.ED25519))


def test_a_secret_mounted_as_a_link_is_read(tmp_path: Path):
    key = new_key(Algorithm.ED25519)
    write_key(key, tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert read_signing_key(tmp_path / "link").public == key.public
