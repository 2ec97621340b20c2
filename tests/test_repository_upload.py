from __future__ import annotations

import asyncio
import base64
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from made_artifact import made
from npuops.artifacts.bundle import pack
from npuops.errors import OptionError
from npuops.server.repository_upload import Intake, Uploads


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


def test_a_bundle_can_be_uploaded_and_is_removed_when_nobody_uses_it(tmp_path: Path, scratch: Path) -> None:
    bundle = pack(made(tmp_path / "art").root, tmp_path / "a.npuart")
    uploads = Uploads(scratch)
    folder = uploads.take("m", {"file:3.npuart": bundle.read_bytes()})
    path = folder.versions["3"].artifacts[0].path
    uploads.keep([path])
    assert path.read_bytes() == bundle.read_bytes()
    uploads.keep([])
    assert not path.exists()
    uploads.close()
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize(
    "key",
    [
        "file:../x",
        "file:/etc/passwd",
        "file:1/../../x",
        "file:1//x",
        "file:1/.x",
        "file:1/a\x00b",
        "file:v1/x",
        "file:",
        "file:1/",
        "file:1/" + "a/" * 8 + "b",
        "file:1/" + "a" * 129,
        "file:1/ä",
    ],
)
def test_a_name_that_could_reach_elsewhere_is_refused_before_anything_is_written(key: str, scratch: Path) -> None:
    with pytest.raises(OptionError, match="no name"):
        Uploads(scratch).take("m", {"file:1/fine": b"", key: b"x"})
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("name", ["", "..", "a/b", "../m", ".m"])
def test_so_is_a_name_of_a_model(name: str, scratch: Path) -> None:
    with pytest.raises(OptionError, match="no name"):
        Uploads(scratch).take(name, {"file:1/fine": b""})
    assert list(scratch.iterdir()) == []


@given(key=st.text(max_size=20))
def test_whatever_the_name_only_the_own_folder_is_written(key: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "root"
        root.mkdir()
        uploads = Uploads(root)
        with pytest.raises(OptionError):
            uploads.take("m", {"file:" + key: b"x"})
        assert [path.name for path in Path(name).iterdir()] == ["root"]
        uploads.close()
        assert list(root.iterdir()) == []


@pytest.mark.parametrize("value", ["no base64!", "ä", 3, None, base64.b64encode(b"abc").decode() + "\n="])
def test_what_is_no_base64_is_refused(value: object, scratch: Path) -> None:
    with pytest.raises(OptionError, match="base64"):
        Uploads(scratch).take("m", {"file:1/x": value})


def test_a_file_that_would_be_a_folder_too_is_refused(scratch: Path) -> None:
    with pytest.raises(OptionError, match="a file and a folder"):
        Uploads(scratch).take("m", {"file:1/a": b"", "file:1/a/b": b""})
    assert list(scratch.iterdir()) == []


def test_what_one_request_brings_is_not_forgotten_by_another_one(tmp_path: Path, scratch: Path) -> None:
    bundle = pack(made(tmp_path / "art").root, tmp_path / "a.npuart").read_bytes()

    async def story() -> None:
        used: list[Path] = []
        intake = Intake(Uploads(scratch), lambda: used)
        async with intake.taken("m", {"file:1.npuart": bundle}) as first:
            assert first is not None
            async with intake.taken("n", {"file:1.npuart": bundle}):
                pass
            await intake.forget()
            path = first.versions["1"].artifacts[0].path
            assert path.exists()
            assert len(list(scratch.iterdir())) == 1
            used.append(path)
        assert path.exists()
        await intake.close()
        assert list(scratch.iterdir()) == []

    asyncio.run(story())


def test_files_that_are_no_artifact_leave_nothing_behind_and_tell_no_path_of_ours(scratch: Path) -> None:
    uploads = Uploads(scratch)
    with pytest.raises(OptionError, match="uploaded files") as caught:
        uploads.take("m", {"file:1/manifest.json": b"{}"})
    assert str(scratch) not in caught.value.message
    uploads.close()
    assert list(scratch.iterdir()) == []
