from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import ROOT
from npuops.cli.main import _load

UNIT = ROOT / "deploy" / "npuops-hostsched.service"


def values(key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", UNIT.read_text(encoding="utf-8"), re.MULTILINE)


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed, so the unit is not verified here")
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text(encoding="utf-8"), encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_calls_verbs_that_exist_and_restores_after_any_end() -> None:
    verbs = _load("hostsched").commands
    for key, verb in (("ExecStart", "act"), ("ExecStopPost", "restore")):
        (line,) = values(key)
        assert line.split()[2:4] == ["hostsched", verb]
        assert verb in verbs


def test_the_unit_leaves_the_agent_what_it_needs_and_no_more() -> None:
    assert values("CapabilityBoundingSet") == ["CAP_SYS_NICE CAP_DAC_OVERRIDE"]
    assert values("NoNewPrivileges") == ["yes"]
    assert values("RestrictRealtime") == [], "it forbids sched_setattr"
    assert values("ProtectControlGroups") == ["no"], "weights of cgroups are files"
    assert values("CacheDirectory") == ["npuops"], "the reader in C is compiled into npuops' cache"
    assert values("Environment") == ["NPUOPS_CACHE=%C/npuops"]
    assert values("KillMode") == ["process"], "the reaper must outlive the agent"
