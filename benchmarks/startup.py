"""Start-up: `npuops --help` (goal < 150 ms), `npuops check` on MobileNetV2 (goal < 2 s), and `npuops serve`: until its
port is open, until a small model is ready, and until it has ended. Median of repeats.

    ./run bench startup

All are compared with a bare interpreter, in turns, so that a busy machine slows all of them.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPEATS = 11
SHARED = Path(os.environ.get("NPUOPS_SHARED", Path(__file__).resolve().parents[2] / "shared"))
MOBILENET = SHARED / "models" / "vision" / "mobilenet_v2_1.0_224_fp32.onnx"


def seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def serve_seconds(npuops: str, artifact: Path) -> dict[str, float]:
    """Of one server, from its start: listening, ready; and from SIGTERM to its end."""
    started = time.perf_counter()
    command = [npuops, "serve", str(artifact), "--http-port", "0", "--no-grpc", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        assert server.stdout is not None  # noqa: S101 - it was asked for
        seen: dict[str, float] = {}
        for line in server.stdout:
            said = json.loads(line)
            if said["event"] == "Listening":
                seen["npuops serve, listening"] = time.perf_counter() - started
            elif said["detail"].get("event") == "loaded":
                seen["npuops serve, ready"] = time.perf_counter() - started
                break
        asked = time.perf_counter()
        server.terminate()
        server.stdout.read()
        server.wait()
        return {**seen, "npuops serve, from SIGTERM to its end": time.perf_counter() - asked}


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
    with tempfile.TemporaryDirectory() as folder:
        artifact = Path(folder) / "digits"
        build = [npuops, "build", "zoo:digits-cnn", "--target", "ort-cpu", "-o", str(artifact)]
        subprocess.run(build, check=True, capture_output=True)
        for _ in range(REPEATS):
            for name, command in commands.items():
                times[name].append(seconds(command))
            for name, value in serve_seconds(npuops, artifact).items():
                times.setdefault(name, []).append(value)
    bare = statistics.median(times["python -c pass"])
    for name, values in times.items():
        middle = statistics.median(values)
        print(f"{name:55s} {middle * 1e3:8.0f} ms   {middle / bare:6.1f} x a bare interpreter")


if __name__ == "__main__":
    main()
