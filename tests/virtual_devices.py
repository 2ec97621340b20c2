"""Virtual NPUs for tests: real daemons in a home of the test's own, and the promise that nothing of them stays."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from onnx import TensorProto, helper, save

from conftest import ROOT
from npuops.config import load_options
from npuops.vnpu.daemon import Order
from npuops.vnpu.device_folder import all_folders
from npuops.vnpu.device_switch import down, up
from npuops.vnpu.pacing import Pacing
from npuops.vnpu.program import Program, Step
from npuops.vnpu.spec import MachineSpec
from npuops.vnpu.tensors import TensorSpec

SPEC_FILE = ROOT / "examples" / "vnpu" / "toy-npu.toml"
SPEC = load_options(MachineSpec, SPEC_FILE)

X = (TensorSpec("x", "float32", (4, 8)),)
Y = (TensorSpec("y", "float32", (4, 8)),)


def program(us: float = 1_000.0, *, steps: int = 10, weights_bytes: int = 1 << 20, op: str = "Relu") -> Program:
    """So many steps of equal length, `us` together at the top clock."""
    parts = tuple(Step(name=f"layer_{number}", op=op, compute_us=us / steps, memory_us=0.0) for number in range(steps))
    return Program(
        steps=parts,
        weights_bytes=weights_bytes,
        activation_bytes=1024,
        input_bytes=4096,
        output_bytes=4096,
        ops=frozenset({op}),
    )


def relu_model(folder: Path) -> Path:
    """An ONNX file that `X`, `Y` and `program()` fit."""
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 8]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = folder / "relu.onnx"
    save(model, path)
    return path


def slow_model(folder: Path) -> Path:
    """An ONNX file that `X`, `Y` and `program()` fit, and that takes a processor some seconds."""
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 8]) for name in ("x", "y")]
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [512, 512])
    count = helper.make_tensor("count", TensorProto.INT64, [], [2_000])
    step = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("MatMul", ["m_in", "m_in"], ["m_out"])],
        "step",
        [
            helper.make_tensor_value_info("number", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("m_in", TensorProto.FLOAT, [512, 512]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("m_out", TensorProto.FLOAT, [512, 512]),
        ],
    )
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=0),
        helper.make_node("Expand", ["mean", "shape"], ["m"]),
        helper.make_node("Loop", ["count", "", "m"], ["last"], body=step),
        helper.make_node("ReduceMax", ["last"], ["most"], keepdims=0),
        helper.make_node("Min", ["x", "most"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "slow", value[:1], value[1:], [shape, count])
    path = folder / "slow.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def order(name: str = "npu0", pacing: Pacing = Pacing.FAST, **rest: object) -> Order:
    """A device of `SPEC`."""
    return Order(name=name, spec=SPEC, pacing=pacing, **rest)  # type: ignore[arg-type]


@contextmanager
def home_at(folder: Path) -> Iterator[Path]:
    """A home for devices; at the end all are down, and no process, socket or tree is left."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NPUOPS_DEVICES", str(folder))
        yield folder
        for each in all_folders():
            down(each.name)
    wait_until(lambda: processes(folder) == [], "processes of the devices are left")
    assert list(folder.glob("*/socket")) == []
    assert list(folder.glob("sys/class/accel/*")) == []


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """For one test."""
    with home_at(tmp_path / "devices") as folder:
        yield folder


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of a device in fast pacing that the tests of a file share: it must survive them all."""
    with home_at(tmp_path_factory.mktemp("devices") / "home"):
        record = up(order())
        yield record.name
        assert is_alive(record.pid)


@pytest.fixture
def manual(home: Path) -> str:
    """The name of a device whose clock the test moves."""
    del home
    return up(order(pacing=Pacing.MANUAL)).name


def processes(home: Path) -> list[int]:
    """Daemons and keepers of that home."""
    wanted = f"NPUOPS_DEVICES={home}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            ours = b"npuops.vnpu.daemon" in (folder / "cmdline").read_bytes()
            if ours and wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:  # it ended meanwhile
            continue
    return found


def segments_of(pid: int) -> int:
    """Tensors that a process has mapped."""
    return Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").count("memfd:npuops-tensors")


def descriptors_of(pid: int) -> int:
    """Files that a process has open."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def wait_until(holds: object, complaint: str, limit_s: float = 60.0) -> None:
    """What the other process does is awaited, never assumed; the limit is for machines that have much else to do."""
    deadline = time.monotonic() + limit_s
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < deadline, complaint
        time.sleep(0.005)


def is_alive(pid: int) -> bool:
    """Whether a process runs, zombies aside."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def kill(pid: int) -> None:
    """At once, and wait for the end."""
    os.kill(pid, 9)
    wait_until(lambda: not is_alive(pid), f"process {pid} survives SIGKILL")
