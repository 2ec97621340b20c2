"""The load program is compiled once, whole or not at all."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from npuops.errors import CompileError, MissingToolchainError, StorageError, ToolchainCrashError
from npuops.schedlab.load_program import calibrate, load_program


def test_it_is_compiled_once_and_nothing_else_stays(tmp_path: Path) -> None:
    program = load_program(tmp_path)
    made = program.stat()
    assert load_program(tmp_path) == program
    assert program.stat().st_mtime_ns == made.st_mtime_ns
    assert [path.name for path in program.parent.iterdir()] == [program.name]


def test_any_number_may_ask_for_it_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        found = set(pool.map(load_program, [tmp_path] * 3))
    assert len(found) == 1
    assert [path.name for path in found.pop().parent.iterdir()] == [load_program(tmp_path).name]


def test_it_lies_in_the_cache_of_npuops(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NPUOPS_CACHE", str(tmp_path / "cache"))
    assert load_program().is_relative_to(tmp_path / "cache")


def test_the_source_has_no_warning(tmp_path: Path) -> None:
    source = Path(load_program.__code__.co_filename).parent
    strict = ["-O2", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-o", str(tmp_path / "load")]
    subprocess.run(["cc", *strict, str(source / "load.c"), str(source / "load_player.c")], check=True)


def test_a_machine_without_a_compiler_says_which_package_has_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingToolchainError) as caught:
        load_program(tmp_path)
    assert "apt install gcc" in caught.value.advice


def test_a_compiler_that_refuses_is_quoted_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho 'no space left on my desk' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CompileError, match="no space left on my desk"):
        load_program(tmp_path / "cache")
    assert list((tmp_path / "cache" / "schedlab").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StorageError):
        load_program(tmp_path / "file")


def test_a_calibration_is_a_speed(tmp_path: Path) -> None:
    found = calibrate(load_program(tmp_path))
    assert 1_000 < found.scan_per_ms < 100_000_000
    assert 1_000 < found.compute_per_ms < 100_000_000


@pytest.mark.parametrize("script", ["exit 1", "echo nonsense", "echo 0 5", "echo 1 2 3"])
def test_a_program_that_does_not_calibrate_is_a_clear_error(tmp_path: Path, script: str) -> None:
    wrong = tmp_path / "load"
    wrong.write_text(f"#!/bin/sh\n{script}\n")
    wrong.chmod(0o755)
    with pytest.raises(ToolchainCrashError):
        calibrate(wrong)
