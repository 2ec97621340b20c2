"""Three minutes of load with everything going wrong: no wrong answer, nothing stuck, nothing left over, no leak."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("tritonclient")

SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "serving" / "soak.py"
SEED = os.environ.get("NPUOPS_SOAK_SEED", "4")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_three_minutes_of_everything_leave_nothing_wrong_stuck_or_behind(tmp_path: Path) -> None:
    """Told on failure: the seed, what was wrong with examples, all that happened, and the end of the server's log."""
    out, log = tmp_path / "soak.json", tmp_path / "server.log"
    command = [sys.executable, str(SCRIPT), "--minutes", "3", "--seed", SEED, "--json", str(out)]
    command += ["--scratch", str(tmp_path / "scratch"), "--keep-log", str(log)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=800)
    said = f"seed {SEED} (NPUOPS_SOAK_SEED), exit code {done.returncode}\n{done.stdout[-9000:]}\n{done.stderr[-3000:]}"
    if log.is_file():
        said += f"\nthe end of the server's log:\n{log.read_text(errors='replace')[-3000:]}"
    assert done.returncode == 0, said
    result = json.loads(out.read_text())
    assert result["bad"] == {}, said
    assert min(result["events"].get(kind, 0) for kind in ("kill", "swap", "load or unload", "malformed HTTP")) > 0, said
    assert result["outcomes"]["ok"] > 1000, said
