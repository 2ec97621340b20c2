from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from made_artifact import made
from npuops.artifacts.bundle import pack
from npuops.errors import ArtifactError, DataError, StorageError, UsageError
from npuops.models.model import TensorInfo
from npuops.server.model_options import ModelOptions, QueueOptions
from npuops.server.repository_layout import MODEL_NAME, Layout, Scanner, settled

MEMORY = Path("/dev/shm")  # noqa: S108 - another file system than that of `tmp_path`


def tensors(rows: int, *, name: str = "x") -> dict[str, Any]:
    return {
        "inputs": (TensorInfo(name=name, dtype="float32", shape=(rows, 3)),),
        "outputs": (TensorInfo(name="y", dtype="float32", shape=(rows, 2)),),
    }


def put(path: Path, *, rows: int = 1, **changes: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return made(path, **{**tensors(rows), **changes}).root


def scan(root: Path) -> Layout:
    return Scanner(root).scan()


def seen(layout: Layout) -> dict[str, list[str]]:
    return {name: sorted(folder.versions) for name, folder in layout.models.items()}


def reasons(layout: Layout) -> dict[tuple[str, str], str]:
    return {(item.model, item.version): item.reason for item in layout.problems}


def test_models_and_versions_are_found_in_every_form(tmp_path: Path) -> None:
    put(tmp_path / "a/1")
    put(tmp_path / "a/2/small")
    put(tmp_path / "a/2/large", rows=4)
    put(tmp_path / "flat")
    pack(tmp_path / "flat", tmp_path / "b.npuart")
    pack(tmp_path / "flat", tmp_path / "a" / "3.npuart")
    pack(tmp_path / "flat", tmp_path / "a" / "2" / "bundled.npuart")
    (tmp_path / "a" / "2" / "README").write_text("not ours")
    (tmp_path / ".git").mkdir()
    (tmp_path / "notes.txt").write_text("not ours")
    (tmp_path / "a" / "model.toml").write_text("[queue]\nmax_requests = 5\n")
    layout = scan(tmp_path)
    assert layout.problems == ()
    assert seen(layout) == {"a": ["1", "2", "3"], "b": ["1"], "flat": ["1"]}
    assert [item.name for item in layout.models["a"].versions["2"].artifacts] == ["bundled", "large", "small"]
    assert layout.models["a"].options == ModelOptions(queue=QueueOptions(max_requests=5))


def test_a_single_artifact_is_a_model_by_the_name_in_its_manifest(tmp_path: Path) -> None:
    folder = put(tmp_path / "art")
    assert seen(scan(folder)) == {"art": ["1"]}, "mödel.onnx is no name for a model, so it is the folder's"
    bundle = pack(folder, tmp_path / "my net.npuart")
    assert seen(scan(bundle)) == {"model": ["1"]}


def test_nothing_and_something_broken_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing at"):
        Scanner(tmp_path / "none")
    folder = put(tmp_path / "art")
    scanner = Scanner(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match="no manifest"):
        scanner.scan()
    assert seen(scan(tmp_path)) == {"art": []}, "looked at as a repository, it has a model without versions"


def bad_manifest(path: Path) -> None:
    (put(path) / "manifest.json").write_text("{}")


def short_file(path: Path) -> None:
    with (put(path) / "quantized.onnx").open("r+b") as file:
        file.truncate(10)


def missing_file(path: Path) -> None:
    (put(path) / "quantized.onnx").unlink()


def linked_file(path: Path) -> None:
    target = put(path) / "quantized.onnx"
    target.rename(path.parent / "elsewhere")
    target.symlink_to(path.parent / "elsewhere")


def contradicting(path: Path) -> None:
    put(path / "one")
    put(path / "two", **tensors(1, name="z"))


def half_bundle(path: Path) -> None:
    folder = put(path.parent.parent / ".scratch")
    bundle = pack(folder, path / "x.npuart") if path.mkdir(parents=True) is None else None
    assert bundle is not None
    bundle.write_bytes(bundle.read_bytes()[:-30])


def fifo_for_manifest(path: Path) -> None:
    path.mkdir(parents=True)
    os.mkfifo(path / "manifest.json")


def outside(path: Path) -> None:
    target = put(path.parent.parent.parent / "secret")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def outside_below(path: Path) -> None:
    put(path / "fine")
    (path / "linked").symlink_to(put(path.parent.parent.parent / "secret"))


def circle(path: Path) -> None:
    path.mkdir(parents=True)
    (path / "loop.npuart").symlink_to(path / "loop.npuart")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (bad_manifest, "manifest"),
        (short_file, "10 of 300 bytes"),
        (missing_file, "is missing"),
        (linked_file, "not a regular file"),
        (contradicting, "contradict"),
        (half_bundle, "end is missing"),
        (fifo_for_manifest, "not a regular file"),
        (outside, "leads out of the repository"),
        (outside_below, "leads out of the repository"),
        (circle, "link to nothing"),
        (lambda path: path.mkdir(parents=True), "no manifest.json"),
        (lambda path: (path / "x").mkdir(parents=True), "no manifest.json"),
    ],
)
def test_a_broken_version_is_reported_with_its_reason_and_hides_no_other(
    tmp_path: Path, spoil: Any, words: str
) -> None:
    root = tmp_path / "repo"
    put(root / "a/1")
    put(root / "b/1")
    spoil(root / "a/2")
    layout = scan(root)
    assert seen(layout) == {"a": ["1"], "b": ["1"]}
    assert list(reasons(layout)) == [("a", "2")]
    assert words in reasons(layout)["a", "2"]


@pytest.mark.parametrize("name", ["-a", "_a", "a b", "ä", "a" * 129, "a\n", "a\u202e", b"\xff\xfe", "a%2f", "a\\b"])
def test_an_odd_name_is_reported_and_can_be_written_as_json(tmp_path: Path, name: str | bytes) -> None:
    put(tmp_path / "good/1")
    os.mkdir(os.path.join(os.fsencode(tmp_path), name if isinstance(name, bytes) else name.encode()))  # noqa: PTH102, PTH118
    layout = scan(tmp_path)
    assert seen(layout) == {"good": ["1"]}
    (problem,) = layout.problems
    assert "no name for a model" in problem.reason
    for text in (problem.model, problem.reason, problem.advice):
        text.encode()


@pytest.mark.parametrize("name", ["01", "v1", "1.0", "-1", "latest", "9" * 19])
def test_a_version_that_is_no_whole_number_is_reported(tmp_path: Path, name: str) -> None:
    put(tmp_path / "a" / name)
    put(tmp_path / "a/1")
    layout = scan(tmp_path)
    assert seen(layout) == {"a": ["1"]}
    assert "no version of 'a'" in reasons(layout)["a", name]


def test_two_forms_of_one_name_are_not_chosen_from_by_chance(tmp_path: Path) -> None:
    pack(put(tmp_path / "a/1"), tmp_path / "a/1.npuart")
    pack(tmp_path / "a/1", tmp_path / "a.npuart")
    found = reasons(scan(tmp_path))
    assert "two models" in found["a", ""]
    assert "two versions" in found["a", "1"]


def test_links_within_the_repository_are_followed(tmp_path: Path) -> None:
    put(tmp_path / ".data/build7")
    (tmp_path / "a").mkdir()
    (tmp_path / "a/1").symlink_to("../.data/build7")
    (tmp_path / ".data/model.toml").write_text("canary = [9]")
    (tmp_path / "a/model.toml").symlink_to("../.data/model.toml")
    layout = scan(tmp_path)
    assert layout.problems == ()
    assert layout.models["a"].options == ModelOptions(canary=("9",))


@pytest.mark.parametrize("target", ["nothing", "a" * 300, "2"])
def test_a_link_that_leads_nowhere_is_reported_and_hides_nothing_else(tmp_path: Path, target: str) -> None:
    put(tmp_path / "a/1")
    (tmp_path / "a/2").symlink_to(target)
    (tmp_path / "b").symlink_to(target if target != "2" else "b")
    layout = scan(tmp_path)
    assert set(layout.models) == {"a"}
    assert set(layout.models["a"].versions) == {"1"}
    assert set(reasons(layout)) == {("a", "2"), ("b", "")}


def test_a_file_systems_own_folder_is_no_model(tmp_path: Path) -> None:
    put(tmp_path / "a/1")
    (tmp_path / "lost+found").mkdir()
    assert scan(tmp_path).problems == ()


@pytest.mark.skipif(not MEMORY.is_dir(), reason="it takes two file systems")
def test_a_volume_that_is_not_mounted_any_more_is_not_taken_for_an_empty_repository(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as volume:
        put(Path(volume) / "a/1")
        root, mount_point = tmp_path / "repo", tmp_path / "mount_point"
        mount_point.mkdir()
        if mount_point.stat().st_dev == Path(volume).stat().st_dev:
            pytest.skip("it takes two file systems")
        root.symlink_to(volume)
        scanner = Scanner(root)
        assert set(scanner.scan().models) == {"a"}
        root.unlink()
        root.symlink_to(mount_point)
        with pytest.raises(StorageError, match="another file system"):
            scanner.scan()
        put(mount_point / "b/1")
        assert set(scanner.scan().models) == {"b"}


def test_options_outside_of_the_repository_are_not_read(tmp_path: Path) -> None:
    root = tmp_path / "repo"
    put(root / "a/1")
    (tmp_path / "secret").write_text("password")
    (root / "a/model.toml").symlink_to("../../secret")
    layout = scan(root)
    assert "leads out" in reasons(layout)["a", ""]
    assert layout.models["a"].options is None
    (root / "a/model.toml").unlink()
    (root / "a/model.toml").write_bytes(b"\xff")
    assert "not UTF-8" in reasons(scan(root))["a", ""]


def chain_of(*models: str) -> str:
    steps = "".join(f'[[step]]\nmodel = "{name}"\ninputs = {{}}\noutputs = {{}}\n' for name in models)
    return f'inputs = ["a"]\noutputs = ["b"]\n{steps}'


def test_a_chain_is_a_model_with_one_version_and_no_artifact(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c/chain.toml").write_text(chain_of("x", "y", "x"))
    layout = scan(tmp_path)
    assert layout.problems == ()
    assert list(layout.models["c"].versions) == ["1"]
    assert layout.models["c"].versions["1"].artifacts == ()
    assert layout.models["c"].members == ("x", "y")


def test_a_file_that_is_no_chain_and_chains_that_need_each_other_are_reported(tmp_path: Path) -> None:
    for name, text in {"wrong": "[[step]]\n", "a": chain_of("b"), "b": chain_of("a"), "c": chain_of("b")}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "chain.toml").write_text(text)
    found = reasons(scan(tmp_path))
    assert "`model`" in found["wrong", "1"]
    assert "a → b → a" in found["a", "1"]
    assert "b → a → b" in found["b", "1"]
    assert "b → a → b" in found["c", "1"]


def test_a_chain_has_options_of_its_own_and_no_versions_beside_it(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c/chain.toml").write_text(chain_of("x"))
    (tmp_path / "c/model.toml").write_text("[queue]\nmax_requests = 7\n")
    assert scan(tmp_path).models["c"].options == ModelOptions(queue=QueueOptions(max_requests=7))
    put(tmp_path / "c/2")
    layout = scan(tmp_path)
    assert "chain.toml and a version '2'" in reasons(layout)["c", "1"]
    assert layout.models["c"].versions == {}


def test_a_chain_file_that_changed_is_left_for_the_next_look(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c/chain.toml").write_text(chain_of("x"))
    before = scan(tmp_path)
    (tmp_path / "c/chain.toml").write_text(chain_of("y"))
    now = scan(tmp_path)
    assert settled(now, before).models["c"].versions == {}
    assert settled(now, now).models["c"].members == ("y",)


def test_a_chain_outside_of_the_repository_is_not_read(tmp_path: Path) -> None:
    root = tmp_path / "repo"
    (root / "c").mkdir(parents=True)
    (tmp_path / "elsewhere.toml").write_text(chain_of("x"))
    (root / "c/chain.toml").symlink_to("../../elsewhere.toml")
    assert "leads out" in reasons(scan(root))["c", "1"]


def test_a_model_without_versions_says_what_to_put_there(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (problem,) = scan(tmp_path).problems
    assert "no version" in problem.reason
    assert "a/1/" in problem.advice


def test_a_version_whose_tensors_no_protocol_carries_is_reported(tmp_path: Path) -> None:
    put(tmp_path / "a/1", inputs=(TensorInfo(name="x", dtype="int4", shape=(1,)),))
    assert "int4" in reasons(scan(tmp_path))["a", "1"]
    with pytest.raises(DataError, match="int4"):
        scan(tmp_path / "a/1")


def test_a_repository_that_cannot_be_read_is_an_error_and_not_empty(tmp_path: Path) -> None:
    root = tmp_path / "repo"
    put(root / "a/1")
    scanner = Scanner(root)
    shutil.rmtree(root)
    with pytest.raises(StorageError):
        scanner.scan()


def test_a_manifest_is_decoded_once_until_its_file_changes(tmp_path: Path) -> None:
    put(tmp_path / "a/1")
    scanner = Scanner(tmp_path)
    first, second = (scanner.scan().models["a"].versions["1"].artifacts[0].manifest for _ in range(2))
    assert first is second
    shutil.rmtree(tmp_path / "a/1")
    put(tmp_path / "a/1", precision="fp32")
    assert scanner.scan().models["a"].versions["1"].artifacts[0].manifest.precision == "fp32"


def test_what_moved_between_two_looks_is_left_out_and_named(tmp_path: Path) -> None:
    put(tmp_path / "a/1")
    put(tmp_path / "b/1")
    scanner = Scanner(tmp_path)
    before = scanner.scan()
    put(tmp_path / "a/2")
    put(tmp_path / "c/1")
    (tmp_path / "b/model.toml").write_text("canary = [2]")
    (tmp_path / "b/1/quantized.onnx").touch()
    now = scanner.scan()
    still = settled(now, before)
    assert seen(still) == {"a": ["1"], "b": [], "c": []}
    assert still.models["b"].options is None
    assert sorted(reasons(still)) == [("a", "2"), ("b", ""), ("b", "1"), ("c", "1")]
    assert seen(settled(now, before, trust=["a"]))["a"] == ["1", "2"]
    assert settled(now, now).problems == ()
    assert seen(settled(scanner.scan(), now)) == {"a": ["1", "2"], "b": ["1"], "c": ["1"]}


def test_what_vanished_between_two_looks_is_held_for_one_more(tmp_path: Path) -> None:
    put(tmp_path / "a/1")
    put(tmp_path / "a/2")
    put(tmp_path / "b/1")
    scanner = Scanner(tmp_path)
    before = scanner.scan()
    shutil.rmtree(tmp_path / "a/2")
    shutil.rmtree(tmp_path / "b")
    now = scanner.scan()
    assert seen(settled(now, before)) == {"a": ["1"], "b": []}
    assert sorted(reasons(settled(now, before))) == [("a", "2"), ("b", "1")]
    assert settled(now, before, trust=["a", "b"]) == now
    assert settled(now, now) == now


@given(name=st.text(max_size=12))
def test_a_name_that_is_taken_is_one_safe_part_of_a_path(name: str) -> None:
    if MODEL_NAME.fullmatch(name):
        assert name.isascii()
        assert name == os.path.basename(name)  # noqa: PTH119
        assert name not in {"", ".", ".."}
        assert "\n" not in name
