"""A 1 MB round trip to a virtual NPU in `fast` pacing (goal < 100 µs beyond the compute), beside a pipe copy.

    ./run bench vnpu_roundtrip

Five ways in 40 turns of 25, so that a busy machine slows all of them; the medians count:

- `pipe`: the same megabyte to a child process through a pipe, and back through another.
- `in place`: the client's arrays are the device's memory; nothing is computed.
- `in place, Identity`: ONNX Runtime copies the megabyte in the device; the same graph alone is taken off.
- `run`: the arrays are the client's own, so they are copied in and out as well; nothing is computed.
- `Identity alone`: the graph without a device, to be taken off.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, save

from npuops.vnpu.client import connect
from npuops.vnpu.daemon import Order
from npuops.vnpu.device_switch import up_private
from npuops.vnpu.pacing import Pacing
from npuops.vnpu.program import Program, Step
from npuops.vnpu.spec import MachineSpec, ThermalSpec
from npuops.vnpu.tensors import TensorSpec
from npuops.vnpu.versions import Versions

GOAL_US = 100
FLOATS = 1 << 18
TURNS = 40
IN_A_ROW = 25
WARM_UP = 5
ECHO = (
    "import os\n"
    "buffer = bytearray(1 << 20)\n"
    "view = memoryview(buffer)\n"
    "while True:\n"
    "    got = 0\n"
    "    while got < len(view):\n"
    "        piece = os.readv(0, [view[got:]])\n"
    "        if not piece: raise SystemExit\n"
    "        got += piece\n"
    "    sent = 0\n"
    "    while sent < len(view):\n"
    "        sent += os.write(1, view[sent:])\n"
)
SPEC = MachineSpec(
    name="bench",
    cores=1,
    clock_points_mhz=(1000.0,),
    dram_bytes=1 << 28,
    sram_bytes=1 << 20,
    idle_w=0.1,
    busy_w=1.0,
    power_exponent=2.0,
    thermal=ThermalSpec(
        junction_r_c_per_w=1.0,
        junction_c_j_per_c=1.0,
        case_r_c_per_w=5.0,
        case_c_j_per_c=20.0,
        throttle_c=90.0,
        resume_c=80.0,
        critical_c=110.0,
    ),
    released=Versions(driver="1.0", firmware="1.0", compiler="1.0"),
    boot_us=0,
    reset_us=1000,
    time_slice_us=2000,
)
PROGRAM = Program(
    steps=tuple(Step(name=f"layer_{number}", op="Conv", compute_us=20.0, memory_us=10.0) for number in range(50)),
    weights_bytes=1 << 20,
    activation_bytes=1 << 10,
    input_bytes=FLOATS * 4,
    output_bytes=FLOATS * 4,
    ops=frozenset({"Conv"}),
)


def identity(folder: Path) -> Path:
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [FLOATS]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "identity", value[:1], value[1:])
    path = folder / "identity.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@contextmanager
def echo() -> Iterator[tuple[int, int]]:
    """A child process, and the descriptors towards it and back."""
    with subprocess.Popen([sys.executable, "-c", ECHO], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        if child.stdin is not None and child.stdout is not None:
            yield child.stdin.fileno(), child.stdout.fileno()
        child.kill()


def pipe_echo(there: int, here: int, out: memoryview, back: memoryview) -> None:
    """The child answers when it has read everything, so full pipes cannot make both wait."""
    sent = 0
    while sent < len(out):
        sent += os.write(there, out[sent:])
    got = 0
    while got < len(back):
        got += os.readv(here, [back[got:]])


def measure(ways: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(TURNS):
        for name, way in ways.items():
            for number in range(WARM_UP + IN_A_ROW):
                started = time.perf_counter_ns()
                way()
                if number >= WARM_UP:
                    found[name].append((time.perf_counter_ns() - started) / 1e3)
    return found


def main() -> None:
    x = np.random.default_rng(0).normal(size=FLOATS).astype(np.float32)
    out, back = memoryview(x).cast("B"), memoryview(bytearray(FLOATS * 4))
    sides = [TensorSpec("x", "float32", (FLOATS,))], [TensorSpec("y", "float32", (FLOATS,))]
    with tempfile.TemporaryDirectory(prefix="npuops-bench-") as scratch:
        os.environ["NPUOPS_DEVICES"] = f"{scratch}/devices"
        model = identity(Path(scratch))
        alone = onnxruntime.InferenceSession(str(model))
        with (
            up_private(Order(name="bench", spec=SPEC, pacing=Pacing.FAST)),
            connect("bench") as client,
            echo() as (there, here),
        ):
            plain, computing = client.load(PROGRAM, *sides), client.load(PROGRAM, *sides, model=model)
            computing.inputs[0]["x"][:] = x
            ways: dict[str, Callable[[], object]] = {
                "pipe": lambda: pipe_echo(there, here, out, back),
                "in place": lambda: plain.wait(plain.submit(0)),
                "in place, Identity": lambda: computing.wait(computing.submit(0)),
                "run": lambda: plain.run({"x": x}),
                "Identity alone": lambda: alone.run(None, {"x": x}),
            }
            times = measure(ways)
            if bytes(back) != bytes(out) or (computing.outputs[0]["y"] != x).any():
                raise SystemExit("the numbers that came back are not those that went out")
    report(times)


def report(times: dict[str, list[float]]) -> None:
    middle = {name: statistics.median(values) for name, values in times.items()}
    for name, values in times.items():
        late = sorted(values)[len(values) * 99 // 100]
        print(
            f"{name:20s} {middle[name]:8.1f} µs   p99 {late:8.1f} µs   {middle['pipe'] / middle[name]:6.1f} x the pipe"
        )
    beyond = {
        "in place": middle["in place, Identity"] - middle["Identity alone"],
        "run, copied in and out": middle["run"],
    }
    for name, us in beyond.items():
        print(
            f"beyond the compute, {name}: {us:.1f} µs; goal < {GOAL_US} µs: {'reached' if us < GOAL_US else 'missed'}"
        )


if __name__ == "__main__":
    main()
