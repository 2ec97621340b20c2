"""`npuops devices --follow`, as a user starts it, and its lines."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import device_trees
from npuops.cli.devices_follow import Follower
from npuops.devices.sampler import Sampler
from npuops.devices.tree import Tree
from npuops.testing import ManualClock

PAGE = Path(__file__).resolve().parent.parent / "docs" / "devices.md"
FIRST = "0 add SEQNUM=1 DRIVER=vnpu"


class Bench:
    """A virtual NPU's folder, and whoever follows it."""

    def __init__(self, root: Path) -> None:
        self.device = device_trees.vnpu(root)
        tree, self.clock = Tree(root), ManualClock()
        self.sampler, self.follower = Sampler(tree, self.clock), Follower(tree)

    def look(self, **files: object) -> list[dict[str, object]]:
        device_trees.write(self.device, files)
        self.clock.advance(1_000_000)
        return list(self.follower.happenings(self.sampler.sample()))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_the_first_look_tells_health_and_a_quiet_one_nothing(bench: Bench) -> None:
    (first,) = bench.look()
    assert (first["id"], first["kind"], first["level"], first["was"]) == ("vnpu/npu0", "health", "healthy", None)
    assert bench.look() == []


def test_a_look_tells_what_happened_and_then_what_npuops_makes_of_it(bench: Bench) -> None:
    bench.look(uevents=FIRST)
    found = bench.look(uevents=f"{FIRST}\n7 change SEQNUM=2 STATUS=hung", status="hung")
    assert [each["kind"] for each in found] == ["uevent", "health", "suspicion"]
    assert found[0]["fields"] == {"STATUS": "hung"}
    assert (found[1]["was"], found[1]["state"]) == ("healthy", "hung")
    assert (found[2]["mode"], found[2]["evidence"]) == ("F1", ("the driver says 'hung'",))
    assert bench.look() == [], "a suspicion that lasts is told once"


def test_lines_that_nobody_read_in_time_are_counted(bench: Bench) -> None:
    bench.look(uevents=FIRST)
    found = bench.look(uevents="7 change SEQNUM=300 CE=1")
    assert [(each["kind"], each.get("count")) for each in found] == [("missed", 298), ("uevent", None)]


def test_a_device_that_leaves_and_comes_back_is_told(bench: Bench) -> None:
    bench.look(uevents=FIRST)
    aside = bench.device.parent.rename(bench.device.parent.with_name("aside"))
    bench.clock.advance(1_000_000)
    left = list(bench.follower.happenings(bench.sampler.sample()))
    assert [(each["kind"], each.get("state")) for each in left] == [("health", "gone"), ("suspicion", None)]
    aside.rename(bench.device.parent)
    back = bench.look(uevents=f"{FIRST}\n8 remove SEQNUM=2 STATUS=offline\n9 add SEQNUM=3 DRIVER=vnpu")
    assert [each.get("action", each.get("state")) for each in back] == ["remove", "add", "resetting"]


def test_the_page_names_the_keys_of_every_kind(bench: Bench) -> None:
    page = PAGE.read_text(encoding="utf-8")
    found = bench.look(uevents=FIRST) + bench.look(uevents=f"{FIRST}\n7 change SEQNUM=9 CE=1", status="hung")
    kinds = {str(each["kind"]): each for each in found}
    assert set(kinds) == {"uevent", "missed", "health", "suspicion"}
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    for kind, happening in kinds.items():
        assert [key for key in set(happening) - {"id", "name", "kind"} if f"`{key}`" not in rows[kind]] == []


@contextmanager
def following(root: Path, *flags: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", "from npuops.cli.main import main; main()", "devices", "--follow"]
    with subprocess.Popen([*command, "--root", str(root), *flags], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
    assert process.returncode == 0


def lines(process: subprocess.Popen[str], count: int) -> list[str]:
    assert process.stdout is not None
    return [process.stdout.readline().rstrip() for _ in range(count)]


def test_each_happening_is_a_line_of_json_until_it_is_interrupted(tmp_path: Path) -> None:
    device = device_trees.vnpu(tmp_path)
    with following(tmp_path, "--json") as process:
        (first,) = (json.loads(line) for line in lines(process, 1))
        device_trees.write(
            device, {"uevents": "0 add SEQNUM=1 DRIVER=vnpu VNPU_NAME=npu0\n7 change SEQNUM=2 CE=3 UE=0"}
        )
        event: dict[str, Any] = json.loads(lines(process, 1)[0])
    assert first["schema"] == event["schema"] == "npuops.devices.event/1"
    assert first["time"].endswith("Z")
    assert (event["id"], event["seqnum"], event["fields"]) == ("vnpu/npu0", 2, {"CE": "3", "UE": "0"})


def test_people_read_a_line_with_time_device_and_words_that_cannot_steer_the_terminal(tmp_path: Path) -> None:
    device = device_trees.vnpu(tmp_path)
    with following(tmp_path) as process:
        assert lines(process, 1)[0].split()[1:3] == ["accel0", "healthy:"]
        hostile = "0 add SEQNUM=1 DRIVER=vnpu VNPU_NAME=npu0\n7 offline SEQNUM=2 WHY=\x1b[2Jx"
        device_trees.write(device, {"uevents": hostile, "status": "offline"})
        told = lines(process, 3)
    assert [line.split(maxsplit=2)[2] for line in told] == [
        "offline at 0.000 s of its own time WHY=?[2Jx",
        "healthy → offline (unhealthy): the driver says 'offline'",
        "suspect F1 device offline: the driver says 'offline'",
    ]


def test_when_its_reader_leaves_it_ends_without_waiting_for_something_to_happen(tmp_path: Path) -> None:
    device_trees.vnpu(tmp_path)
    command = [sys.executable, "-c", "from npuops.cli.main import main; main()", "devices", "--follow"]
    with subprocess.Popen([*command, "--root", str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=60) == 141, "as a shell counts SIGPIPE"
