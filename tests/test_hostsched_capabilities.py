"""What the machine lets us do is found by trying, and told with the reason."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from hostsched_children import may_raise, without_privilege
from npuops.hostsched.capabilities import probe
from npuops.hostsched.knobs import read_setting

PROBE = """
import json
from npuops.hostsched.capabilities import probe
print(json.dumps(probe().document()))
"""


def test_everything_is_tried_told_with_a_reason_and_left_as_it_was() -> None:
    before = read_setting(0)
    found = probe()
    assert found.privileged == may_raise()
    assert all(capability.found for capability in found.list)
    assert len({capability.name for capability in found.list}) == len(found.list)
    assert found["nice up"].usable == found.privileged or not found.privileged
    assert read_setting(0) == before


def test_without_privilege_it_says_what_is_missing() -> None:
    done = subprocess.run(
        [*without_privilege(), sys.executable, "-c", PROBE], capture_output=True, text=True, check=True, env=os.environ
    )
    found = json.loads(done.stdout)
    assert found["privileged"] is False
    knobs = {knob["name"]: knob for knob in found["list"]}
    assert knobs["batch"]["usable"]
    for name in ("nice up", "nice down", "idle", "reservation"):
        assert not knobs[name]["usable"]
        assert "not permitted" in knobs[name]["found"]


def test_files_of_the_kernel_decide_what_is_a_signal() -> None:
    assert probe()["pressure"].usable == Path("/proc/pressure/cpu").exists()
