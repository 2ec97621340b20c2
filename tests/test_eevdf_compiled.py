import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from npuops.eevdf.compiled import COMPILES, KEPT, clear_up

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


def folders(root: Path, count: int, age_s: float) -> list[Path]:
    """Named as compiled code is, the first used last."""
    made = []
    for number in range(count):
        made.append(root / f"{number:016x}")
        made[-1].mkdir()
        (made[-1] / "code.nbc").touch()
        os.utime(made[-1], (then := time.time() - age_s - number, then))
    return made


def test_what_is_used_no_more_goes_and_the_rest_stays(tmp_path: Path) -> None:
    old = folders(tmp_path, 9, 100_000)
    (tmp_path / "lock").touch()
    (tmp_path / "of somebody else").mkdir()
    clear_up(tmp_path, old[8])
    assert set(tmp_path.iterdir()) == {*old[: KEPT - 1], old[8], tmp_path / "lock", tmp_path / "of somebody else"}


def test_what_may_be_in_use_stays(tmp_path: Path) -> None:
    new = folders(tmp_path, 9, 10)
    clear_up(tmp_path, new[0])
    assert set(tmp_path.iterdir()) == set(new)


COMPILE = """
from npuops.eevdf.compiled import compile_all, compiled
@compiled
def twice(value: int) -> int:
    return value * 2
compile_all([(twice, (1,))])
print(twice.stats.cache_hits[twice.signatures[0]] if twice.stats.cache_hits else 0, twice(21))
"""


@pytest.mark.skipif(not COMPILES, reason="there is nothing to compile without numba")
def test_of_processes_that_come_at_once_one_compiles_and_the_others_find_it(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    source = tmp_path / "source" / "twice.py"
    source.write_text(COMPILE)
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, str(source)]
    runs = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    told = sorted(run.communicate(timeout=120)[0].strip() for run in runs)
    assert told == ["0 42", "1 42", "1 42"]
