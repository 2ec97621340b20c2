from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import hostile_worker as order
from engine_lab import REAL, ROWS, Got, engine_of, gone, hostile, row, run, served, until
from npuops.errors import DeviceError, IntegrityError, NpuopsError, RunError
from npuops.runtime.facts import BatchRan, ColdCause, DeviceChanged
from npuops.runtime.signature import Port, Signature
from served_artifacts import identity, ort_artifact, save, tiny_cnn

KINDS = {
    "bool": TensorProto.BOOL,
    "int8": TensorProto.INT8,
    "int16": TensorProto.INT16,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "uint8": TensorProto.UINT8,
    "uint16": TensorProto.UINT16,
    "uint32": TensorProto.UINT32,
    "uint64": TensorProto.UINT64,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
}


@pytest.mark.slow
def test_every_dtype_comes_back_bit_for_bit(tmp_path: Path) -> None:
    async def one(dtype: str, kind: int) -> None:
        artifact = ort_artifact(tmp_path / dtype, identity(tmp_path / f"{dtype}.onnx", kind))
        spec, signature = served(artifact)
        values = np.arange(12).reshape(3, 4).astype(dtype)
        async with engine_of([spec], signature, module=REAL) as lab:
            got = await asyncio.gather(lab.ask(values), lab.ask(values[:1]), lab.ask(values[1:]))
            for answer, sent in zip(got, (values, values[:1], values[1:]), strict=True):
                assert isinstance(answer, Got), (dtype, answer)
                np.testing.assert_array_equal(answer.outputs[0], sent)

    async def main() -> None:
        for dtype, kind in KINDS.items():
            await one(dtype, kind)

    run(main())


def text(*words: str) -> bytes:
    return b"".join(len(word.encode()).to_bytes(4, "little") + word.encode() for word in words)


@pytest.mark.parametrize("batch", ["N", 4])
def test_text_comes_back_as_it_was_and_what_fills_up_a_batch_is_cut_off(tmp_path: Path, batch: int | str) -> None:
    artifact = ort_artifact(tmp_path / "a", identity(tmp_path / "t.onnx", TensorProto.STRING, shape=(batch, 2)))
    spec, _ = served(artifact)
    port = Port(name="x", dtype="string", shape=(-1, 2))
    signature = Signature(inputs=(port,), outputs=(port,), batched=True, max_rows=4)
    if batch == 4:
        spec = type(spec)(
            name="cpu", target="ort-cpu", artifacts=spec.artifacts, buckets=(type(spec.buckets[0])(0, 4, ((2,),)),)
        )

    async def main() -> None:
        async with engine_of([spec], signature, module=REAL, max_request_bytes=1 << 20) as lab:
            words = [text("é", ""), text("longer", "x" * 1000), text("", "")]
            blank = np.zeros((1, 2), np.uint8)
            got = await asyncio.gather(*(lab.send([blank], parts=[part])[1] for part in words))
            for answer, sent in zip(got, words, strict=True):
                assert isinstance(answer, Got), answer
                assert answer.outputs[0][()] == sent
                assert answer.shapes == ((1, 2),)
            cut_off = await lab.send([blank], parts=[text("é", "")[:-2]])[1]
            assert isinstance(cut_off, NpuopsError)

    run(main())


def test_bfloat16_is_refused_at_load_with_a_reason_or_served_bit_for_bit(tmp_path: Path) -> None:
    artifact = ort_artifact(tmp_path / "a", identity(tmp_path / "b.onnx", TensorProto.BFLOAT16))
    spec, signature = served(artifact)
    values = np.arange(4, dtype=np.uint16).reshape(1, 4)

    async def main() -> None:
        async with engine_of([spec], signature, module=REAL) as lab:
            _, future = lab.send([values])
            got = await future
            assert isinstance(got, RunError | Got), got

    run(main())


def test_tensors_without_elements_and_models_without_inputs_are_served(tmp_path: Path) -> None:
    constant = helper.make_node(
        "Constant", [], ["y"], value=onnx.numpy_helper.from_array(np.arange(3, dtype=np.float32))
    )
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3])]
    alone = ort_artifact(
        tmp_path / "alone", save(tmp_path / "alone.onnx", helper.make_graph([constant], "g", [], outputs))
    )
    free = ort_artifact(tmp_path / "free", identity(tmp_path / "free.onnx", TensorProto.FLOAT, shape=("N", "M")))

    async def main() -> None:
        spec, signature = served(alone)
        async with engine_of([spec], signature, module=REAL) as lab:
            got = await asyncio.gather(*(lab.ask() for _ in range(10)))
            assert all(isinstance(each, Got) and each.outputs[0].tolist() == [0, 1, 2] for each in got)
        spec, signature = served(free)
        async with engine_of([spec], signature, module=REAL) as lab:
            empty, full = np.zeros((2, 0), np.float32), np.ones((2, 3), np.float32)
            got = await asyncio.gather(lab.ask(empty), lab.ask(full), lab.ask(empty))
            assert all(isinstance(each, Got) for each in got), got
            assert [each.shapes for each in got if isinstance(each, Got)] == [((2, 0),), ((2, 3),), ((2, 0),)]

    run(main())


def test_a_model_that_only_says_that_its_rows_are_free_is_served_one_by_one(tmp_path: Path) -> None:
    shape = onnx.numpy_helper.from_array(np.array([1, 4], np.int64), "shape")
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        "liar",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [shape],
    )
    spec, signature = served(ort_artifact(tmp_path / "a", save(tmp_path / "liar.onnx", graph)))

    async def main() -> None:
        async with engine_of([spec], signature, module=REAL) as lab:
            got = await asyncio.gather(*(lab.ask(row(each)) for each in range(20)))
            assert [each.outputs[0][0, 0] for each in got if isinstance(each, Got)] == list(range(20))
            assert {batch.rows for batch in lab.of(BatchRan)} == {1}
            assert isinstance(await lab.ask(row(1.0, rows=2)), RunError)

    run(main())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "kind", "words"),
    [
        ("refuse", IntegrityError, "touched"),
        ("lost", DeviceError, "no such device"),
        ("words", RunError, "words"),
        ("exit", RunError, "exit code 7"),
        ("kill", RunError, "SIGKILL"),
        ("nonsense", RunError, "nonsense"),
        ("stop", RunError, "did not load within 1 s"),
    ],
)
def test_a_worker_that_cannot_load_says_why_and_is_gone(how: str, kind: type[NpuopsError], words: str) -> None:
    async def main() -> None:
        limit_s = 1.0 if how == "stop" else 60.0
        async with engine_of([hostile(environment={order.LOAD: how})], start=False, open_limit_s=limit_s) as lab:
            with pytest.raises(kind, match=words) as caught:
                await lab.engine.start(ColdCause.LOAD)
            assert len(caught.value.message) < 5_000
            pid = lab.engine.replicas.all[0].pid
            await lab.engine.close()
            assert gone(pid)

    run(main())


def test_one_device_that_cannot_load_does_not_keep_the_other_from_serving() -> None:
    async def main() -> None:
        bad = hostile("bad", environment={order.LOAD: "refuse"})
        async with engine_of([bad, hostile("good")]) as lab:
            got = await lab.ask(row(1.0))
            assert isinstance(got, Got)
            assert got.device == "good"
            states = lab.engine.replicas.states()
            assert states["bad"] == ("sick", "these files were touched")
            starts = [fact for fact in lab.of(DeviceChanged) if fact.device == "bad" and fact.state == "starting"]
            assert len(starts) == 1, "what was touched does not heal"

    run(main())


def test_a_worker_dies_with_its_server(tmp_path: Path) -> None:
    """Also while it is at work, and does not look at its socket."""
    pids = tmp_path / "pids"

    async def server() -> None:
        async with engine_of([hostile()], spares=1) as lab:
            lab.ask(row(order.STOP))
            await until(lambda: _state(lab.engine.replicas.all[0].pid) == "T", "it is not at work")
            await until(lambda: lab.spares.pids, "there is no spare")
            pids.write_text(f"{lab.engine.replicas.all[0].pid} {lab.spares.pids[0]}", encoding="ascii")
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if not child:
        try:
            run(server())
        finally:
            os._exit(1)
    os.waitpid(child, 0)
    workers = [int(pid) for pid in pids.read_text(encoding="ascii").split()]

    async def main() -> None:
        await until(lambda: all(_dead(pid) for pid in workers), "a worker outlives its server")

    asyncio.run(main())


def _dead(pid: int) -> bool:
    return _state(pid) in {"Z", ""}


def _state(pid: int) -> str:
    """The kernel's letter for it; empty where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return ""


def test_an_artifact_that_was_replaced_is_not_loaded_by_a_restart(tmp_path: Path) -> None:
    artifact = ort_artifact(tmp_path / "a", tiny_cnn(tmp_path / "tiny.onnx"))
    other: dict[str, Any] = {"digests": ("sha256:other",)}
    spec, signature = served(artifact, **other)

    async def main() -> None:
        async with engine_of([spec], signature, module=REAL, start=False) as lab:
            with pytest.raises(IntegrityError, match="another artifact"):
                await lab.engine.start(ColdCause.LOAD)

    run(main())


def test_more_tensors_than_a_message_holds_are_refused_before_any_process_starts() -> None:
    ports = tuple(Port(name=f"x{number}", dtype="float32", shape=(-1, 4)) for number in range(4000))

    async def main() -> None:
        with pytest.raises(NpuopsError, match="4000 inputs"):
            async with engine_of([hostile()], Signature(inputs=ports, outputs=ROWS.outputs, batched=True, max_rows=1)):
                pass

    run(main())


def test_hundreds_of_tensors_pass(tmp_path: Path) -> None:
    names = [f"x{number}" for number in range(600)]
    graph = helper.make_graph(
        [helper.make_node("Identity", [name], [f"y{name}"]) for name in names],
        "wide",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 1]) for name in names],
        [helper.make_tensor_value_info(f"y{name}", TensorProto.FLOAT, ["N", 1]) for name in names],
    )
    spec, signature = served(ort_artifact(tmp_path / "a", save(tmp_path / "wide.onnx", graph)))

    async def main() -> None:
        async with engine_of([spec], signature, module=REAL) as lab:
            arrays = [np.full((2, 1), number, np.float32) for number in range(600)]
            got = await lab.ask(*arrays)
            assert isinstance(got, Got), got
            assert [float(output[1, 0]) for output in got.outputs] == list(range(600))

    run(main())
