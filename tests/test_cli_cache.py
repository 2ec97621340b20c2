from __future__ import annotations

import json
from pathlib import Path

import pytest

from made_artifact import made
from npuops.artifacts.store import DirectoryStore
from npuops.cli.cache import command
from npuops.errors import UsageError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DirectoryStore:
    monkeypatch.setenv("NPUOPS_CACHE", str(tmp_path / "cache"))
    store = DirectoryStore()
    for seed in range(3):
        (tmp_path / f"art{seed}").mkdir()
        store.put(f"compile-{seed}{'0' * 63}", made(tmp_path / f"art{seed}", seed=seed).root)
    return store


def answer(capsys: pytest.CaptureFixture[str], **options: object) -> dict[str, list[dict[str, object]]]:
    command(**options, as_json=True)  # type: ignore[arg-type]
    found: dict[str, list[dict[str, object]]] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.usefixtures("cache")
def test_the_list_names_model_and_target_last_used_first(capsys: pytest.CaptureFixture[str]) -> None:
    entries = answer(capsys)["entries"]
    assert [str(entry["key"])[:9] for entry in entries] == ["compile-2", "compile-1", "compile-0"]
    assert {(entry["model"], entry["target"]) for entry in entries} == {("mödel.onnx", "qnn-htp:sm8650")}


def test_pruning_keeps_what_was_used_last(cache: DirectoryStore, capsys: pytest.CaptureFixture[str]) -> None:
    room = str(max(entry.bytes for entry in cache.list()) + 100)
    assert [str(entry["key"])[:9] for entry in answer(capsys, prune=room)["removed"]] == ["compile-0", "compile-1"]
    assert [entry.key[:9] for entry in cache.list()] == ["compile-2"]
    assert len(answer(capsys, clear=True)["removed"]) == 1
    assert cache.list() == ()


@pytest.mark.usefixtures("cache")
def test_people_get_the_total_and_the_place(capsys: pytest.CaptureFixture[str]) -> None:
    command()
    words = capsys.readouterr().out
    assert "3 entries" in words
    assert "cache" in words
    with pytest.raises(UsageError):
        command(prune="1GiB", clear=True)
