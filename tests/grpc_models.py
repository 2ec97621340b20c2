"""Models served over gRPC without a worker: the real front end, and an engine that answers with the inputs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from grpc_served import Served as Running
from grpc_served import served
from npuops.clock import SystemClock
from npuops.errors import DataError, NotServedError, NpuopsError
from npuops.events import Event
from npuops.runtime.job import Completion, Job
from npuops.runtime.signature import Port, Signature
from npuops.runtime.tenant_options import Tenants
from npuops.server.access import Gate, TenantGate
from npuops.server.grpc_health import Health
from npuops.server.grpc_infer import GrpcInfer
from npuops.server.grpc_service import GrpcService
from npuops.server.model_options import ModelOptions
from npuops.server.served_version import ServedVersion
from npuops.server.shared_memory import Regions
from npuops.server.version_spec import VersionSpec


@dataclass
class EchoEngine:
    """Output N is input N. Where it is held, nothing is answered until `go_on`, and then the last first."""

    is_held: bool = False
    jobs: list[Job] = field(default_factory=list)
    waiting: list[Job] = field(default_factory=list)
    cancelled: list[Job] = field(default_factory=list)

    def submit(self, job: Job) -> None:
        self.jobs.append(job)
        if self.is_held:
            self.waiting.append(job)
        else:
            asyncio.get_running_loop().call_soon(self.answer, job)

    def cancel(self, job: Job) -> None:
        self.cancelled.append(job)
        if job in self.waiting:
            self.waiting.remove(job)

    def answer(self, job: Job) -> None:
        memory = [bytearray(part) for part in job.parts]
        job.receiver(job, Completion(memory, job.form.shapes, "ort-cpu:0", fell_back=False))
        for part in memory:
            part[:] = b"\xee" * len(part)  # it is the receiver's only during the call

    def go_on(self) -> None:
        self.is_held = False
        while self.waiting:
            self.answer(self.waiting.pop())


class EchoModel(ServedVersion):
    """One served version; its engine can be exchanged."""

    engine: EchoEngine  # type: ignore[assignment]

    def __init__(self, name: str, version: str, signature: Signature) -> None:
        options = ModelOptions()
        spec = VersionSpec(
            model=name, version=version, artifacts=(), signature=signature, options=options, digest=f"{name}-{version}"
        )
        super().__init__(spec, EchoEngine(), labels={"y0": ["zero", "one", "two", "three"]})  # type: ignore[arg-type]


def echo_model(name: str, *dtypes: str, shape: tuple[int, ...] = (-1, 4)) -> EchoModel:
    ins = tuple(Port(name=f"x{at}", dtype=dtype, shape=shape) for at, dtype in enumerate(dtypes))
    outs = tuple(Port(name=f"y{at}", dtype=dtype, shape=shape) for at, dtype in enumerate(dtypes))
    return EchoModel(name, "1", Signature(inputs=ins, outputs=outs, batched=True, max_rows=1024))


@dataclass
class Lab:
    """What answers, and what the tests look at.

    Attributes:
        cold: models that a request wakes.
        seen: what was reported.
    """

    models: list[EchoModel]
    cold: list[EchoModel] = field(default_factory=list)
    gate: Gate = field(default_factory=lambda: TenantGate(Tenants(unknown="own")))
    regions: Regions | None = None
    loads: list[tuple[str, str, Mapping[str, Any]]] = field(default_factory=list)
    ready: bool = True
    seen: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.serving: dict[tuple[str, str], EchoModel] = {}
        for model in self.models:
            self.serve(model)
        self.infer = GrpcInfer(self.serving, self.wake, SystemClock(), self.gate, self.regions, self.seen.append)
        self.health = Health(self.is_ready, self.model_is_ready, lambda: ["echo"], self.gate)

    def serve(self, model: EchoModel) -> None:
        self.serving[model.name, ""] = self.serving[model.name, model.version] = model

    async def wake(self, name: str, version: str) -> EchoModel:
        del version
        await asyncio.sleep(0)
        for model in self.cold:
            if model.name == name:
                self.serve(model)
                return model
        raise NotServedError(f"no model {name!r} is served", advice="known: echo")

    # the rest of the protocol

    async def load(self, name: str, parameters: Mapping[str, Any]) -> None:
        await asyncio.sleep(0)
        if name == "absent":
            raise NotServedError("no model 'absent' in the repository")
        self.loads.append(("load", name, parameters))

    async def unload(self, name: str, parameters: Mapping[str, Any]) -> None:
        self.loads.append(("unload", name, parameters))

    def server_metadata(self) -> dict[str, Any]:
        return {"name": "npuops", "version": "1", "extensions": ["statistics"]}

    def is_ready(self) -> bool:
        return self.ready

    def _found(self, name: str, version: str) -> EchoModel:
        if (name, version) not in self.serving:
            raise NotServedError(f"no model {name!r} is served")
        return self.serving[name, version]

    def model_is_ready(self, name: str, version: str = "") -> bool:
        self._found(name, version)
        return self.ready

    def model_metadata(self, name: str, version: str = "") -> dict[str, Any]:
        model = self._found(name, version)
        tensors = [{"name": "x0", "datatype": "FP32", "shape": [-1, 4]}]
        return {"name": model.name, "versions": ["1"], "platform": "onnx", "inputs": tensors, "outputs": tensors}

    def model_config(self, name: str, version: str = "") -> dict[str, Any]:
        model = self._found(name, version)
        tensors = [{"name": "x0", "data_type": "TYPE_FP32", "dims": [4]}]
        return {
            "name": model.name,
            "max_batch_size": 8,
            "input": tensors,
            "version_policy": {"specific": {"versions": [1]}},
            "dynamic_batching": {"max_queue_delay_microseconds": 0},
        }

    def model_statistics(self, name: str = "", version: str = "") -> dict[str, Any]:
        del version
        stats = {"queue": {"count": 3, "ns": 2**40}}
        return {"model_stats": [{"name": name or "echo", "version": "1", "inference_stats": stats}]}

    def index(self, *, ready_only: bool) -> list[dict[str, Any]]:
        lines = [{"name": "echo", "version": "1", "state": "READY", "reason": ""}]
        return lines if ready_only else [*lines, {"name": "bad", "version": "", "state": "UNAVAILABLE", "reason": "no"}]

    def shared_memory(self) -> Regions:
        if self.regions is None:
            raise DataError("shared memory with clients is off on this server")
        return self.regions


@contextmanager
def lab_served(lab: Lab) -> Iterator[Running]:
    methods = {**GrpcService(lab, lab.infer, lab.gate).methods(), **lab.health.methods()}
    with served(methods, on_drain=(lab.infer.drain, lab.health.stop)) as it:
        yield it


class Refusing(EchoEngine):
    """Answers everything with one error."""

    error: NpuopsError

    def answer(self, job: Job) -> None:
        job.receiver(job, self.error)
