from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from made_artifact import made, mounted, open_to_all
from npuops.artifacts.folder import open_artifact
from npuops.artifacts.store import DirectoryStore, default_root
from npuops.errors import IntegrityError, StorageError
from npuops.events import Warned
from npuops.testing import EventLog

PRELUDE = """
import os, pathlib, signal, sys
from npuops.artifacts.store import DirectoryStore
from npuops.errors import StorageError
root, source = map(pathlib.Path, sys.argv[1:3])
"""


@pytest.fixture
def public_folder() -> Iterator[Path]:
    with open_to_all() as folder:
        yield folder


def python(code: str, *arguments: object) -> str:
    command = [sys.executable, "-c", PRELUDE + code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def warnings(log: EventLog) -> list[str]:
    return [event.message for event in log.of(Warned)]


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store")


def test_what_was_put_is_got_and_nothing_else(tmp_path: Path, store: DirectoryStore):
    artifact = made(tmp_path / "a")
    assert store.get("k1") is None
    put = store.put("k1", artifact.root)
    got = store.get("k1")
    assert got is not None
    assert put.manifest == got.manifest == artifact.manifest
    assert got.entry.read_bytes() == artifact.entry.read_bytes()
    assert store.get("k2") is None


def test_the_store_keeps_a_copy_of_its_own(tmp_path: Path, store: DirectoryStore):
    store.put("k1", made(tmp_path / "a").root)
    shutil.rmtree(tmp_path / "a")
    got = store.get("k1")
    assert got is not None
    open_artifact(got.root)


def test_the_first_one_wins(tmp_path: Path, store: DirectoryStore):
    first = store.put("k1", made(tmp_path / "a", seed=1).root)
    second = store.put("k1", made(tmp_path / "b", seed=2).root)
    assert second.manifest.digest == first.manifest.digest
    assert [entry.digest for entry in store.list()] == [first.manifest.digest]


def test_any_text_is_a_key(tmp_path: Path, store: DirectoryStore):
    made(tmp_path / "a")
    for key in ("../../etc", "", "x" * 5000, "ü/\0\n"):
        store.put(key, tmp_path / "a")
        assert store.get(key) is not None
    assert {entry.key for entry in store.list()} == {"../../etc", "", "x" * 5000, "ü/\0\n"}


def test_a_damaged_folder_is_not_stored(tmp_path: Path, store: DirectoryStore):
    artifact = made(tmp_path / "a")
    artifact.entry.write_bytes(b"?" * 300)
    with pytest.raises(IntegrityError):
        store.put("k1", artifact.root)
    assert store.list() == ()


def test_the_list_has_the_last_used_first(tmp_path: Path, store: DirectoryStore):
    made(tmp_path / "a")
    for key in ("k1", "k2", "k3"):
        store.put(key, tmp_path / "a")
    store.get("k1")
    assert [entry.key for entry in store.list()] == ["k1", "k3", "k2"]
    assert all(entry.bytes > 900 for entry in store.list())


def test_a_lock_that_is_held_is_waited_for_and_then_given_up(store: DirectoryStore):
    with store.lock("k1"):
        with store.lock("k2"):
            pass
        with pytest.raises(StorageError, match="longer than 0 s"), store.lock("k1", timeout_s=0):
            pass
    with store.lock("k1", timeout_s=0):
        pass


def place(root: Path) -> Path:
    (only,) = (root / "entries").iterdir()
    return only


@pytest.mark.parametrize("name", ["artifact/model_ctx.onnx", "artifact/manifest.json", "entry.json"])
@pytest.mark.parametrize("damage", ["flip", "empty", "missing"])
def test_a_damaged_entry_is_a_miss_with_a_warning_and_is_kept_for_a_look(tmp_path: Path, name: str, damage: str):
    log = EventLog()
    store = DirectoryStore(tmp_path / "store", observe=log)
    artifact = made(tmp_path / "a")
    store.put("k1", artifact.root)
    path = place(store.root) / name
    data = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(bytes([data[0] ^ 1]) + data[1:] if damage == "flip" else b"")
    assert store.get("k1") is None
    assert ["damaged" in message for message in warnings(log)] == [True]
    assert len(list((store.root / "quarantine").iterdir())) == 1
    store.put("k1", artifact.root)
    assert store.get("k1") is not None


def test_put_takes_the_place_of_a_damaged_entry(tmp_path: Path):
    log = EventLog()
    store = DirectoryStore(tmp_path / "store", observe=log)
    artifact = made(tmp_path / "a")
    store.put("k1", artifact.root)
    (place(store.root) / "artifact" / "quantized.onnx").write_bytes(b"!" * 300)
    store.put("k1", artifact.root)
    assert store.get("k1") is not None
    assert len(warnings(log)) == 1


def test_the_entry_of_another_key_is_not_taken(tmp_path: Path):
    store = DirectoryStore(tmp_path / "store")
    store.put("k1", made(tmp_path / "a", seed=1).root)
    one = place(store.root)
    store.put("k2", made(tmp_path / "b", seed=2).root)
    (two,) = set((store.root / "entries").iterdir()) - {one}
    shutil.rmtree(one)
    shutil.copytree(two, one)
    assert store.get("k1") is None
    assert store.get("k2") is not None


def test_a_process_killed_at_any_step_of_put_leaves_nothing_visible_and_is_swept_up(tmp_path: Path):
    """The child counts the file operations of a put, and kills itself at the n-th; each n has its own store."""
    made(tmp_path / "a")
    code = """
COUNTED = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "fcntl.flock", "shutil.copyfile"}
for step in range(1, 400):
    pid = os.fork()
    if pid == 0:
        left = step
        def count(event, _):
            global left
            if event in COUNTED:
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(count)
        DirectoryStore(root / str(step)).put("k1", source)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    print(step, status)
    if status == 0:
        break
"""
    steps = [line.split() for line in python(code, tmp_path, tmp_path / "a").splitlines()]
    assert [status for _, status in steps] == ["9"] * (len(steps) - 1) + ["0"]
    assert len(steps) > 30
    for step, _ in steps:
        log = EventLog()
        store = DirectoryStore(tmp_path / step, observe=log)
        found = store.get("k1")
        assert (found is not None) == (store.list() != ())
        store.put("k2", tmp_path / "a")
        assert list((store.root / "incoming").iterdir()) == []
        assert warnings(log) == []
        store.put("k1", tmp_path / "a")
        assert store.get("k1") is not None
    assert found is not None


def test_of_many_processes_that_put_at_once_one_wins_and_all_get_the_same(tmp_path: Path):
    for number in range(6):
        made(tmp_path / "sources" / str(number), seed=number, size=20_000)
    code = """
read_end, write_end = os.pipe()
for number in range(6):
    if os.fork() == 0:
        os.close(write_end)
        os.read(read_end, 1)
        won = DirectoryStore(root).put("k1", source / str(number))
        os.write(1, (won.manifest.digest + "\\n").encode())
        os._exit(0)
os.close(write_end)
for number in range(6):
    _, status = os.wait()
    assert status == 0
"""
    digests = python(code, tmp_path / "store", tmp_path / "sources").split()
    assert len(digests) == 6
    assert len(set(digests)) == 1
    store = DirectoryStore(tmp_path / "store")
    assert [entry.digest for entry in store.list()] == digests[:1]
    assert list((store.root / "incoming").iterdir()) == []
    assert list((store.root / "locks").iterdir()) == []


def test_of_many_processes_that_want_the_same_thing_only_one_builds_it(tmp_path: Path):
    made(tmp_path / "a")
    code = """
for number in range(5):
    if os.fork() == 0:
        store = DirectoryStore(root)
        with store.lock("k1", timeout_s=60):
            if store.get("k1") is None:
                os.write(1, b"built\\n")
                store.put("k1", source)
        os._exit(0)
for number in range(5):
    _, status = os.wait()
    assert status == 0
"""
    assert python(code, tmp_path / "store", tmp_path / "a") == "built\n"


def test_prune_removes_what_was_used_longest_ago_until_the_rest_fits(tmp_path: Path):
    store = DirectoryStore(tmp_path / "store")
    made(tmp_path / "a")
    for key in ("k1", "k2", "k3"):
        store.put(key, tmp_path / "a")
    store.get("k1")
    each = store.list()[0].bytes
    assert store.prune(each * 3) == ()
    assert [entry.key for entry in store.prune(each * 2)] == ["k2"]
    assert {entry.key for entry in store.list()} == {"k1", "k3"}
    assert [entry.key for entry in store.prune(0)] == ["k3", "k1"]
    assert list((store.root / "entries").iterdir()) == []


def test_prune_leaves_what_somebody_is_working_with(tmp_path: Path):
    store = DirectoryStore(tmp_path / "store")
    made(tmp_path / "a")
    store.put("k1", tmp_path / "a")
    store.put("k2", tmp_path / "a")
    with store.lock("k1"):
        assert [entry.key for entry in store.prune(0)] == ["k2"]
        assert store.get("k1") is not None


def test_prune_also_removes_damaged_entries_and_what_was_set_aside(tmp_path: Path):
    store = DirectoryStore(tmp_path / "store")
    made(tmp_path / "a")
    store.put("k1", tmp_path / "a")
    (place(store.root) / "entry.json").unlink()
    assert store.get("k1") is None
    store.put("k1", tmp_path / "a")
    (place(store.root) / "entry.json").write_bytes(b"garbage")
    store.prune(0)
    assert [list((store.root / name).iterdir()) for name in ("entries", "quarantine")] == [[], []]


def test_a_limit_on_file_sizes_is_told_like_a_full_disk_and_nothing_stays(tmp_path: Path):
    made(tmp_path / "a", size=50_000)
    code = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
try:
    DirectoryStore(root).put("k1", source)
except StorageError as error:
    print(error.message)
"""
    words = python(code, tmp_path / "store", tmp_path / "a")
    assert "File too large" in words
    assert "150000 bytes are needed" in words
    assert list((tmp_path / "store" / "incoming").iterdir()) == []
    assert DirectoryStore(tmp_path / "store").get("k1") is None


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "disk", kib=128) as folder:
        yield folder


def test_a_full_disk_is_told_with_the_bytes_needed_and_what_is_free(tmp_path: Path, small_disk: Path):
    store = DirectoryStore(small_disk / "store")
    store.put("small", made(tmp_path / "small").root)
    big = made(tmp_path / "big", size=60_000)
    with pytest.raises(StorageError, match=r"No space left on device; 180000 bytes are needed, .* free") as caught:
        store.put("big", big.root)
    assert "free space" in caught.value.advice
    assert store.get("big") is None
    assert store.get("small") is not None
    assert list((store.root / "incoming").iterdir()) == []


def test_no_permission_is_a_storage_error_with_the_path(tmp_path: Path, public_folder: Path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="Not a directory"):
        DirectoryStore(tmp_path / "file" / "store").put("k1", made(tmp_path / "a").root)
    forbidden = "/root/store" if os.geteuid() == 0 else "/proc/1/cwd/store"
    source = made(public_folder / "a").root
    code = """
if os.geteuid() == 0:
    os.seteuid(65534)  # root may write everywhere
store = DirectoryStore(root)
for use in (store.list, lambda: store.get("k1"), lambda: store.put("k1", source), lambda: store.prune(0)):
    try:
        use()
    except StorageError as error:
        print(error.message, error.advice)
"""
    words = python(code, forbidden, source)
    assert words.count("Permission denied") == 4


@pytest.mark.parametrize(
    ("environment", "root"),
    [
        ({"NPUOPS_CACHE": "/a", "XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/a"),
        ({"XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/b/npuops"),
        ({"XDG_CACHE_HOME": "relative", "HOME": "/c"}, "/c/.cache/npuops"),
        ({"HOME": "/c"}, "/c/.cache/npuops"),
    ],
)
def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], root: str):
    for name in ("NPUOPS_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert default_root() == Path(root)
    assert DirectoryStore().root == Path(root)
