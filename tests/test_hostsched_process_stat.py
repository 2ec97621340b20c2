"""Who a task is, as /proc tells it, or does not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from npuops.hostsched.process_stat import alive, look_at, process_of, threads
from npuops.hostsched.task_id import TaskId

HIDDEN = """
import os
from npuops.hostsched.process_stat import look_at, process_of, processes, threads
assert os.getuid() == 65534
assert len(processes()) > 1
print(look_at(1), process_of(1), list(threads(1)), look_at(os.getpid()).parent == os.getppid())
"""


def test_a_task_is_known_by_its_number_and_its_start() -> None:
    me = look_at(os.getpid())
    assert me is not None
    assert me.parent == os.getppid()
    assert alive(me.id)
    assert not alive(TaskId(me.tid, me.start_ticks + 1))
    assert process_of(me.tid) == me.tid
    assert me.tid in threads(me.tid)


def test_what_proc_hides_is_as_if_it_were_not_there() -> None:
    """With hidepid=1 the numbers of other users' processes are listed, and whoever looks at one is refused."""
    if os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("setpriv"):
        pytest.skip("needs root, unshare and setpriv, to mount a /proc that hides processes")
    user = "setpriv --reuid 65534 --regid 65534 --clear-groups"
    script = f'mount -t proc -o hidepid=1 proc /proc && exec {user} "$0" "$@"'
    ended = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, sys.executable, "-B", "-c", HIDDEN],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if "mount:" in ended.stderr or "setpriv:" in ended.stderr or "unshare:" in ended.stderr:
        pytest.skip(f"not possible here: {ended.stderr.strip()}")
    assert ended.stdout.split() == ["None", "None", "[]", "True"], ended.stderr
