"""A8W8 quantization beside plain onnxruntime.quantization, per channel: whole processes in turns, and the ratio.

./run bench quantize_time [mobilenet] [minilm]
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from minilm import minilm
from quantizers import HERE, save

from npuops.cli.demo_models import mobilenet
from npuops.errors import NpuopsError
from npuops.evaluate.samples import Samples

TURNS = 7


def main() -> None:
    wanted = sys.argv[1:] or ["mobilenet", "minilm"]
    print("| model | ours, s | plain, s | ours / plain | median of pairs | CPU time, ours / plain |")
    print("|---|---|---|---|---|---|")
    if "mobilenet" in wanted:
        try:
            demo = mobilenet()
        except NpuopsError as error:
            print(f"MobileNetV2 skipped: {error.message}")
        else:
            row("MobileNetV2", demo.path, demo.calibration)
    if "minilm" in wanted:
        model, calibration, _ = minilm()
        row("MiniLM-L6", model, calibration)


def row(title: str, model: Path, calibration: Samples) -> None:
    with tempfile.TemporaryDirectory(prefix="npuops-quantize-time-") as name:
        data = Path(name) / "calibration.npz"
        save(calibration, data)
        ours, plain = [], []
        for _ in range(TURNS):
            plain.append(timed("peer_ort.py", model, data, "per-channel"))
            ours.append(timed("peer_ours.py", model, data, "a8w8"))
    wall, cpu = (tuple(statistics.median(run[part] for run in runs) for runs in (ours, plain)) for part in (0, 1))
    pairs = statistics.median(mine[0] / theirs[0] for mine, theirs in zip(ours, plain, strict=True))
    print(
        f"| {title}, {len(calibration)} samples | {wall[0]:.2f} | {wall[1]:.2f} | {wall[0] / wall[1]:.2f} |"
        f" {pairs:.2f} | {cpu[0] / cpu[1]:.2f} |",
        flush=True,
    )


def timed(script: str, model: Path, data: Path, mode: str) -> tuple[float, float]:
    """Wall and CPU seconds of one whole process."""
    out = data.with_name("out.onnx")
    started = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, str(HERE / script), str(model), str(data), str(out), mode],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{script} failed ({child.returncode})")
    return time.perf_counter() - started, usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
