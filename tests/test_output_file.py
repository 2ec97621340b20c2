"""Files written for a user: whole or not at all, never in an artifact, never over a device."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from npuops.errors import StorageError, UsageError
from npuops.report.output_file import refuse_output, refuse_place, write_output


def test_the_old_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "out.npz"
    path.write_bytes(b"old")
    write_output(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_is_followed_and_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    write_output(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_a_device_stays_a_device() -> None:
    write_output(Path("/dev/null"), b"gone")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_a_folder_that_is_missing_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        write_output(tmp_path / "no" / "out.npz", b"new")


@pytest.mark.parametrize("inside", ["out.npz", "deep/er/out.npz", "../art/out.npz", "."])
def test_a_path_in_the_artifact_is_refused(tmp_path: Path, inside: str) -> None:
    artifact = tmp_path / "art"
    artifact.mkdir()
    with pytest.raises(UsageError, match="inside the artifact"):
        refuse_output(artifact / inside, artifact)


def test_the_bundle_itself_and_folders_are_refused(tmp_path: Path) -> None:
    bundle = tmp_path / "one.npuart"
    bundle.write_bytes(b"")
    with pytest.raises(UsageError):
        refuse_output(bundle, bundle)
    with pytest.raises(UsageError, match="is a folder"):
        refuse_output(tmp_path, bundle)
    refuse_output(tmp_path / "out.npz", bundle)


def test_a_place_that_does_not_exist_is_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no folder"):
        refuse_output(tmp_path / "no" / "out.npz", tmp_path / "art")


def test_a_rename_never_meets_a_device_or_a_folder(tmp_path: Path) -> None:
    for path in (Path("/dev/null"), tmp_path):
        with pytest.raises(UsageError, match="no regular file"):
            refuse_place(path)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="no folder"):
        refuse_place(tmp_path / "file" / "out.onnx")
    refuse_place(tmp_path / "to" / "be" / "made.onnx")
    refuse_place(tmp_path / "file")
