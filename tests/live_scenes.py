"""A server's last minutes, made from facts, for the tests of the live page; and a small server that shows them."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from npuops.runtime.facts import (
    ColdCause,
    DeviceChanged,
    RequestFailed,
    RequestShed,
    ShedReason,
    WorkerEnded,
    WorkerStarted,
)
from npuops.telemetry.intake import Intake
from npuops.telemetry.live import Live
from npuops.telemetry.live_page import live_page
from npuops.telemetry.serving_snapshot import ChipReading, DeviceGauges, ServingSnapshot, VersionGauges
from npuops.testing import ManualClock
from serving_facts import batch_ran

UNIX_S = 1_790_000_000
SECOND_US = 1_000_000


def snapshot(second: int = 0, model: str = "mobilenet-v2") -> ServingSnapshot:
    wave = math.sin(second / 20)
    return ServingSnapshot(
        versions=(
            VersionGauges(
                model=model,
                version="3",
                ready=True,
                queue_requests=int(6 + 5 * wave),
                queue_bytes=4096,
                devices=(
                    DeviceGauges(device="npu0", state="ready", in_flight=4, slots=8, resident_bytes=310 << 20),
                    DeviceGauges(device="cpu", state="draining", in_flight=0, slots=8, resident_bytes=180 << 20),
                ),
            ),
            VersionGauges(model="keyword-spotter", version="1", ready=False, queue_requests=0, queue_bytes=0),
        ),
        device_states=("ready", "draining", "sick"),
        chips=(
            ChipReading(
                device="npu0",
                label="virtual NPU, Ethos-U85-512",
                basis="modelled",
                temperature_celsius=61 + 14 * wave,
                clock_hertz=1e9 if wave < 0.8 else 6e8,
                power_watts=1.1 + 0.4 * wave,
                busy_ratio=0.7 + 0.2 * wave,
            ),
            ChipReading(device="accel1", label="Intel NPU (ivpu)", basis="measured", temperature_celsius=44.0),
        ),
    )


def busy_live(seconds: int = 300, model: str = "mobilenet-v2") -> Live:
    """A server under waves of load, with a lost worker near the end."""
    clock = ManualClock()
    live = Live(clock, UNIX_S * SECOND_US)
    intake = Intake([live])
    for second in range(seconds):
        wave = math.sin(second / 20)
        for part in range(40):
            arrived = second * SECOND_US + part * 20_000
            intake(
                batch_ran(
                    model=model,
                    version="3",
                    device="npu0" if part % 8 else "cpu",
                    fell_back=part % 8 == 0,
                    arrived_us=tuple(arrived + 150 * k for k in range(int(5 + 3 * wave))),
                    padded_rows=1,
                    compute_us=int(900 + 500 * wave + 180 * (part % 9) ** 1.5),
                )
            )
        for _ in range(int(12 * max(wave - 0.6, 0) * 10)):
            intake(RequestShed(model=model, version="3", tenant="camera", reason=ShedReason.QUEUE_FULL))
        clock.sleep_until((second + 1) * SECOND_US + 1000)
        if second == seconds - 40:
            for fact in lost_worker(model):
                intake(fact)
        intake.flush()
        live.sample(snapshot(second, model))
    return live


HOSTILE_WORDS = "the device said <img src=x onerror=document.title='taken'> & went"


def sick_snapshot() -> ServingSnapshot:
    """A device that is off and one that is hot, a chip that is gone, and a fallback that works."""
    devices = (
        DeviceGauges(device="npu0", state="sick", in_flight=0, why=HOSTILE_WORDS),
        DeviceGauges(device="cpu", state="ready", in_flight=8, slots=3),
    )
    return ServingSnapshot(
        versions=(
            VersionGauges(
                model="mobilenet-v2", version="3", ready=True, queue_requests=1024, queue_bytes=1 << 30, devices=devices
            ),
        ),
        device_states=("ready", "sick"),
        chips=(
            ChipReading(
                device="npu0",
                label="virtual NPU",
                basis="modelled",
                health="unhealthy",
                state="offline",
                why="the driver says 'offline'",
                temperature_celsius=31.0,
            ),
            ChipReading(
                device="npu1",
                label="virtual NPU",
                basis="modelled",
                health="degraded",
                state="throttled",
                why="85.1 °C, throttling temperature is 85 °C",
            ),
            ChipReading(device="npu2", label="x", basis="measured", health="gone", state="gone", why="it was here"),
            ChipReading(device="npu3", label="x", basis="measured", health="healthy", state="healthy", why="fine"),
        ),
    )


def overloaded_live() -> Live:
    """A minute in which three of four requests are not run, and the device is sick."""
    clock = ManualClock()
    live = Live(clock, UNIX_S * SECOND_US)
    intake = Intake([live])
    for second in range(60):
        for part in range(20):
            arrived = second * SECOND_US + part * 20_000
            intake(
                batch_ran(
                    model="mobilenet-v2",
                    version="3",
                    device="cpu",
                    fell_back=True,
                    arrived_us=(arrived,),
                    padded_rows=1,
                    elements=100,
                    padded_elements=300,
                )
            )
        for _ in range(60):
            intake(RequestShed(model="mobilenet-v2", version="3", tenant="camera", reason=ShedReason.QUEUE_FULL))
        clock.sleep_until((second + 1) * SECOND_US + 1000)
        intake.flush()
        live.sample(sick_snapshot())
    return live


def crowded_live(models: int) -> Live:
    """Many models, of which each answers now and then."""
    clock = ManualClock()
    live = Live(clock, UNIX_S * SECOND_US)
    intake = Intake([live])
    held = ServingSnapshot(
        versions=tuple(
            VersionGauges(
                model=f"model-{number:03}",
                version="1",
                ready=True,
                queue_requests=0,
                queue_bytes=0,
                devices=tuple(DeviceGauges(device=f"npu{n}", state="ready", in_flight=0) for n in range(2)),
            )
            for number in range(models)
        )
    )
    for second in range(60):
        for number in range(second % 3, models, 3):
            name = f"model-{number:03}"
            intake(batch_ran(model=name, device="npu0", arrived_us=(second * SECOND_US,)))
        clock.sleep_until((second + 1) * SECOND_US + 1000)
        intake.flush()
        live.sample(held)
    return live


def lost_worker(model: str) -> tuple[WorkerEnded | DeviceChanged | WorkerStarted | RequestFailed, ...]:
    where = {"model": model, "version": "3", "device": "npu0"}
    return (
        RequestFailed(**where, tenant="camera", error="RunError"),
        WorkerEnded(**where, pid=41, wanted=False, why="killed by signal 9", replayed=2),
        DeviceChanged(**where, state="sick", why="its worker ended: killed by signal 9"),
        WorkerStarted(
            **where,
            cause=ColdCause.CRASH,
            seconds=0.64,
            phases={"spawn": 0.11, "verify": 0.03, "open": 0.34, "warm_up": 0.16},
            waiting=7,
            pid=42,
        ),
        DeviceChanged(**where, state="ready", why=""),
    )


Answer = Callable[[int], tuple[int, bytes]]
"""`since` → status and body of `live.json`."""


@contextmanager
def shown(answer: Answer, extra: dict[str, bytes] | None = None) -> Iterator[str]:
    """The page and its figures on a loopback port; gives the URL of the page."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            address = urlsplit(self.path)
            if address.path == "/":
                headers = dict(live_page().headers)
                # The tests look at the page in frames of several widths.
                policy = headers["Content-Security-Policy"].replace("frame-ancestors 'none'", "frame-ancestors 'self'")
                self._send(200, live_page().body, {**headers, "Content-Security-Policy": policy})
            elif address.path == "/live.json":
                status, body = answer(int(parse_qs(address.query)["since"][0]))
                self._send(status, body, {"Content-Type": "application/json"})
            elif extra and address.path in extra:
                self._send(200, extra[address.path], {"Content-Type": "text/html"})
            else:
                self._send(404, b"", {})

        def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            del format, args

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
