"""The command line, started as a user starts it."""

from __future__ import annotations

import os
import subprocess
import sys


def npuops(*arguments: object, code: int = 0, **environment: str) -> str:
    """Run `npuops` and demand its exit code; what it wrote to both streams."""
    command = [sys.executable, "-c", "from npuops.cli.main import main; main()", *map(str, arguments)]
    # COLUMNS, which test runners set, would fold tables.
    clean = {name: value for name, value in os.environ.items() if name not in {"NPUOPS_KEY_PASSWORD", "COLUMNS"}}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**clean, **environment})
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr
