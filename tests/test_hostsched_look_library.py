"""The library is used where it may be; where it may not, Python looks, and says why."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hostsched_readers import the_library
from npuops.errors import StorageError
from npuops.hostsched.capabilities import probe
from npuops.hostsched.look_library import SOURCE, VARIABLE, load, reader_in, usual_reader

REPORT = (
    "import sys; from pathlib import Path; from npuops.hostsched.look_library import reader_in\n"
    "print(reader_in(Path(sys.argv[1])).words)"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of a library that was just made."""
    the_library()
    found = reader_in(tmp_path)
    assert found.library is not None
    made = SOURCE.compiled(tmp_path)
    assert found.words == f"C, {made}"
    return made


def test_it_is_compiled_once_by_however_many_at_once(tmp_path: Path) -> None:
    the_library()
    command = (sys.executable, "-c", REPORT, str(tmp_path))
    with ThreadPoolExecutor(4) as pool:
        told = set(
            pool.map(lambda _: subprocess.run(command, capture_output=True, text=True, check=True).stdout, range(4))
        )
    assert len(told) == 1
    assert told.pop().startswith("C, ")
    assert len([each for each in tmp_path.rglob("*") if each.is_file()]) == 1
    before = SOURCE.compiled(tmp_path).stat().st_mtime_ns
    assert reader_in(tmp_path).library is not None
    assert SOURCE.compiled(tmp_path).stat().st_mtime_ns == before


def test_python_looks_where_somebody_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "python")
    found = usual_reader()
    assert found.library is None
    assert VARIABLE in found.words


def test_python_looks_where_nothing_can_be_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = reader_in(tmp_path)
    assert found.library is None
    assert "no C compiler" in found.words
    (tmp_path / "file").write_text("")
    monkeypatch.undo()
    assert reader_in(tmp_path / "file").library is None


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777])
def test_what_others_may_write_is_not_let_in(path: Path, mode: int) -> None:
    path.chmod(mode)
    with pytest.raises(StorageError, match="somebody else's"):
        load(path)
    found = reader_in(path.parent.parent)
    assert found.library is None
    assert "somebody else's" in found.words


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_what_is_of_another_user_is_not_let_in(path: Path) -> None:
    os.chown(path, 65534, 65534)
    with pytest.raises(StorageError, match="somebody else's"):
        load(path)


def test_a_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(StorageError, match="cannot be opened"):
        load(link)


@pytest.mark.parametrize("content", [b"", b"no library", b"\x7fELF" + bytes(900)])
def test_what_is_no_library_is_told(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)
    path.chmod(0o755)
    found = reader_in(path.parent.parent)
    assert found.library is None
    assert "cannot be mapped" in found.words


def test_another_library_is_not_taken_for_ours(path: Path, tmp_path: Path) -> None:
    (tmp_path / "other.c").write_text("int other(void) { return 1; }\n")
    compiler = shutil.which("cc") or shutil.which("gcc") or "clang"
    subprocess.run((compiler, "-shared", "-fPIC", "-o", "other.so", "other.c"), cwd=tmp_path, check=True)
    (tmp_path / "other.so").chmod(0o755)
    assert load(path)
    with pytest.raises(StorageError, match="cannot be mapped"):
        load(tmp_path / "other.so")


def test_whoever_probes_learns_who_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "python")
    found = probe()["reader"]
    assert not found.usable
    assert VARIABLE in found.found
