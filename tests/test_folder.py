from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from made_artifact import FILES, made, manifest, open_to_all
from npuops.artifacts.bundle import pack
from npuops.artifacts.encoding import canonical_json
from npuops.artifacts.folder import open_artifact, opened, write_artifact
from npuops.artifacts.keys import Algorithm, new_key, write_key
from npuops.artifacts.manifest import FileRecord, Role
from npuops.artifacts.signature import TrustPolicy, sign
from npuops.errors import ArtifactError, IntegrityError, SignatureError, StorageError, UsageError


@pytest.fixture
def public_folder() -> Iterator[Path]:
    with open_to_all() as folder:
        yield folder


def flip(path: Path, index: int) -> None:
    data = bytearray(path.read_bytes())
    data[index] ^= 1 << (index % 8)
    path.write_bytes(data)


def test_what_was_written_opens_with_digests_and_sizes_filled_in(tmp_path: Path):
    written = made(tmp_path)
    artifact = open_artifact(tmp_path)
    assert canonical_json(artifact.manifest) == canonical_json(written.manifest)
    assert artifact.entry == tmp_path / "model_ctx.onnx"
    assert artifact.file(Role.REPORT) == tmp_path / "report" / "index.html"
    assert [record.bytes for record in artifact.manifest.files] == [300, 300, 300]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FILES, "manifest.json", "signature.dsse.json"])
def test_one_flipped_bit_anywhere_refuses_and_names_the_file(tmp_path: Path, name: str):
    artifact = made(tmp_path)
    sign(artifact, new_key(Algorithm.ED25519))
    path = tmp_path / name
    whole = path.read_bytes()
    for index in range(len(whole)):
        flip(path, index)
        with pytest.raises(ArtifactError) as caught:
            open_artifact(tmp_path)
        assert path.name in caught.value.message
        path.write_bytes(whole)
    open_artifact(tmp_path)


@pytest.mark.parametrize("name", [*FILES, "manifest.json", "signature.dsse.json"])
def test_a_file_that_is_cut_off_or_longer_is_refused(tmp_path: Path, name: str):
    sign(made(tmp_path), new_key(Algorithm.ECDSA_P256))
    whole = (tmp_path / name).read_bytes()
    for other in (b"", whole[:-1], whole + b"\0", whole + b"\n"):
        (tmp_path / name).write_bytes(other)
        with pytest.raises(ArtifactError, match=name.rpartition("/")[2]):
            open_artifact(tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(tmp_path: Path, name: str):
    made(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(IntegrityError, match=f"'{name}' is missing"):
        open_artifact(tmp_path)


@pytest.mark.parametrize("name", ["extra.bin", "report/extra.css", ".manifest.json.part"])
def test_a_file_that_is_not_listed_is_refused(tmp_path: Path, name: str):
    made(tmp_path)
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(IntegrityError, match=f"'{name}' is not in the manifest"):
        open_artifact(tmp_path)


def test_an_empty_folder_inside_is_refused(tmp_path: Path):
    made(tmp_path)
    (tmp_path / "report" / "hidden").mkdir()
    with pytest.raises(IntegrityError, match="hidden"):
        open_artifact(tmp_path)


@pytest.mark.parametrize("name", ["model_ctx.onnx", "manifest.json", "signature.dsse.json", "report"])
def test_a_link_is_refused_even_where_its_target_is_right(tmp_path: Path, name: str):
    folder = tmp_path / "artifact"
    sign(made(folder), new_key(Algorithm.ED25519))
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match="link"):
        open_artifact(folder)


@pytest.mark.parametrize("name", ["model_ctx.onnx", "manifest.json", "signature.dsse.json"])
def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path: Path, name: str):
    sign(made(tmp_path), new_key(Algorithm.ED25519))
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(ArtifactError):
        open_artifact(tmp_path)


def test_a_folder_without_manifest_and_a_path_without_anything_are_told_apart(tmp_path: Path):
    with pytest.raises(IntegrityError, match=r"has no manifest\.json"):
        open_artifact(tmp_path)
    with pytest.raises(UsageError, match="no artifact at"):
        open_artifact(tmp_path / "nothing")


def test_sealing_refuses_unlisted_missing_and_special_files(tmp_path: Path):
    made(tmp_path)
    (tmp_path / "stray").write_bytes(b"")
    with pytest.raises(IntegrityError, match="stray"):
        write_artifact(tmp_path, manifest())
    (tmp_path / "stray").unlink()
    more = FileRecord(name="more.bin", role=Role.COMPILED, sha256="", bytes=0)
    with pytest.raises(IntegrityError, match=r"more\.bin"):
        write_artifact(tmp_path, manifest(files=(*manifest().files, more)))
    (tmp_path / "more.bin").symlink_to("/etc/hostname")
    with pytest.raises(IntegrityError, match="link"):
        write_artifact(tmp_path, manifest(files=(*manifest().files, more)))


def test_sealing_again_replaces_the_manifest_and_a_failed_try_keeps_the_old_one(tmp_path: Path):
    made(tmp_path)
    (tmp_path / ".manifest.json.part").write_bytes(b"of a killed process")
    newer = write_artifact(tmp_path, manifest(precision="a16w8"))
    assert open_artifact(tmp_path).manifest == newer.manifest
    with pytest.raises(ArtifactError):
        write_artifact(tmp_path, manifest(precision=3))
    assert open_artifact(tmp_path).manifest == newer.manifest


def test_a_signed_folder_is_not_sealed_again(tmp_path: Path):
    sign(made(tmp_path), new_key(Algorithm.ED25519))
    with pytest.raises(UsageError, match="signed"):
        write_artifact(tmp_path, manifest())


def test_the_policy_is_judged_before_anything_is_handed_out(tmp_path: Path):
    artifact = made(tmp_path / "artifact")
    key = new_key(Algorithm.ED25519)
    trust = TrustPolicy(require_signature=True, trusted_keys=(write_key(key, tmp_path / "key.pem"),))
    with pytest.raises(SignatureError, match="not signed"):
        open_artifact(artifact.root, require=trust)
    sign(artifact, key)
    assert open_artifact(artifact.root, require=trust).manifest == artifact.manifest


def test_a_bundle_opens_like_a_folder_and_its_scratch_folder_vanishes_with_the_block(tmp_path: Path):
    artifact = made(tmp_path / "artifact")
    bundle = pack(artifact.root, tmp_path / "a.npuart")
    with opened(bundle) as found:
        assert found.manifest == artifact.manifest
        assert found.entry.read_bytes() == artifact.entry.read_bytes()
    assert not found.root.exists()
    with opened(artifact.root) as found:
        pass
    assert found.entry.exists()


def test_a_bundle_opened_without_a_block_is_cleaned_up_at_the_end_of_the_process(tmp_path: Path):
    bundle = pack(made(tmp_path / "artifact").root, tmp_path / "a.npuart")
    code = "import sys, pathlib; from npuops.artifacts.folder import open_artifact\n"
    code += "entry = open_artifact(pathlib.Path(sys.argv[1])).entry; assert entry.exists(); print(entry)"
    done = subprocess.run([sys.executable, "-c", code, bundle], capture_output=True, text=True, check=True)
    assert not Path(done.stdout.strip()).parent.parent.exists()


def test_the_temporary_folder_of_a_refused_bundle_vanishes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    bundle = pack(made(tmp_path / "artifact").root, tmp_path / "a.npuart")
    whole = bundle.read_bytes()
    flip(bundle, 2000)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    with pytest.raises(IntegrityError, match=str(bundle)), opened(bundle):
        pass
    bundle.write_bytes(whole)
    trust = TrustPolicy(require_signature=True, trusted_keys=(write_key(new_key(Algorithm.ED25519), tmp_path / "k"),))
    with pytest.raises(SignatureError, match=f"{bundle} is not signed"), opened(bundle, require=trust):
        pass
    assert list(scratch.iterdir()) == []


def test_a_large_file_is_verified_in_a_stream(tmp_path: Path):
    artifact = made(tmp_path)
    os.truncate(artifact.entry, 64 * 1024 * 1024)
    write_artifact(tmp_path, manifest())
    tracemalloc.start()
    open_artifact(tmp_path)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 4 * 1024 * 1024


def test_a_file_that_cannot_be_read_is_a_storage_error(public_folder: Path):
    artifact = made(public_folder / "artifact")
    artifact.entry.chmod(0)
    code = """
import os, pathlib, sys
from npuops.artifacts.folder import open_artifact
from npuops.errors import StorageError
if os.geteuid() == 0:
    os.seteuid(65534)  # root reads everything
try:
    open_artifact(pathlib.Path(sys.argv[1]))
except StorageError as error:
    print(error.message, error.advice)
"""
    done = subprocess.run([sys.executable, "-c", code, artifact.root], capture_output=True, text=True, check=True)
    assert "Permission denied" in done.stdout
    assert "permissions" in done.stdout


def test_a_full_disk_is_told_with_the_bytes_that_are_needed(tmp_path: Path):
    artifact = made(tmp_path / "artifact", size=20_000)
    code = """
import pathlib, resource, sys
from npuops.artifacts.bundle import pack
from npuops.errors import StorageError
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
try:
    pack(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
except StorageError as error:
    print(error.message)
"""
    out = tmp_path / "out" / "a.npuart"
    out.parent.mkdir()
    done = subprocess.run([sys.executable, "-c", code, artifact.root, out], capture_output=True, text=True, check=True)
    assert "bytes are needed" in done.stdout
    assert list(out.parent.iterdir()) == []


def test_storage_errors_are_not_mistaken_for_damage(tmp_path: Path):
    with pytest.raises(StorageError):
        write_artifact(tmp_path / "absent", manifest())
