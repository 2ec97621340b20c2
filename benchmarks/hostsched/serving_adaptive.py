"""Should a policy set the server's batch budget and queue limit? Own rule, SLO/2, AIMD, and the scorer of batch curves.

    python benchmarks/hostsched/serving_adaptive.py [--seeds 5] [--oracle] [--real] [--turns 3] [--json OUT.json]

In simulation (the server's own judges, simulated devices, a device that gets twice as slow for a while); with `--real`
also on real servers in processes of their own, in turns, over a virtual NPU in real time. Every request carries the SLO
as its deadline. Told: the share of all requests that were answered in time, and the p99 of those that were answered.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from npuops.hostsched.serving_policies import Aimd, CurveScorer, OwnRule, ServingPolicy, SloRule
from npuops.hostsched.serving_state import ServingSetting
from npuops.schedlab.serving_play import (
    SHAPES,
    affine,
    capacity,
    goodput_share,
    noise,
    oracle,
    p99_us,
    play,
    stepwise,
    switching,
)
from npuops.schedlab.serving_simulator import ServingScene, SimulatedDevice
from npuops.server.serve_options import ServeOptions
from npuops.serving import Server
from npuops.serving_adaptive import AdaptiveServing

ROOT = Path(__file__).resolve().parents[2]
OWN = ServingSetting(10_000.0, 1024)
SIDES: dict[str, Callable[[ServingSetting], ServingPolicy]] = {
    "own": OwnRule,
    "slo/2": SloRule,
    "aimd": Aimd,
    "scorer": CurveScorer,
}
CASES = {
    "mid, 15 ms": (affine(2_000, 500, 32), 15_000),
    "mid, 60 ms": (affine(2_000, 500, 32), 60_000),
    "steep, 20 ms": (affine(500, 900, 32), 20_000),
    "flat, 70 ms": (affine(12_000, 250, 64), 70_000),
    "slow, 100 ms": (affine(20_000, 1_500, 64), 100_000),
    "slow, 300 ms": (affine(20_000, 1_500, 64), 300_000),
}
LOADS = (*SHAPES, "mmpp")
STEP_S = 0.5
SLO_MS = 60.0
PROBE_S = 3.0
SIZES = (1, 4, 16)
CHIP = "vnpu:rk3588"
SLOW = 1000.0
"""Times that the device's memory is slower than the chip's, so that this host has hardly anything to do."""
REAL = (0.3, 0.8, 1.3, 0.5, 1.6, 0.2)


def scene(case: str, load: str, *, heat: bool, seed: int) -> ServingScene:
    curve, slo_us = CASES[case]
    most = capacity(curve)
    if load == "mmpp":
        arrivals = switching(0.3 * most, 1.4 * most, 0.4, 6 * STEP_S, seed)
    else:
        arrivals = stepwise([each * most for each in SHAPES[load]], STEP_S, seed)
    slower = ((1_000_000, 2.0), (2_000_000, 1.0)) if heat else ()
    devices = (SimulatedDevice(name="npu", curve=curve, slower=slower),)
    return ServingScene(arrivals_us=arrivals, slo_us=slo_us, devices=devices, noise=noise(seed))


def candidates(case: str) -> list[ServingSetting]:
    curve, _ = CASES[case]
    return [ServingSetting(us, places) for _, us in curve.points[::2] for places in (1024, 64, 16, 4)]


def simulated(seeds: int, *, with_oracle: bool) -> dict[str, dict[str, Any]]:
    """Scene → side → mean share in time and p99."""
    found: dict[str, dict[str, Any]] = {}
    for case in CASES:
        for load in LOADS:
            for heat in (False, True):
                shares: dict[str, list[float]] = {}
                p99: dict[str, list[float]] = {}
                for seed in range(seeds):
                    here = scene(case, load, heat=heat, seed=seed)
                    ends = {side: play(here, make(OWN), OWN, guarded=side == "scorer") for side, make in SIDES.items()}
                    ends["slo/2, whole"] = play(here, SloRule(OWN), OWN, guarded=False, whole=True)
                    if with_oracle:
                        ends["oracle"] = oracle(here, OWN, candidates(case), look_us=200_000, ahead_us=500_000)
                    for side, end in ends.items():
                        shares.setdefault(side, []).append(goodput_share(end))
                        p99.setdefault(side, []).append((p99_us(end) or 0.0) / here.slo_us)
                name = f"{case}, {load}{', heat' if heat else ''}"
                found[name] = {
                    side: {"share": statistics.mean(shares[side]), "p99_slo": statistics.mean(p99[side])}
                    for side in shares
                }
                print("  ", name, {side: round(each["share"], 3) for side, each in found[name].items()}, flush=True)
    return found


def table(found: dict[str, dict[str, Any]]) -> None:
    sides = list(next(iter(found.values())))
    print(f"\n| answered in time, all {len(found)} scenes | " + " | ".join(sides) + " |\n|" + "---|" * (len(sides) + 1))
    for word in (*LOADS, "heat", ""):
        rows = [each for name, each in found.items() if word in name]
        means = [statistics.mean(each[side]["share"] for each in rows) for side in sides]
        print(f"| {word or 'all'} | " + " | ".join(f"{mean:.1%}" for mean in means) + " |")
    worst = [min(each[side]["share"] - each["own"]["share"] for each in found.values()) for side in sides]
    print("| worst scene against own | " + " | ".join(f"{each:+.1%}" for each in worst) + " |")
    p99 = [statistics.median(each[side]["p99_slo"] for each in found.values()) for side in sides]
    print("| p99 of the answered, of the SLO (median) | " + " | ".join(f"{each:.2f}" for each in p99) + " |")


class OneServer(Server):
    """A server whose adaptation has the policy that is asked for."""

    side = "own"

    def _make_adaptive(self) -> AdaptiveServing:
        adaptive = AdaptiveServing(self._running, self._clock, make=SIDES[self.side])
        self._observers = (*self._observers, adaptive.observe)
        return adaptive


async def serve(folder: Path, side: str) -> None:
    """In a child: until SIGTERM; tells its port."""
    OneServer.side = side
    server = OneServer(folder, ServeOptions(http_port=0, grpc=False, watch=False, hints=False, adapt=side != "own"))
    ports, ended = await server.start(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    print(ports.http, flush=True)
    await ended.wait()
    await server.stop()


def made(scratch: Path, device: str) -> Path:
    """A repository with one model, as artifacts of several batches for a virtual NPU."""
    from ours import built  # noqa: PLC0415

    from served_artifacts import tiny_cnn  # noqa: PLC0415

    version = scratch / "repository" / "tiny" / "1"
    version.mkdir(parents=True)
    for rows in SIZES:
        path = tiny_cnn(scratch / f"tiny{rows}.onnx", batch=rows)
        given = scratch / f"noise{rows}.npz"
        np.savez(given, x=np.random.default_rng(9).standard_normal((64 // rows, rows, 1, 28, 28)).astype("f"))
        flags = ["--target", CHIP, "--calibration", str(given), "--fallback", "allow"]
        built(path, scratch / f"a{rows}", flags).rename(version / f"a{rows}")
    (version.parent / "model.toml").write_text(
        f'inline = "never"\n[[device]]\ntarget = "{CHIP}"\nname = "{device}"\n'
        f"[padding]\nrows = true\n[queue]\ndefault_timeout_ms = {SLO_MS}\n"
    )
    return version.parent.parent


def real(turns: int) -> list[dict[str, Any]]:
    """All sides in turns over one device."""
    from client import Call, closed_loop, open_loop  # noqa: PLC0415 - the real part alone needs what it imports
    from exchanges import oip_binary  # noqa: PLC0415
    from ours import NPUOPS  # noqa: PLC0415
    from served_models import ServedModel  # noqa: PLC0415

    scratch = Path(tempfile.mkdtemp(prefix="hs-serving-"))
    device = f"adapt{os.getpid()}"
    repository = made(scratch, device)
    row = np.zeros((1, 1, 28, 28), np.float32)
    subprocess.run([str(NPUOPS), "device", "up", CHIP, "--name", device, "--pacing", "realtime"], check=True)
    model = ServedModel(
        name="tiny", path=repository, max_rows=1, inputs={"x": row}, output="y", answer=np.zeros(1, "f")
    )
    found: list[dict[str, Any]] = []

    async def load(port: int, rates: list[float], seed: int) -> list[Any]:
        samples: list[Any] = []
        exchange = oip_binary(model)
        call = Call(exchange.http_bytes(f"127.0.0.1:{port}"), lambda _: "")
        if not rates:  # as many as two of the largest batches, each sent when the last one was answered
            stop = asyncio.Event()
            asyncio.get_running_loop().call_later(PROBE_S, stop.set)
            await closed_loop(port, lambda: call, 2 * max(SIZES), stop, samples)
        for number, rate in enumerate(rates):
            await open_loop(port, lambda: call, rate, 1.5, samples, seed=10 * seed + number)
        return samples

    def once(side: str, rates: list[float], seed: int) -> list[Any]:
        argv = [sys.executable, __file__, "--serve", side, "--folder", str(repository)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as child:
            port = int(next(iter(child.stdout or ())))
            try:
                wait_ready(port)
                return uvloop.run(load(port, rates, seed))
            finally:
                child.terminate()

    def in_time(samples: list[Any]) -> list[float]:
        """Latencies of right answers within the SLO and a little for the way there."""
        return [each.latency_s for each in samples if each.outcome == "ok" and each.latency_s * 1000 <= SLO_MS * 1.05]

    try:
        subprocess.run([str(NPUOPS), "device", "inject", device, "slow_dma", "--factor", str(SLOW)], check=True)
        most = sum(each.outcome == "ok" for each in once("slo/2", [], 99)) / PROBE_S
        print(f"   about {most:.0f}/s", flush=True)
        for turn in range(turns):
            for side in SIDES:
                samples = once(side, [each * most for each in REAL], turn)
                ok = [each.latency_s for each in samples if each.outcome == "ok"]
                p99_ms = float(np.percentile(ok, 99)) * 1000 if ok else None
                share = len(in_time(samples)) / len(samples)
                found.append({"side": side, "share": share, "p99_ms": p99_ms, "requests": len(samples)})
                print("  ", found[-1], flush=True)
    finally:
        subprocess.run([str(NPUOPS), "device", "down", device], check=False)
    print(f"\n| real server, SLO {SLO_MS:g} ms | answered in time | p99 ms |\n|---|---|---|")
    for side in SIDES:
        mine = [each for each in found if each["side"] == side]
        p99 = statistics.median(each["p99_ms"] or 0.0 for each in mine)
        print(f"| {side} | {statistics.median(each['share'] for each in mine):.1%} | {p99:.1f} |")
    return found


def wait_ready(port: int) -> None:
    limit = time.monotonic() + 60
    while time.monotonic() < limit:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/v2/models/tiny/ready")
            if connection.getresponse().status == 200:
                return
        finally:
            connection.close()
        time.sleep(0.1)
    raise SystemExit("the server did not get ready")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--oracle", action="store_true")
    parser.add_argument("--real", action="store_true")
    parser.add_argument("--only-real", action="store_true")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        uvloop.run(serve(options.folder, options.serve))
        return
    sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "benchmarks" / "serving")]  # of the real part
    found: dict[str, Any] = {}
    if not options.only_real:
        found["simulated"] = simulated(options.seeds, with_oracle=options.oracle)
        table(found["simulated"])
    if options.real or options.only_real:
        found["real"] = real(options.turns)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
