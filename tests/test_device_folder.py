from __future__ import annotations

import os
from pathlib import Path

import pytest

from npuops.errors import OptionError, StorageError, UsageError
from npuops.vnpu.device_folder import all_folders, claimed, device_folder, devices_home


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NPUOPS_DEVICES", str(tmp_path / "home"))
    return tmp_path / "home"


def test_the_home_is_private_and_a_foreign_one_is_refused(home: Path) -> None:
    assert devices_home() == home
    assert home.stat().st_mode & 0o777 == 0o700
    home.chmod(0o755)
    with pytest.raises(StorageError, match="belongs to you alone"):
        devices_home()
    home.rmdir()
    home.symlink_to(home.parent)
    with pytest.raises(StorageError, match="belongs to you alone"):
        devices_home()


def test_without_a_word_the_home_is_in_the_runtime_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NPUOPS_DEVICES", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert devices_home() == tmp_path / "npuops-devices"


@pytest.mark.parametrize("name", ["", "sys", "logs", "keys", "../x", "Npu0", "a" * 33, ".x", "a/b", "npu 0"])
def test_a_name_cannot_leave_the_home_or_take_its_own_folders(home: Path, name: str) -> None:
    with pytest.raises(OptionError, match="no name of a device"):
        device_folder(name)
    assert not home.exists() or not list(home.iterdir())


def test_a_name_is_held_as_long_as_the_block_and_then_nothing_is_left() -> None:
    folder = device_folder("npu0")
    with claimed(folder, profile="toy", pacing="fast") as number:
        record = folder.record()
        assert record is not None
        assert (number, record.pid, record.profile) == (0, os.getpid(), "toy")
        assert folder.is_up()
        assert folder.accel(0).is_dir()
        assert not folder.sweep(), "a live device is not swept up"
        with pytest.raises(UsageError, match="is up already"), claimed(folder, profile="toy", pacing="fast"):
            pass
        assert folder.is_up()
        with claimed(device_folder("npu1"), profile="toy", pacing="fast") as second:
            assert second == 1
            assert [each.name for each in all_folders()] == ["npu0", "npu1"]
    assert not folder.is_up()
    assert all_folders() == ()
    assert not folder.accel(0).exists()


def test_what_a_killed_daemon_left_is_recognised_and_replaced() -> None:
    folder = device_folder("npu0")
    child = os.fork()
    if child == 0:
        with claimed(folder, profile="old", pacing="fast"):
            folder.socket.write_bytes(b"")
            os._exit(0)  # as after SIGKILL: nothing is cleaned up
    os.waitpid(child, 0)
    assert folder.socket.exists()
    assert not folder.is_up()
    record = folder.record()
    assert record is not None
    assert record.pid == child
    with claimed(folder, profile="new", pacing="fast") as number:
        assert number == 0
        assert not folder.socket.exists()


def test_burying_keeps_the_record_and_sweeping_removes_it() -> None:
    folder = device_folder("npu0")
    child = os.fork()
    if child == 0:
        with claimed(folder, profile="old", pacing="fast"):
            folder.socket.write_bytes(b"")
            os._exit(0)
    os.waitpid(child, 0)
    folder.bury()
    assert folder.record() is not None
    assert not folder.socket.exists()
    assert not folder.accel(0).exists()
    assert folder.sweep()
    assert folder.record() is None
    assert not folder.root.exists()


def test_a_long_path_has_a_short_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NPUOPS_DEVICES", str(tmp_path / ("x" * 120)))
    folder = device_folder("npu0")
    folder.root.mkdir()
    folder.socket.write_text("here", encoding="utf-8")
    with folder.socket_address() as address:
        assert len(address) <= 107
        assert Path(address).read_text(encoding="utf-8") == "here"


def test_a_damaged_record_is_none() -> None:
    folder = device_folder("npu0")
    folder.root.mkdir()
    folder.record_file.write_bytes(b"{")
    assert folder.record() is None


def test_the_lock_tells_who_holds_it_whatever_the_record_says() -> None:
    folder = device_folder("npu0")
    assert folder.holder() is None
    assert folder.identity() is None
    with claimed(folder, profile="toy", pacing="fast"):
        folder.record_file.unlink()
        assert folder.holder() == os.getpid()
        folder.lock.write_text("nobody", encoding="ascii")
        with pytest.raises(StorageError, match="says 'nobody'"):
            folder.holder()
    assert folder.holder() is None


def test_a_claim_that_fails_leaves_neither_folder_nor_lock(home: Path) -> None:
    folder = device_folder("npu0")
    (home / "sys").write_bytes(b"where the tree should be")
    with pytest.raises(StorageError, match=r"device\.json"), claimed(folder, profile="toy", pacing="fast"):
        pass
    assert not folder.root.exists()
    (home / "sys").unlink()
    with claimed(folder, profile="toy", pacing="fast") as number:
        assert number == 0


def test_a_folder_that_was_replaced_meanwhile_is_not_removed(home: Path) -> None:
    folder = device_folder("npu0")
    with claimed(folder, profile="old", pacing="fast"):
        folder.root.rename(home / "away")
        folder.root.mkdir()
        folder.lock.touch()
    assert folder.lock.exists()


def test_a_file_where_a_device_should_be_is_no_device(home: Path) -> None:
    folder = device_folder("npu0")
    (home / "npu0").write_bytes(b"")
    assert folder.record() is None
    assert not folder.is_up()
    assert folder.holder() is None


def test_burying_one_that_had_not_said_who_it_is_leaves_nothing() -> None:
    folder = device_folder("npu0")
    folder.root.mkdir()
    folder.lock.touch()
    folder.bury()
    assert not folder.root.exists()
