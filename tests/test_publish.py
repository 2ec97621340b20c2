from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from made_artifact import made
from npuops.artifacts.bundle import pack
from npuops.artifacts.folder import open_artifact
from npuops.artifacts.manifest import Artifact
from npuops.build.publish import publish, refuse_occupied, workspace
from npuops.errors import StorageError, UsageError


def artifact(folder: Path, seed: int = 0) -> Artifact:
    folder.mkdir(parents=True, exist_ok=True)
    return made(folder, seed=seed)


@pytest.mark.parametrize("name", ["art", "art.npuart", "new/deep/art"])
def test_an_artifact_arrives_whole_and_replaces_the_one_before(tmp_path: Path, name: str) -> None:
    for seed in (0, 1):
        fresh = artifact(tmp_path / f"work{seed}", seed)
        refuse_occupied(tmp_path / name)
        found = publish(fresh, tmp_path / name)
        assert found.manifest == fresh.manifest == open_artifact(tmp_path / name).manifest
        assert found.entry.is_file()
    assert not [path for path in (tmp_path / name).parent.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("name", ["folder", "text.txt", "text.npuart", "folder.npuart", "link", "text.txt/below"])
def test_what_is_no_artifact_is_never_replaced(tmp_path: Path, name: str) -> None:
    (tmp_path / "text.txt").write_text("mine")
    (tmp_path / "text.npuart").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.npuart").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(UsageError):
        refuse_occupied(tmp_path / name)


@pytest.mark.parametrize("suffix", ["", ".npuart"])
def test_a_link_to_an_artifact_stays_a_link(tmp_path: Path, suffix: str) -> None:
    real, link = tmp_path / f"art{suffix}", tmp_path / f"latest{suffix}"
    publish(artifact(tmp_path / "work1", 1), real)
    link.symlink_to(real.name)
    fresh = artifact(tmp_path / "work2", 2)
    refuse_occupied(link)
    publish(fresh, link)
    assert link.is_symlink()
    assert open_artifact(real).manifest == fresh.manifest
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_build_killed_between_the_two_renames_loses_nothing(tmp_path: Path) -> None:
    old, fresh = artifact(tmp_path / "old", 1), artifact(tmp_path / "work", 2)
    old.root.rename(tmp_path / ".art.replaced")
    (tmp_path / ".art.incoming").mkdir()
    (tmp_path / "work" / "model_ctx.onnx").unlink()  # this build cannot be copied
    (tmp_path / "work" / "model_ctx.onnx").symlink_to("nowhere")
    with pytest.raises(StorageError):
        publish(fresh, tmp_path / "art")
    assert open_artifact(tmp_path / "art").manifest == old.manifest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["art", "work"]


def test_the_workspace_of_a_killed_build_is_swept_by_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code = (
        "import os, signal\nfrom npuops.build.publish import workspace\n"
        "with workspace() as work:\n    (work / 'x').write_text('left')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    killed = subprocess.run([sys.executable, "-c", code], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    (left,) = (path for path in tmp_path.iterdir() if path.is_dir())
    with workspace() as outer, workspace() as inner:
        assert not left.exists()
        assert outer.is_dir()  # the lock of a build that lives keeps its folder
        assert inner != outer
    assert list(tmp_path.iterdir()) == []


def test_the_workspace_of_another_user_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make another user's folder")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "npuops-build-theirs").mkdir()
    os.chown(tmp_path / "npuops-build-theirs", 65534, 65534)
    with workspace():
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["npuops-build-theirs"]


def test_what_a_killed_build_left_beside_a_bundle_is_swept_by_the_next_one(tmp_path: Path) -> None:
    fresh = artifact(tmp_path / "work")
    code = (
        "import os, pathlib, signal, sys\nfrom npuops.artifacts import bundle\n"
        "def die(file, folder, names):\n    file.write(b'half')\n    file.flush()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "bundle._write = die\nbundle.pack(*map(pathlib.Path, sys.argv[1:]))\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, fresh.root, tmp_path / "a.npuart"], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "a.npuart").exists()
    publish(fresh, tmp_path / "a.npuart")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npuart", "work"]


def test_a_bundle_of_a_build_is_what_pack_writes(tmp_path: Path) -> None:
    fresh = artifact(tmp_path / "work")
    publish(fresh, tmp_path / "one.npuart")
    assert (tmp_path / "one.npuart").read_bytes() == pack(fresh.root, tmp_path / "two.npuart").read_bytes()
