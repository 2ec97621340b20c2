"""What agents decide by is known by its content: where it lies and how it is written does not matter."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from npuops.errors import IntegrityError, OptionError, StorageError
from npuops.hostsched.policy_card import CARD_NAME, bundled_policy
from npuops.schedlab.rival_content import contents, demand_same
from npuops.schedlab.rival_names import DEFAULT, LEARNED, REACTIVE, TUNED

LOG = Path("plays.jsonl")


@pytest.fixture
def thresholds(tmp_path: Path) -> Path:
    path = tmp_path / "reactive.toml"
    path.write_text("quiet_us = 31000.0\n", encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    if not (bundled_policy() / CARD_NAME).is_file():
        pytest.skip("no learned policy ships with this npuops")
    return Path(shutil.copytree(bundled_policy(), tmp_path / "policy"))


def test_the_same_content_elsewhere_is_the_same(thresholds: Path, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text("# with a comment\nquiet_us = 31_000\n", encoding="utf-8")
    mine = contents(thresholds=thresholds, folder=folder)
    assert set(mine) == {REACTIVE, TUNED, LEARNED}
    assert contents(thresholds=other, folder=None) == mine


def test_another_content_at_the_same_place_is_another(thresholds: Path, folder: Path) -> None:
    before = contents(thresholds=thresholds, folder=folder)
    thresholds.write_text("quiet_us = 32000.0\n", encoding="utf-8")
    card = folder / CARD_NAME
    card.write_bytes(card.read_bytes().replace(b'"npuops": "', b'"npuops": "9'))
    after = contents(thresholds=thresholds, folder=folder)
    assert after[REACTIVE] == before[REACTIVE]
    for name, flag in ((TUNED, "--thresholds"), (LEARNED, "--policy-folder")):
        with pytest.raises(OptionError, match=flag) as told:
            demand_same(LOG, before, after, [DEFAULT, name])
        assert before[name][:12] in told.value.message
        assert "--out" in told.value.advice
    demand_same(LOG, before, after, [DEFAULT, REACTIVE])


def test_a_log_that_does_not_tell_is_gone_on_with_only_by_rivals_that_are_no_agents(thresholds: Path) -> None:
    now = contents(thresholds=thresholds, folder=None)
    demand_same(LOG, None, now, [DEFAULT])
    with pytest.raises(OptionError, match="older npuops"):
        demand_same(LOG, None, now, [DEFAULT, REACTIVE])


def test_what_is_named_must_be_there_and_whole(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(OptionError):
        contents(thresholds=tmp_path / "nothing.toml", folder=None)
    with pytest.raises(StorageError):
        contents(thresholds=None, folder=tmp_path)
    (folder / "weights.npz").write_bytes(b"torn")
    with pytest.raises(IntegrityError):
        contents(thresholds=None, folder=folder)
