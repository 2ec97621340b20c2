from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from made_artifact import FILES, made, mounted
from npuops.artifacts.folder import open_artifact
from npuops.artifacts.keys import Algorithm, new_key, write_key
from npuops.artifacts.manifest import Artifact
from npuops.artifacts.signature import TrustPolicy, enforce, pre_authentication, sign, signers, verify
from npuops.errors import ArtifactError, OptionError, SignatureError, UsageError


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return made(tmp_path / "artifact")


def envelope(artifact: Artifact) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((artifact.root / "signature.dsse.json").read_bytes())
    return loaded


def rewrite(artifact: Artifact, content: dict[str, Any]) -> None:
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    (artifact.root / "signature.dsse.json").write_text(text, encoding="utf-8")


@pytest.mark.parametrize("algorithm", Algorithm)
def test_a_signature_of_a_trusted_key_verifies(artifact: Artifact, algorithm: Algorithm):
    key = new_key(algorithm)
    sign(artifact, key)
    found = verify(open_artifact(artifact.root), [new_key(algorithm).public, key.public])
    assert found.signers == found.trusted == (key.public.keyid,)


def test_signing_changes_no_other_byte(artifact: Artifact):
    before = {path: path.read_bytes() for path in artifact.root.rglob("*") if path.is_file()}
    sign(artifact, new_key(Algorithm.ED25519))
    assert {path: path.read_bytes() for path in before} == before
    assert [path.name for path in artifact.root.parent.iterdir()] == ["artifact"]


@pytest.mark.parametrize("algorithm", Algorithm)
def test_anybody_can_verify_the_envelope_by_the_dsse_specification(
    tmp_path: Path, artifact: Artifact, algorithm: Algorithm
):
    """No code of ours: PAE spelled out, keys by the library, subjects hashed from the files."""
    key = new_key(algorithm)
    pem = write_key(key, tmp_path / "k.pem").read_bytes()
    sign(artifact, key)
    content = envelope(artifact)
    body = base64.standard_b64decode(content["payload"])
    assert content["payloadType"] == "application/vnd.in-toto+json"
    signed = b"DSSEv1 28 application/vnd.in-toto+json " + str(len(body)).encode() + b" " + body
    public = load_pem_public_key(pem)
    signature = base64.standard_b64decode(content["signatures"][0]["sig"])
    if isinstance(public, ed25519.Ed25519PublicKey):
        public.verify(signature, signed)
    else:
        assert isinstance(public, ec.EllipticCurvePublicKey)
        public.verify(signature, signed, ec.ECDSA(hashes.SHA256()))
    statement = json.loads(body)
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert [subject["name"] for subject in statement["subject"]] == ["manifest.json", *FILES]
    for subject in statement["subject"]:
        data = (artifact.root / subject["name"]).read_bytes()
        assert subject["digest"] == {"sha256": hashlib.sha256(data).hexdigest()}


def test_the_pae_is_the_one_of_the_specification():
    assert pre_authentication(b"hello") == b"DSSEv1 28 application/vnd.in-toto+json 5 hello"


def test_the_statement_tells_from_what_and_with_what_it_was_built(artifact: Artifact):
    sign(artifact, new_key(Algorithm.ED25519))
    statement = json.loads(base64.standard_b64decode(envelope(artifact)["payload"]))
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    definition = statement["predicate"]["buildDefinition"]
    assert definition["externalParameters"]["target"] == "qnn-htp:sm8650"
    assert definition["externalParameters"]["vendorOptions"] == {"soc_model": "57"}
    assert definition["resolvedDependencies"] == [
        {"name": "mödel.onnx", "digest": {"sha256": "ab" * 32}},
        {"name": "calibration", "digest": {"sha256": "cd" * 32}},
    ]
    assert statement["predicate"]["runDetails"]["builder"]["version"]["onnxruntime-qnn"] == "2.7.0"


def test_several_sign_and_one_trusted_key_is_enough(artifact: Artifact):
    alice, bob, carol = (new_key(algorithm) for algorithm in (*Algorithm, Algorithm.ED25519))
    sign(artifact, alice)
    sign(artifact, bob)
    both = tuple(sorted([alice.public.keyid, bob.public.keyid]))
    assert signers(open_artifact(artifact.root)) == both
    assert verify(artifact, [bob.public, carol.public]).trusted == (bob.public.keyid,)
    assert sign(artifact, alice).signers == both
    with pytest.raises(SignatureError, match="unknown keys only") as caught:
        verify(artifact, [carol.public])
    assert "do not use" in caught.value.advice


def test_an_unsigned_artifact_has_no_signers_and_does_not_verify(artifact: Artifact):
    assert signers(artifact) == ()
    with pytest.raises(SignatureError, match="is not signed"):
        verify(artifact, [new_key(Algorithm.ED25519).public])


def test_the_signature_of_another_artifact_is_refused(tmp_path: Path, artifact: Artifact):
    other = made(tmp_path / "other", seed=5)
    sign(other, new_key(Algorithm.ED25519))
    (artifact.root / "signature.dsse.json").write_bytes((other.root / "signature.dsse.json").read_bytes())
    with pytest.raises(SignatureError, match="signature of another artifact"):
        open_artifact(artifact.root)


def test_who_changes_a_file_and_seals_the_folder_again_loses_the_signature(tmp_path: Path, artifact: Artifact):
    key = new_key(Algorithm.ED25519)
    sign(artifact, key)
    forged = made(tmp_path / "forged", seed=9)
    (forged.root / "signature.dsse.json").write_bytes((artifact.root / "signature.dsse.json").read_bytes())
    with pytest.raises(SignatureError):
        verify(forged, [key.public])


def forge_payload(content: dict[str, Any]) -> None:
    statement = json.loads(base64.standard_b64decode(content["payload"]))
    statement["predicate"]["buildDefinition"]["externalParameters"]["target"] = "toy"
    content["payload"] = base64.standard_b64encode(json.dumps(statement).encode()).decode()


def swap_key(content: dict[str, Any]) -> None:
    spki = new_key(Algorithm.ED25519).public.spki
    content["signatures"][0]["publicKey"] = base64.standard_b64encode(spki).decode()
    content["signatures"][0]["keyid"] = hashlib.sha256(spki).hexdigest()


def claim_other_id(content: dict[str, Any]) -> None:
    content["signatures"][0]["keyid"] = "0" * 64


def no_signatures(content: dict[str, Any]) -> None:
    content["signatures"] = []


def other_type(content: dict[str, Any]) -> None:
    content["payloadType"] = "application/json"


def add_a_field(content: dict[str, Any]) -> None:
    content["extra"] = 1


def loose_base64(content: dict[str, Any]) -> None:
    content["signatures"][0]["sig"] = content["signatures"][0]["sig"].rstrip("=")


@pytest.mark.parametrize(
    "change", [forge_payload, swap_key, claim_other_id, no_signatures, other_type, add_a_field, loose_base64]
)
def test_a_tampered_envelope_is_refused(artifact: Artifact, change: Callable[[dict[str, Any]], None]):
    sign(artifact, new_key(Algorithm.ED25519))
    content = envelope(artifact)
    change(content)
    rewrite(artifact, content)
    with pytest.raises(SignatureError):
        open_artifact(artifact.root)


def test_one_bad_signature_among_good_ones_refuses_the_whole(artifact: Artifact):
    key = new_key(Algorithm.ED25519)
    sign(artifact, key)
    sign(artifact, new_key(Algorithm.ED25519))
    content = envelope(artifact)
    stranger = next(one for one in content["signatures"] if one["keyid"] != key.public.keyid)
    stranger["sig"] = base64.standard_b64encode(b"\0" * 64).decode()
    rewrite(artifact, content)
    with pytest.raises(SignatureError, match="tampered with or damaged"):
        verify(artifact, [key.public])


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b"[" * 100_000, b'{"payload": 1}'])
def test_what_is_no_envelope_is_refused(artifact: Artifact, data: bytes):
    (artifact.root / "signature.dsse.json").write_bytes(data)
    with pytest.raises(SignatureError):
        open_artifact(artifact.root)


def test_a_statement_of_another_kind_is_refused_even_with_a_good_signature(artifact: Artifact):
    key = new_key(Algorithm.ED25519)
    for body in (b"{}", b"not json", b'{"_type": "https://in-toto.io/Statement/v0.1", "predicateType": "x"}'):
        one = {
            "keyid": key.public.keyid,
            "publicKey": base64.standard_b64encode(key.public.spki).decode(),
            "sig": base64.standard_b64encode(key.sign(pre_authentication(body))).decode(),
        }
        payload = base64.standard_b64encode(body).decode()
        rewrite(artifact, {"payload": payload, "payloadType": "application/vnd.in-toto+json", "signatures": [one]})
        with pytest.raises(SignatureError, match="payload"):
            open_artifact(artifact.root)


def test_nobody_vouches_for_the_statement_that_someone_else_wrote(artifact: Artifact):
    stranger = new_key(Algorithm.ED25519)
    sign(artifact, stranger)
    content = envelope(artifact)
    forge_payload(content)
    signed = pre_authentication(base64.standard_b64decode(content["payload"]))
    content["signatures"][0]["sig"] = base64.standard_b64encode(stranger.sign(signed)).decode()
    rewrite(artifact, content)
    assert signers(artifact) == (stranger.public.keyid,)
    with pytest.raises(SignatureError, match="not made from this manifest"):
        sign(artifact, new_key(Algorithm.ED25519))
    assert envelope(artifact) == content


def test_a_damaged_signature_is_not_signed_over_but_left_for_a_look(artifact: Artifact):
    path = artifact.root / "signature.dsse.json"
    path.write_bytes(b"damaged")
    with pytest.raises(SignatureError):
        sign(artifact, new_key(Algorithm.ED25519))
    assert path.read_bytes() == b"damaged"


def test_a_policy(tmp_path: Path, artifact: Artifact):
    mine, stranger = new_key(Algorithm.ED25519), new_key(Algorithm.ED25519)
    keys = (write_key(mine, tmp_path / "mine.pem"),)
    strict = TrustPolicy(require_signature=True, trusted_keys=keys)
    lenient = TrustPolicy(trusted_keys=keys)
    assert enforce(artifact, TrustPolicy()).signers == ()
    assert enforce(artifact, lenient).signers == ()
    with pytest.raises(SignatureError, match="not signed"):
        enforce(artifact, strict)
    sign(artifact, stranger)
    assert enforce(artifact, TrustPolicy()).signers == (stranger.public.keyid,)
    for policy in (lenient, strict):
        with pytest.raises(SignatureError, match="unknown keys"):
            enforce(artifact, policy)
    sign(artifact, mine)
    for policy in (lenient, strict):
        assert enforce(artifact, policy).trusted == (mine.public.keyid,)


def test_a_policy_that_requires_a_signature_of_nobody_in_particular_is_refused():
    with pytest.raises(OptionError, match="no key is trusted"):
        TrustPolicy(require_signature=True)


def test_a_key_file_of_the_policy_that_is_no_key_is_an_error_and_not_an_empty_trust(tmp_path: Path, artifact: Artifact):
    (tmp_path / "k.pub").write_bytes(b"")
    with pytest.raises(UsageError):
        enforce(artifact, TrustPolicy(trusted_keys=(tmp_path / "k.pub",)))


def test_every_flipped_bit_of_an_ecdsa_envelope_is_seen_without_any_trusted_key(artifact: Artifact):
    sign(artifact, new_key(Algorithm.ECDSA_P256))
    path = artifact.root / "signature.dsse.json"
    whole = path.read_bytes()
    start = whole.index(b'"signatures"')
    for index in range(start, len(whole)):
        for bit in range(8):
            path.write_bytes(whole[:index] + bytes([whole[index] ^ 1 << bit]) + whole[index + 1 :])
            with pytest.raises(ArtifactError):
                signers(artifact)


def test_of_many_that_sign_at_the_same_time_none_loses_its_signature(artifact: Artifact):
    code = """
import os, pathlib, sys
from npuops.artifacts.folder import open_artifact
from npuops.artifacts.keys import Algorithm, new_key
from npuops.artifacts.signature import sign
for number in range(6):
    if os.fork() == 0:
        sign(open_artifact(pathlib.Path(sys.argv[1])), new_key(Algorithm.ED25519))
        os._exit(0)
for number in range(6):
    _, status = os.wait()
    assert status == 0
"""
    subprocess.run([sys.executable, "-c", code, artifact.root], check=True)
    assert len(signers(open_artifact(artifact.root))) == 6


def test_an_artifact_that_is_a_mounted_volume_is_signed_in_place(tmp_path: Path):
    with mounted(tmp_path / "volume", kib=256) as volume:
        sign(made(volume), new_key(Algorithm.ED25519))
        assert len(signers(open_artifact(volume))) == 1


def test_a_full_disk_keeps_the_old_signature(tmp_path: Path, artifact: Artifact):
    sign(artifact, new_key(Algorithm.ED25519))
    code = """
import pathlib, resource, sys
from npuops.artifacts.folder import open_artifact
from npuops.artifacts.keys import Algorithm, new_key
from npuops.artifacts.signature import sign
from npuops.errors import StorageError
found = open_artifact(pathlib.Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    sign(found, new_key(Algorithm.ED25519))
except StorageError as error:
    print(error.message)
"""
    done = subprocess.run([sys.executable, "-c", code, artifact.root], check=True, capture_output=True, text=True)
    assert "File too large" in done.stdout
    assert len(signers(open_artifact(artifact.root))) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["artifact"]
