from __future__ import annotations

import json
from pathlib import Path

import pytest

from command_line import npuops
from made_artifact import made
from npuops import __version__
from npuops.artifacts.bundle import pack
from npuops.artifacts.keys import Algorithm, new_key, write_key
from npuops.artifacts.signature import sign


def test_a_whole_artifact_verifies_and_says_whether_it_runs_here(tmp_path: Path):
    artifact = made(tmp_path / "a", target="toy", toolchain={"npuops": __version__}, compatibility="")
    answer = json.loads(npuops("verify", artifact.root, "--json"))
    assert answer["schema"] == "npuops.verify/1"
    assert answer["ok"] is True
    assert answer["digest"] == artifact.manifest.digest
    assert [record["name"] for record in answer["files"]] == [record.name for record in artifact.manifest.files]
    assert answer["signature"] == {"signed": False, "signers": [], "trusted": []}
    assert answer["compatibility"] == {"verdict": "pass", "reasons": [], "advice": []}
    words = npuops("verify", artifact.root)
    assert "digests        ok: 3 files, 900 B" in words
    assert "signature      none" in words
    assert "runs here      pass" in words


def test_an_artifact_of_another_toolchain_is_whole_all_the_same(tmp_path: Path):
    artifact = made(tmp_path / "a", target="toy", toolchain={"npuops": "99.0.0"}, compatibility="")
    answer = json.loads(npuops("verify", artifact.root, "--json"))
    assert answer["compatibility"]["verdict"] == "fail"
    assert "upgrade npuops here to 99.0.0" in answer["compatibility"]["advice"][0]
    unknown = made(tmp_path / "b", target="nothing:known")
    answer = json.loads(npuops("verify", unknown.root, "--json"))
    assert answer["compatibility"]["verdict"] == "error"
    assert "nothing" in answer["compatibility"]["reasons"][0]


def test_a_flipped_bit_ends_with_1_and_names_the_file(tmp_path: Path):
    artifact = made(tmp_path / "a", target="toy")
    path = artifact.root / "quantized.onnx"
    path.write_bytes(bytes([path.read_bytes()[0] ^ 4]) + path.read_bytes()[1:])
    words = npuops("verify", artifact.root, code=1)
    assert "quantized.onnx differs from its digest" in words
    assert "advice: get the artifact again" in words
    assert json.loads(npuops("verify", artifact.root, "--json", code=1))["error"] == "IntegrityError"


@pytest.mark.slow
def test_a_key_on_the_command_line_means_signed_by_it(tmp_path: Path):
    artifact = made(tmp_path / "a", target="toy")
    mine, stranger = new_key(Algorithm.ED25519), new_key(Algorithm.ECDSA_P256)
    mine_pub = write_key(mine, tmp_path / "mine.pem")
    stranger_pub = write_key(stranger, tmp_path / "stranger.pem")
    assert "is not signed" in npuops("verify", artifact.root, "--key", mine_pub, code=1)
    sign(artifact, mine)
    bundle = pack(artifact.root, tmp_path / "a.npuart")
    for path in (artifact.root, bundle):
        assert f"{mine.public.keyid} (trusted)" in npuops("verify", path, "--key", mine_pub)
        assert f"{mine.public.keyid} (trusted)" in npuops("verify", path, "--key", stranger_pub, "--key", mine_pub)
        assert f"{path} is signed by unknown keys only" in npuops("verify", path, "--key", stranger_pub, code=1)
        assert "not given as trusted" in npuops("verify", path)


def test_a_required_signature_needs_a_key_to_trust(tmp_path: Path):
    artifact = made(tmp_path / "a", target="toy")
    sign(artifact, new_key(Algorithm.ED25519))
    assert "no key is trusted" in npuops("verify", artifact.root, "--require-signature", code=2)


def test_nothing_there_is_wrong_use(tmp_path: Path):
    assert "no artifact at" in npuops("verify", tmp_path / "none", code=2)
