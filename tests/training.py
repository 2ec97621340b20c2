"""The interpreter with torch: training is never a dependency of npuops, so its tests borrow one."""

from __future__ import annotations

import os
import subprocess

import pytest


def training_python(*modules: str) -> str:
    """The interpreter of NPUOPS_TRAIN_PYTHON if it has the modules; else the test skips, and says how to enable it."""
    python = os.environ.get("NPUOPS_TRAIN_PYTHON", "")
    how = "make a venv, install examples/zoo/requirements.txt (or examples/qat), set NPUOPS_TRAIN_PYTHON to its python"
    if not python:
        pytest.skip(f"NPUOPS_TRAIN_PYTHON is not set: {how}")
    probe = subprocess.run([python, "-c", f"import {','.join(modules)}"], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"{python} cannot import {', '.join(modules)}: {probe.stderr.strip()[-200:]}; {how}")
    return python
