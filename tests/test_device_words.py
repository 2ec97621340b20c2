from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from npuops.cli.device_words import complete_device
from npuops.vnpu.device_switch import up
from virtual_devices import home, order  # noqa: F401 - a fixture


@pytest.mark.slow
@pytest.mark.usefixtures("home")
def test_a_shell_completes_the_names_of_devices() -> None:
    assert complete_device("") == []
    for name in ("camera", "npu0", "npu1"):
        up(order(name))
    assert complete_device("np") == ["npu0", "npu1"]
    typed = {"_NPUOPS_COMPLETE": "complete_bash", "COMP_WORDS": "npuops device status ca", "COMP_CWORD": "3"}
    command = [sys.executable, "-c", "from npuops.cli.main import app; app(prog_name='npuops')"]
    done = subprocess.run(command, env={**os.environ, **typed}, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["camera"], done.stderr


def test_a_home_that_cannot_be_used_completes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NPUOPS_DEVICES", str(tmp_path / "file"))
    assert complete_device("") == []
