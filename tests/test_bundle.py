from __future__ import annotations

import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from made_artifact import FILES, made
from npuops.artifacts.bundle import pack, peek, unpack
from npuops.artifacts.folder import open_artifact
from npuops.artifacts.keys import Algorithm, new_key
from npuops.artifacts.signature import sign
from npuops.errors import ArtifactError, IntegrityError, UsageError


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    artifact = made(tmp_path / "artifact", size=40)
    sign(artifact, new_key(Algorithm.ED25519))
    return pack(artifact.root, tmp_path / "a.npuart")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_bundle_unpacks_to_the_same_files_and_packs_to_the_same_bytes(tmp_path: Path, bundle: Path):
    artifact = unpack(bundle, tmp_path / "again")
    assert contents(artifact.root) == contents(tmp_path / "artifact")
    assert pack(artifact.root, tmp_path / "b.npuart").read_bytes() == bundle.read_bytes()
    assert open_artifact(artifact.root).manifest == artifact.manifest


@pytest.mark.slow
def test_one_flipped_bit_anywhere_in_the_bundle_refuses_also_in_what_zip_itself_writes(tmp_path: Path, bundle: Path):
    whole = bundle.read_bytes()
    out = tmp_path / "out"
    with zipfile.ZipFile(bundle) as archive:
        starts = [info.header_offset for info in archive.infolist()]
        of_zip = set(range(archive.start_dir, len(whole)))
    of_zip |= {start + offset for start in starts for offset in range(60)}
    assert len(of_zip) > 800
    for index in sorted(of_zip | set(range(0, len(whole), 5))):  # of the contents every bit is tried in test_folder
        damaged = bytearray(whole)
        damaged[index] ^= 1 << (index % 8)
        bundle.write_bytes(damaged)
        with pytest.raises(ArtifactError):
            unpack(bundle, out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npuart", "artifact"]
    bundle.write_bytes(whole)
    unpack(bundle, out)


def test_cut_off_at_any_length_or_with_more_behind_it_refuses(tmp_path: Path, bundle: Path):
    whole = bundle.read_bytes()
    for length in range(0, len(whole), 23):
        bundle.write_bytes(whole[:length])
        with pytest.raises(IntegrityError):
            unpack(bundle, tmp_path / "out")
    for other in (whole[:-1], whole + b"\0", b"\0" + whole, whole + whole):
        bundle.write_bytes(other)
        with pytest.raises(IntegrityError):
            unpack(bundle, tmp_path / "out")


def test_other_zip_programs_read_it(tmp_path: Path, bundle: Path):
    with zipfile.ZipFile(bundle) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["manifest.json", "signature.dsse.json", *sorted(FILES)]
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        archive.extractall(tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "artifact")


def test_info_zip_finds_no_fault(bundle: Path):
    try:
        done = subprocess.run(["unzip", "-t", bundle], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("Info-ZIP's unzip is not installed")
    assert done.returncode == 0, done.stdout


def test_a_zip_of_the_same_files_by_another_program_is_refused(tmp_path: Path, bundle: Path):
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        other = tmp_path / "other.npuart"
        with zipfile.ZipFile(bundle) as source, zipfile.ZipFile(other, "w", method) as target:
            for name in source.namelist():
                target.writestr(name, source.read(name))
        with pytest.raises(IntegrityError):
            unpack(other, tmp_path / "out")


@pytest.mark.parametrize("name", ["../escaped", "/escaped", "report/../../escaped", "extra.bin"])
def test_a_member_that_the_manifest_does_not_list_is_never_written(tmp_path: Path, name: str):
    manifest = (made(tmp_path / "artifact").root / "manifest.json").read_bytes()
    hostile = tmp_path / "hostile.npuart"
    with zipfile.ZipFile(hostile, "w") as archive:
        archive.writestr(name, b"gotcha")
        archive.writestr("manifest.json", manifest)
    with pytest.raises(IntegrityError):
        unpack(hostile, tmp_path / "deep" / "out")
    with zipfile.ZipFile(hostile, "w") as archive:
        archive.writestr("manifest.json", manifest)
        archive.writestr(name, b"gotcha")
    with pytest.raises(IntegrityError):
        unpack(hostile, tmp_path / "deep" / "out")
    assert list(tmp_path.rglob("*escaped*")) == []
    assert not Path("/escaped").exists()


def test_a_size_that_lies_is_refused_before_anything_large_is_written(tmp_path: Path, bundle: Path):
    whole = bundle.read_bytes()
    at = whole.index(struct.pack("<HHQQ", 1, 16, 40, 40))
    bundle.write_bytes(whole[:at] + struct.pack("<HHQQ", 1, 16, 1 << 60, 1 << 60) + whole[at + 20 :])
    with pytest.raises(IntegrityError, match="too large"):
        unpack(bundle, tmp_path / "out")


def test_nothing_is_overwritten_without_being_asked(tmp_path: Path, bundle: Path):
    before = bundle.read_bytes()
    with pytest.raises(UsageError, match="exists"):
        pack(tmp_path / "artifact", bundle)
    assert bundle.read_bytes() == before
    pack(tmp_path / "artifact", bundle, overwrite=True)
    with pytest.raises(UsageError, match="not an empty folder"):
        unpack(bundle, tmp_path / "artifact")
    with pytest.raises(UsageError, match="in the artifact itself"):
        pack(tmp_path / "artifact", tmp_path / "artifact" / "report" / "a.npuart")
    with pytest.raises(UsageError, match="not an empty folder"):
        unpack(bundle, bundle)
    open_artifact(tmp_path / "artifact")


def test_a_damaged_folder_is_not_packed(tmp_path: Path):
    artifact = made(tmp_path / "artifact")
    artifact.entry.write_bytes(b"x" * 300)
    with pytest.raises(IntegrityError):
        pack(artifact.root, tmp_path / "a.npuart")
    assert not (tmp_path / "a.npuart").exists()


def test_a_missing_bundle_is_wrong_use(tmp_path: Path):
    with pytest.raises(UsageError, match="no artifact at"):
        unpack(tmp_path / "none.npuart", tmp_path / "out")


def test_an_artifact_made_elsewhere_has_the_same_bytes(tmp_path: Path, bundle: Path):
    code = "import sys, pathlib; from npuops.artifacts.bundle import pack; pack(*map(pathlib.Path, sys.argv[1:]))"
    other = tmp_path / "other.npuart"
    command = [sys.executable, "-c", code, tmp_path / "artifact", other]
    subprocess.run(command, check=True, env={"TZ": "Pacific/Auckland", "LC_ALL": "C"}, umask=0o077)
    assert other.read_bytes() == bundle.read_bytes()


def test_the_manifest_of_a_bundle_is_read_without_unpacking(tmp_path: Path, bundle: Path):
    assert peek(bundle) == open_artifact(tmp_path / "artifact").manifest


@pytest.mark.parametrize("keep", [0, 40, 200, -1])
def test_a_bundle_that_is_still_being_copied_is_refused_by_a_peek(bundle: Path, keep: int):
    bundle.write_bytes(bundle.read_bytes()[:keep])
    with pytest.raises(IntegrityError):
        peek(bundle)
