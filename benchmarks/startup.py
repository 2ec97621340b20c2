"""Start-up: `npuops --help` (goal < 150 ms) and `npuops check` on MobileNetV2 (goal < 2 s), median of repeats.

    ./run bench startup

Both are compared with a bare interpreter, in turns, so that a busy machine slows all of them.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

REPEATS = 11
SHARED = Path(os.environ.get("NPUOPS_SHARED", Path(__file__).resolve().parents[2] / "shared"))
MOBILENET = SHARED / "models" / "vision" / "mobilenet_v2_1.0_224_fp32.onnx"


def seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    npuops = str(Path(sys.executable).with_name("npuops"))
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "npuops --help": [npuops, "--help"],
    }
    if MOBILENET.is_file():
        for target in ("qnn-htp:sm8650", "ethos-u:ethos-u85-256"):
            commands[f"npuops check MobileNetV2 -t {target}"] = [npuops, "check", str(MOBILENET), "--target", target]
    else:
        print(f"skipped: {MOBILENET} is absent")
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(REPEATS):
        for name, command in commands.items():
            times[name].append(seconds(command))
    bare = statistics.median(times["python -c pass"])
    for name, values in times.items():
        middle = statistics.median(values)
        print(f"{name:55s} {middle * 1e3:8.0f} ms   {middle / bare:6.1f} x a bare interpreter")


if __name__ == "__main__":
    main()
