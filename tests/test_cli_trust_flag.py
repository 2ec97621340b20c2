from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from npuops.artifacts.keys import Algorithm, new_key, write_key
from npuops.artifacts.signature import sign
from npuops.cli.run import command
from npuops.cli.trust_flag import TRUSTED_KEYS_VARIABLE, trust_policy
from npuops.errors import SignatureError
from toy_artifact import toy_artifact


@pytest.fixture
def source(tmp_path: Path) -> str:
    np.savez(tmp_path / "x.npz", x=np.ones((1, 16), np.float32))
    return str(tmp_path / "x.npz")


def test_run_refuses_what_the_named_key_did_not_sign(source: str, tmp_path: Path) -> None:
    mine, other = new_key(Algorithm.ED25519), new_key(Algorithm.ED25519)
    public = write_key(mine, tmp_path / "mine.pem")
    artifact = toy_artifact(tmp_path / "art")
    with pytest.raises(SignatureError):
        command(artifact.root, source, key=[public])
    sign(artifact, other)
    with pytest.raises(SignatureError):
        command(artifact.root, source, key=[public])
    sign(artifact, mine)
    command(artifact.root, source, key=[public])


def test_a_machine_can_require_signatures_of_everything_it_runs(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    public = write_key(new_key(Algorithm.ED25519), tmp_path / "mine.pem")
    artifact = toy_artifact(tmp_path / "art")
    command(artifact.root, source)
    monkeypatch.setenv(TRUSTED_KEYS_VARIABLE, str(public))
    with pytest.raises(SignatureError):
        command(artifact.root, source)


def test_without_a_rule_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TRUSTED_KEYS_VARIABLE, raising=False)
    assert trust_policy(None) is None
