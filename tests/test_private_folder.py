from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from npuops.private_folder import PREFIX, private_folder

HOLDER = """
import sys
from npuops.private_folder import private_folder
with private_folder() as folder:
    (folder / "request").write_text("x")
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The place for temporary files, here and in what a test starts."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def holder() -> tuple[subprocess.Popen[str], Path]:
    """Another process with a folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_it_is_for_this_user_alone_and_goes_with_all_that_is_in_it(place: Path) -> None:
    with private_folder() as folder:
        assert folder.parent == place
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "below").mkdir()
        (folder / "below" / "file").write_text("x")
    assert list(place.iterdir()) == []


def test_what_a_killed_process_left_is_removed_by_whoever_is_next(place: Path) -> None:
    process, left = holder()
    with process:
        process.kill()
    assert (left / "request").exists()
    with private_folder() as folder:
        assert list(place.iterdir()) == [folder]


def test_the_folder_of_a_process_at_work_stays(place: Path) -> None:
    process, held = holder()
    with process:
        with private_folder():
            assert (held / "request").exists()
        process.communicate("")
    assert process.returncode == 0
    assert list(place.iterdir()) == []


def test_the_folder_of_another_thread_stays() -> None:
    with private_folder() as outer, private_folder() as inner:
        assert outer.is_dir()
        assert inner.is_dir()


def test_what_has_only_the_name_of_one_stays(place: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    precious = tmp_path_factory.mktemp("precious")
    (precious / "file").write_text("x")
    (place / f"{PREFIX}link").symlink_to(precious)
    (place / f"{PREFIX}file").write_text("x")
    (place / "npuops-other").mkdir()
    with private_folder():
        pass
    assert {entry.name for entry in place.iterdir()} == {f"{PREFIX}link", f"{PREFIX}file", "npuops-other"}
    assert (precious / "file").exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make what belongs to somebody else")
def test_what_belongs_to_somebody_else_stays(place: Path) -> None:
    strange = place / f"{PREFIX}strange"
    strange.mkdir()
    os.chown(strange, 12345, 12345)
    with private_folder():
        assert strange.is_dir()


def test_many_that_begin_at_once_take_nothing_from_each_other() -> None:
    missing: list[Path] = []

    def work() -> None:
        for _ in range(50):
            with private_folder() as folder:
                if not folder.is_dir():
                    missing.append(folder)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert missing == []


def test_without_a_place_it_is_an_error_of_the_system(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(place / "absent"))
    with pytest.raises(FileNotFoundError), private_folder():
        pass


def test_a_fork_that_ends_leaves_its_parents_folder_alone() -> None:
    with ExitStack() as stack:
        folder = stack.enter_context(private_folder())
        if not (pid := os.fork()):
            stack.close()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert folder.is_dir()
    assert not folder.exists()
