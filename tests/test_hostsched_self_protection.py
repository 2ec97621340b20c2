from __future__ import annotations

import os
import subprocess
import sys

import pytest

from npuops.eevdf.setting import SchedPolicy
from npuops.hostsched.knobs import read_attributes
from npuops.hostsched.self_protection import protected

INSIDE = """
import os, subprocess, sys
{before}
from npuops.hostsched.knobs import read_attributes
from npuops.hostsched.self_protection import protected
before = read_attributes(0)
with protected(20_000) as protection:
    inside = read_attributes(0)
    child = subprocess.run([sys.executable, "-c", "import os; print(os.sched_getscheduler(0), os.nice(0))"],
                           capture_output=True, text=True, check=True).stdout
after = read_attributes(0)
assert before == after, (before, after)
print(inside.policy, inside.nice, child.strip(), protection.words)
"""


def inside(before: str = "", *prefix: str) -> str:
    code = INSIDE.format(before=before)
    done = subprocess.run(
        [*prefix, sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_it_is_protected_within_its_children_are_not_and_all_is_back_afterwards() -> None:
    told = inside()
    if told.endswith("0 0 4000 of every 20000 us reserved"):
        assert told.startswith(str(int(SchedPolicy.DEADLINE)))
    elif os.geteuid() == 0 and told.endswith("nice -20"):
        pytest.skip("other reservations leave no room now")
    else:
        pytest.skip(f"CAP_SYS_NICE is missing: {told}")


@pytest.mark.skipif(os.geteuid() != 0, reason="CAP_SYS_NICE is missing")
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="with one CPU nobody is pinned")
def test_one_that_is_pinned_gets_a_nice_value() -> None:
    one = f"os.sched_setaffinity(0, {{{min(os.sched_getaffinity(0))}}})"
    assert inside(one) == "0 -20 0 0 nice -20"


def test_without_the_right_it_goes_on_and_says_why() -> None:
    if os.geteuid() != 0:
        assert "none: " in inside()
        return
    without = ("setpriv", "--bounding-set", "-sys_nice", "--inh-caps", "-sys_nice")
    told = inside("", *without)
    assert told.startswith("0 0 0 0 none: ")
    assert "not permitted" in told


def test_nothing_is_left_behind_when_the_work_fails() -> None:
    before = read_attributes(0)
    with pytest.raises(RuntimeError), protected(20_000):
        raise RuntimeError
    assert read_attributes(0) == before
