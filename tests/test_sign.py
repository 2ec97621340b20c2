from __future__ import annotations

import json
import stat
from pathlib import Path

from command_line import npuops
from made_artifact import made
from npuops.artifacts.bundle import pack
from npuops.artifacts.folder import open_artifact
from npuops.artifacts.keys import read_public_key
from npuops.artifacts.signature import signers, verify

LOCKED = {"NPUOPS_KEY_PASSWORD": "a secret"}


def test_a_key_is_made_and_signs_a_folder(tmp_path: Path):
    artifact = made(tmp_path / "a")
    key = tmp_path / "k.pem"
    words = npuops("sign", "--new-key", key)
    assert "not encrypted: set $NPUOPS_KEY_PASSWORD" in words
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    public = read_public_key(tmp_path / "k.pem.pub")
    assert public.keyid in words
    assert public.keyid in npuops("sign", artifact.root, "--key", key)
    assert verify(open_artifact(artifact.root), [public]).trusted == (public.keyid,)


def test_a_bundle_is_signed_in_place(tmp_path: Path):
    bundle = pack(made(tmp_path / "a").root, tmp_path / "a.npuart")
    made_key = json.loads(npuops("sign", "--new-key", tmp_path / "k.pem", "--algorithm", "ecdsa-p256", "--json"))
    assert made_key["algorithm"] == "ecdsa-p256"
    done = json.loads(npuops("sign", bundle, "--key", tmp_path / "k.pem", "--json"))
    assert done["schema"] == "npuops.sign/1"
    assert done["signers"] == [made_key["keyid"]]
    assert signers(open_artifact(bundle)) == (made_key["keyid"],)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "a.npuart", "k.pem", "k.pem.pub"]


def test_a_second_signature_is_added(tmp_path: Path):
    artifact = made(tmp_path / "a")
    for name in ("k1.pem", "k2.pem"):
        npuops("sign", "--new-key", tmp_path / name)
        words = npuops("sign", artifact.root, "--key", tmp_path / name)
    assert "1 other signature" in words
    assert len(signers(artifact)) == 2


def test_an_encrypted_key_needs_its_password(tmp_path: Path):
    artifact = made(tmp_path / "a")
    assert "(encrypted)" in npuops("sign", "--new-key", tmp_path / "k.pem", **LOCKED)
    assert "$NPUOPS_KEY_PASSWORD" in npuops("sign", artifact.root, "--key", tmp_path / "k.pem", code=2)
    npuops("sign", artifact.root, "--key", tmp_path / "k.pem", **LOCKED)
    assert len(signers(artifact)) == 1


def test_a_key_is_not_overwritten(tmp_path: Path):
    npuops("sign", "--new-key", tmp_path / "k.pem")
    before = (tmp_path / "k.pem").read_bytes()
    assert "never overwritten" in npuops("sign", "--new-key", tmp_path / "k.pem", code=2)
    assert (tmp_path / "k.pem").read_bytes() == before


def test_a_damaged_artifact_is_not_signed(tmp_path: Path):
    artifact = made(tmp_path / "a")
    npuops("sign", "--new-key", tmp_path / "k.pem")
    artifact.entry.write_bytes(b"x" * 300)
    error = json.loads(npuops("sign", artifact.root, "--key", tmp_path / "k.pem", "--json", code=1))
    assert error["error"] == "IntegrityError"
    assert not (artifact.root / "signature.dsse.json").exists()


def test_wrong_use_ends_with_2_and_an_example(tmp_path: Path):
    for arguments in ([], [tmp_path], ["--key", "k"], [tmp_path, "--key", "k", "--new-key", "n"]):
        assert "npuops sign ART --key key.pem" in npuops("sign", *arguments, code=2)
    assert "did you mean 'ed25519'" in npuops("sign", "--new-key", tmp_path / "k", "--algorithm", "ed2551", code=2)
