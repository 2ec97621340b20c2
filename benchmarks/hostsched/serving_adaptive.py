"""Should a policy set a server's batch budget, queue limit and spill? Own rule, SLO/2, AIMD, scorer of batch curves.

    python benchmarks/hostsched/serving_adaptive.py [--devices 2] [--seeds 5] [--oracle] [--case NAME]
                                                     [--real] [--turns 3] [--json OUT.json]

In simulation (the server's own judges, simulated devices, a device that gets twice as slow for a while); with `--real`
also on real servers in processes of their own, in turns, over virtual NPUs in real time. Every request carries the SLO
as its deadline. Told: the share of all requests that were answered in time, and the p99 of those that were answered.

With `--devices 2` a slower device stands beside the first, so that a policy may choose between them; rivals are then
also a spill that is always there, and the scorer without one. With `--oracle` also who tries all settings on the real
future, and who tries them on made-up ones: what a better forecast could bring at most. Told besides: misses and p99,
times those of the own rule; what the slow device did (answers, or runs); and on real servers the devices' energy above
idle for an answer, as modelled.
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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from npuops.hostsched.serving_policies import Aimd, CurveScorer, OwnRule, ServingPolicy, SloRule, SpillRule
from npuops.hostsched.serving_state import ServingFrame, ServingSetting
from npuops.schedlab.serving_play import (
    LOOK_US,
    SHAPES,
    affine,
    capacity,
    goodput_share,
    noise,
    oracle,
    p99_us,
    play,
    simulating,
    stepwise,
    switching,
)
from npuops.schedlab.serving_simulator import ServingScene, SimulatedDevice, SimulatedServer
from npuops.server.serve_options import ServeOptions
from npuops.serving import Server
from npuops.serving_adaptive import AdaptiveServing

ROOT = Path(__file__).resolve().parents[2]
OWN = ServingSetting(10_000.0, 1024)


class Unspilled(CurveScorer):
    """The scorer, without its choice of devices."""

    def decide(self, frame: ServingFrame) -> ServingSetting:
        return replace(super().decide(frame), spill_us=0.0)


Sides = Mapping[str, Callable[[ServingSetting], ServingPolicy]]
ONE: Sides = {"own": OwnRule, "slo/2": SloRule, "aimd": Aimd, "scorer": CurveScorer}
TWO: Sides = {"own": OwnRule, "spill": SpillRule, "slo/2": SloRule, "no spill": Unspilled, "scorer": CurveScorer}
SIDES: Sides = {**ONE, **TWO}
GUARDED = (CurveScorer, Unspilled)
CASES = {
    "mid, 15 ms": (affine(2_000, 500, 32), 15_000),
    "mid, 60 ms": (affine(2_000, 500, 32), 60_000),
    "steep, 20 ms": (affine(500, 900, 32), 20_000),
    "flat, 70 ms": (affine(12_000, 250, 64), 70_000),
    "slow, 100 ms": (affine(20_000, 1_500, 64), 100_000),
    "slow, 300 ms": (affine(20_000, 1_500, 64), 300_000),
}
PAIRS = {
    "mid + 1/8, 60 ms": (affine(2_000, 500, 32), affine(2_000, 16_000, 8), 60_000),
    "mid + 1/3, 30 ms": (affine(2_000, 500, 32), affine(2_000, 6_000, 8), 30_000),
    "lone + 1/4, 40 ms": (affine(0, 3_000, 8), affine(0, 12_000, 8), 40_000),
    "lone + 1/10, 100 ms": (affine(0, 3_000, 8), affine(0, 30_000, 8), 100_000),
    "lone + lone, 40 ms": (affine(0, 3_000, 8), affine(0, 3_000, 8), 40_000),
    "lone + too slow, 40 ms": (affine(0, 3_000, 8), affine(0, 60_000, 8), 40_000),
}
"""A fast device, a slower one, and the SLO; `lone`: batches bring nothing."""
LOADS = (*SHAPES, "mmpp")
STEP_S = 0.5
SLO_MS = 60.0
PROBE_S = 3.0
SIZES = (1, 4, 16)
CHIP = "vnpu:rk3588"
SLOW = 1000.0
"""Times that the slowest device's memory is slower than the chip's, so that this host has hardly anything to do."""
FASTER = 4.0
"""Times that of two devices the first one's is faster."""
REAL = (0.3, 0.8, 1.3, 0.5, 1.6, 0.2)


def scene(case: str, load: str, *, heat: bool, seed: int) -> ServingScene:
    *curves, slo_us = PAIRS[case] if case in PAIRS else CASES[case]
    most = capacity(curves[0])
    if load == "mmpp":
        arrivals = switching(0.3 * most, 1.4 * most, 0.4, 6 * STEP_S, seed)
    else:
        arrivals = stepwise([each * most for each in SHAPES[load]], STEP_S, seed)
    slower = ((1_000_000, 2.0), (2_000_000, 1.0)) if heat else ()
    devices = (
        SimulatedDevice(name="npu", curve=curves[0], slower=slower),
        *(SimulatedDevice(name="second", curve=each) for each in curves[1:]),
    )
    return ServingScene(arrivals_us=arrivals, slo_us=slo_us, devices=devices, noise=noise(seed))


def candidates(case: str) -> list[ServingSetting]:
    curve, *slower, slo_us = PAIRS[case] if case in PAIRS else CASES[case]
    spills = (0.0, slo_us / 2) if slower else (0.0,)
    return [
        ServingSetting(us, places, spill)
        for _, us in curve.points[::2]
        for places in (1024, 64, 16, 4)
        for spill in spills
    ]


def simulated(devices: int, seeds: int, cases: Sequence[str], *, with_oracle: bool) -> dict[str, dict[str, Any]]:
    """Scene → side → mean share in time, p99, and what the second device answered."""
    found: dict[str, dict[str, Any]] = {}
    for case in cases or (CASES if devices == 1 else PAIRS):
        for load in LOADS:
            for heat in (False, True):
                ends: dict[str, list[SimulatedServer]] = {}
                for seed in range(seeds):
                    here = scene(case, load, heat=heat, seed=seed)
                    for side, make in (ONE if devices == 1 else TWO).items():
                        ends.setdefault(side, []).append(play(here, make(OWN), OWN, guarded=make in GUARDED))
                    if devices == 1:
                        ends.setdefault("slo/2, whole", []).append(
                            play(here, SloRule(OWN), OWN, guarded=False, whole=True)
                        )
                    if with_oracle:
                        best = oracle(here, OWN, candidates(case), look_us=200_000, ahead_us=500_000)
                        ends.setdefault("oracle", []).append(best)
                        tried = simulating(here, OWN, candidates(case), look_us=LOOK_US, ahead_us=500_000)
                        ends.setdefault("simulating", []).append(tried)
                name = f"{case}, {load}{', heat' if heat else ''}"
                found[name] = {side: figures(each) for side, each in ends.items()}
                print("  ", name, {side: round(each["share"], 3) for side, each in found[name].items()}, flush=True)
    return found


def figures(ends: Sequence[SimulatedServer]) -> dict[str, float]:
    answered = [each.answered for each in ends]
    return {
        "share": statistics.mean(goodput_share(each) for each in ends),
        "p99_slo": statistics.mean((p99_us(each) or 0.0) / each.scene.slo_us for each in ends),
        "second": statistics.mean(each.get("second", 0) / max(sum(each.values()), 1) for each in answered),
    }


def table(found: dict[str, dict[str, Any]]) -> None:
    sides = list(next(iter(found.values())))
    print(f"\n| answered in time, all {len(found)} scenes | " + " | ".join(sides) + " |\n|" + "---|" * (len(sides) + 1))
    for word in (*LOADS, "heat", ""):
        rows = [each for name, each in found.items() if word in name]
        means = [statistics.mean(each[side]["share"] for each in rows) for side in sides]
        print(f"| {word or 'all'} | " + " | ".join(f"{mean:.1%}" for mean in means) + " |")
    worst = [min(each[side]["share"] - each["own"]["share"] for each in found.values()) for side in sides]
    print("| worst scene against own | " + " | ".join(f"{each:+.1%}" for each in worst) + " |")
    misses = [statistics.mean(1 - each[side]["share"] for each in found.values()) for side in sides]
    print("| misses, times own | " + " | ".join(f"{each / max(misses[0], 1e-9):.2f}" for each in misses) + " |")
    p99 = [statistics.median(each[side]["p99_slo"] for each in found.values()) for side in sides]
    print("| p99 of the answered, of the SLO (median) | " + " | ".join(f"{each:.2f}" for each in p99) + " |")
    second = [statistics.mean(each[side]["second"] for each in found.values()) for side in sides]
    if any(second):
        print("| answered by the second device | " + " | ".join(f"{each:.1%}" for each in second) + " |")


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


def made(scratch: Path, devices: Sequence[str]) -> Path:
    """A repository with one model, as artifacts of several batches for virtual NPUs."""
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
    tables = "".join(f'[[device]]\ntarget = "{CHIP}"\nname = "{device}"\n' for device in devices)
    (version.parent / "model.toml").write_text(
        f'inline = "never"\n{tables}[padding]\nrows = true\n[queue]\ndefault_timeout_ms = {SLO_MS}\n'
    )
    return version.parent.parent


class Bench:
    """A model on virtual devices, and one server after another over them."""

    def __init__(self, devices: int) -> None:
        from client import Call  # noqa: PLC0415 - the real part alone needs what it imports
        from exchanges import oip_binary  # noqa: PLC0415
        from served_models import ServedModel  # noqa: PLC0415

        scratch = Path(tempfile.mkdtemp(prefix="hs-serving-"))
        self.devices = [f"adapt{os.getpid()}-{number}" for number in range(devices)]
        self._repository = made(scratch, self.devices)
        x = np.zeros((1, 1, 28, 28), np.float32)
        self._exchange = oip_binary(
            ServedModel(
                name="tiny",
                path=self._repository,
                max_rows=1,
                inputs={"x": x},
                output="y",
                answer=np.zeros(1, "f"),
            )
        )
        self._call = lambda port: Call(self._exchange.http_bytes(f"127.0.0.1:{port}"), lambda _: "")

    def up(self) -> None:
        for before_last, device in enumerate(reversed(self.devices)):
            device_order("up", CHIP, "--name", device, "--pacing", "realtime")
            device_order("inject", device, "slow_dma", "--factor", str(SLOW / FASTER**before_last))

    def down(self) -> None:
        for device in self.devices:
            device_order("down", device, check=False)

    def status(self) -> list[dict[str, Any]]:
        return [json.loads(device_order("status", each, "--json"))["telemetry"] for each in self.devices]

    def once(self, side: str, rates: list[float], seed: int) -> list[Any]:
        """One server and its load; without rates as much as it can answer, for `PROBE_S`."""
        argv = [sys.executable, __file__, "--serve", side, "--folder", str(self._repository)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as child:
            port = int(next(iter(child.stdout or ())))
            try:
                wait_ready(port)
                return uvloop.run(self._load(port, rates, seed))
            finally:
                child.terminate()

    async def _load(self, port: int, rates: list[float], seed: int) -> list[Any]:
        from client import closed_loop, open_loop  # noqa: PLC0415

        samples: list[Any] = []
        call = self._call(port)
        if not rates:  # as many as two of the largest batches, each sent when the last one was answered
            stop = asyncio.Event()
            asyncio.get_running_loop().call_later(PROBE_S, stop.set)
            await closed_loop(port, lambda: call, 2 * max(SIZES), stop, samples)
        for number, rate in enumerate(rates):
            await open_loop(port, lambda: call, rate, 1.5, samples, seed=10 * seed + number)
        return samples


def device_order(*words: str, check: bool = True) -> str:
    from ours import NPUOPS  # noqa: PLC0415

    return subprocess.run([str(NPUOPS), "device", *words], check=check, stdout=subprocess.PIPE, text=True).stdout


def real(devices: int, turns: int) -> list[dict[str, Any]]:
    """All sides in turns over the same devices."""
    bench, found = Bench(devices), list[dict[str, Any]]()
    sides = ONE if devices == 1 else TWO
    try:
        bench.up()
        most = sum(each.outcome == "ok" for each in bench.once("slo/2", [], 99)) / PROBE_S
        print(f"   about {most:.0f}/s", flush=True)
        for turn in range(turns):
            for side in sides:
                before = bench.status()
                samples = bench.once(side, [each * most for each in REAL], turn)
                found.append({"side": side, **told(samples, before, bench.status())})
                print("  ", found[-1], flush=True)
    finally:
        bench.down()
    least = 1 / found[0]["requests"]  # a single miss
    print(f"\n| real server, SLO {SLO_MS:g} ms | in time | misses, times own | p99 ms | times own | second | mJ |")
    print("|---|---|---|---|---|---|---|")
    medians = {side: {key: median(found, side, key) for key in KEYS} for side in sides}
    own = medians["own"]
    for side, each in medians.items():
        misses = (1 - each["share"]) / max(1 - own["share"], least)
        print(
            f"| {side} | {each['share']:.1%} | {misses:.2f} | {each['p99_ms']:.1f} | "
            f"{each['p99_ms'] / max(own['p99_ms'], 1e-9):.2f} | {each['second']:.1%} | {each['mj']:.2f} |"
        )
    return found


KEYS = ("share", "p99_ms", "second", "mj")


def median(found: Sequence[dict[str, Any]], side: str, key: str) -> float:
    return statistics.median(each[key] for each in found if each["side"] == side)


def told(samples: list[Any], before: list[dict[str, Any]], after: list[dict[str, Any]]) -> dict[str, Any]:
    """Of one turn. In time: right answers within the SLO and a little for the way there."""
    ok = [each.latency_s for each in samples if each.outcome == "ok"]
    runs = [late["completions"] - early["completions"] for early, late in zip(before, after, strict=True)]
    above_idle_uj = sum(
        (late["energy_uj"] - early["energy_uj"]) - (late["idle_energy_uj"] - early["idle_energy_uj"])
        for early, late in zip(before, after, strict=True)
    )
    return {
        "share": sum(each * 1000 <= SLO_MS * 1.05 for each in ok) / len(samples),
        "p99_ms": float(np.percentile(ok, 99)) * 1000 if ok else 0.0,
        "second": sum(runs[1:]) / max(sum(runs), 1),
        "mj": above_idle_uj / 1e3 / max(len(ok), 1),
        "requests": len(samples),
    }


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
    parser.add_argument("--devices", type=int, choices=(1, 2), default=1)
    parser.add_argument("--oracle", action="store_true")
    parser.add_argument("--case", action="append", choices=[*CASES, *PAIRS], help="one of them (again and again)")
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
        found["simulated"] = simulated(options.devices, options.seeds, options.case or (), with_oracle=options.oracle)
        table(found["simulated"])
    if options.real or options.only_real:
        found["real"] = real(options.devices, options.turns)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
