"""npuops' own server asked at a steady rate, beside compression."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

from npuops.errors import ToolchainCrashError, ToolchainTimeoutError
from npuops.hostsched.hint import Kind
from npuops.schedlab.batch_programs import XZ_NEEDS, xz
from npuops.schedlab.open_loop import asking, poisson_ns
from npuops.schedlab.program_load import Cast, ProgramLoad, Scene, http_request
from npuops.schedlab.program_roles import ProgramRole

_RATE_PER_S: Final = 200.0
_BUILD_S: Final = 300.0
_SIDE: Final = 8
_NPUOPS: Final = (sys.executable, "-m", "npuops.cli.main")


def _set_up(scene: Scene) -> Cast:
    options = ["--http-port", "0", "--no-grpc", "--hints", "--json"]
    server = scene.start("server", [*_NPUOPS, "serve", _artifact(scene.folder), *options])
    model = server.await_said(r'"model": ?"([^"]+)"[^}]*"event": ?"loaded"')[1]
    port = int(server.await_said(r'"http": ?(\d+)')[1])
    batch, meter = xz(scene)
    arrivals = poisson_ns(scene.seed, _RATE_PER_S, scene.window_ns)
    tensor = {"name": "image", "shape": [1, 1, _SIDE, _SIDE], "datatype": "FP32", "data": [0.5] * _SIDE**2}
    request = http_request("POST", f"/v2/models/{model}/infer", json.dumps({"inputs": [tensor]}).encode("ascii"))
    client = scene.stack.enter_context(asking(port, "http", request, arrivals, scene.window_ns, scene.folder))
    role = ProgramRole("server", Kind.LATENCY, server.pid, ("*python*", "npuops*"))
    return Cast(scene.cast(role, batch), client, meter, client.ahead)


def _artifact(folder: Path) -> Path:
    """A small model, built for the CPU.

    Raises:
        ToolchainCrashError: it cannot be.
        ToolchainTimeoutError: it is not within five minutes.
    """
    words = [*_NPUOPS, "build", "zoo:digits-cnn", "--target", "ort-cpu", "-o", str(folder / "artifact")]
    try:
        ended = subprocess.run(words, capture_output=True, text=True, timeout=_BUILD_S, check=False)  # noqa: S603 - ours
    except subprocess.TimeoutExpired as error:
        raise ToolchainTimeoutError(f"npuops build did not end within {_BUILD_S:g} s") from error
    if ended.returncode:
        raise ToolchainCrashError(f"npuops build ended with {ended.returncode}: {ended.stderr.strip()[-1000:]}")
    return folder / "artifact"


SERVER: Final = ProgramLoad(
    "npuops-serve-xz",
    f"npuops serve of a small network, {_RATE_PER_S:g} requests a second, beside xz",
    5000,
    XZ_NEEDS,
    _set_up,
    hints=True,
)
