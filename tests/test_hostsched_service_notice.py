from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from npuops.hostsched.service_notice import ServiceNotice


def listener(place: str) -> socket.socket:
    ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    ear.bind("\0" + place[1:] if place.startswith("@") else place)
    ear.settimeout(10)
    return ear


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_systemd_hears_that_we_are_up_alive_and_ending(kind: str, tmp_path: Path) -> None:
    place = str(tmp_path / "notify") if kind == "path" else f"@npuops-test-{os.getpid()}"
    with listener(place) as ear:
        notice = ServiceNotice({"NOTIFY_SOCKET": place, "WATCHDOG_USEC": "5000000"})
        assert notice.say("READY=1")
        for now_us in range(0, 1_000_000, 20_000):
            notice.alive(now_us)
        assert notice.say("STOPPING=1")
        notice.close()
        heard = [ear.recv(100) for _ in range(6)]
    assert heard == [b"READY=1", *[b"WATCHDOG=1"] * 4, b"STOPPING=1"]


def test_without_systemd_nothing_is_said() -> None:
    notice = ServiceNotice({})
    notice.alive(0)
    assert not notice.say("READY=1")
    notice.close()


def test_a_listener_that_is_gone_is_no_error(tmp_path: Path) -> None:
    notice = ServiceNotice({"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    assert not notice.say("READY=1")
    notice.close()


@pytest.mark.parametrize("environment", [{"WATCHDOG_USEC": "x"}, {"WATCHDOG_USEC": "5000000", "WATCHDOG_PID": "1"}])
def test_a_watchdog_of_somebody_else_is_not_fed(environment: dict[str, str], tmp_path: Path) -> None:
    place = str(tmp_path / "notify")
    with listener(place) as ear:
        notice = ServiceNotice({"NOTIFY_SOCKET": place, **environment})
        notice.alive(0)
        notice.say("STATUS=first")
        notice.close()
        assert ear.recv(100) == b"STATUS=first"
