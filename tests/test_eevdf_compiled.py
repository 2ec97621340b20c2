import os
import subprocess
import sys
from pathlib import Path

CODE = """
from npuops.eevdf.compiled import compiled, outlook
print(outlook())
"""


def outlook(**environment: str) -> str:
    run = subprocess.run(
        [sys.executable, "-c", CODE], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return run.stdout.strip()


def test_who_simulates_without_numba_is_told_that_it_is_slow() -> None:
    assert "npuops[hostsched]" in outlook(NUMBA_DISABLE_JIT="1")


def test_the_first_use_is_announced_and_later_ones_are_not(tmp_path: Path) -> None:
    first = outlook(XDG_CACHE_HOME=str(tmp_path))
    assert "once" in first
    (folder,) = (tmp_path / "npuops" / "numba").iterdir()
    (folder / "kept").touch()
    assert outlook(XDG_CACHE_HOME=str(tmp_path)) == "None"


def test_a_cache_that_cannot_be_written_is_said_and_no_error(tmp_path: Path) -> None:
    (tmp_path / "npuops").touch()
    assert "at each start" in outlook(XDG_CACHE_HOME=str(tmp_path))
