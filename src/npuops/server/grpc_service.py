"""The methods of gRPC's inference service besides inference: what `Dataplane` tells, as messages."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError

from npuops.errors import DataError, NotReadyError, NotServedError, NpuopsError
from npuops.server.access import Gate, access_of, require_admin
from npuops.server.dataplane import Dataplane, no_cuda
from npuops.server.grpc_call import GrpcCall, Method, Stream, Unary
from npuops.server.grpc_infer import GrpcInfer
from npuops.server.grpc_status import GrpcCallError
from npuops.server.inference_pb import MESSAGES, SERVICE
from npuops.server.status import GrpcStatus, words_of

_log: Final = logging.getLogger("npuops.server")
_OPEN: Final = frozenset({"ServerLive", "ServerReady"})
"""Need no API key, as over HTTP."""
_ADMIN: Final = frozenset({"RepositoryModelLoad", "RepositoryModelUnload"})


Answer = dict[str, Any]


class GrpcService:
    """The service's methods."""

    def __init__(self, plane: Dataplane, infer: GrpcInfer, gate: Gate) -> None:
        self._plane, self._infer, self._gate = plane, infer, gate
        self._tasks: set[asyncio.Task[None]] = set()

    def methods(self) -> Mapping[str, Method]:
        """By path."""
        answers: dict[str, Callable[[Any], Answer | Awaitable[Answer]]] = {
            "ServerLive": lambda _: {"live": True},
            "ServerReady": lambda _: {"ready": self._plane.is_ready()},
            "ModelReady": self._model_ready,
            "ServerMetadata": lambda _: self._plane.server_metadata(),
            "ModelMetadata": lambda asked: self._plane.model_metadata(asked.name, asked.version),
            "ModelConfig": lambda asked: {"config": self._plane.model_config(asked.name, asked.version)},
            "ModelStatistics": lambda asked: self._plane.model_statistics(asked.name, asked.version),
            "RepositoryIndex": lambda asked: {"models": self._plane.index(ready_only=asked.ready)},
            "RepositoryModelLoad": self._load,
            "RepositoryModelUnload": self._unload,
            "SystemSharedMemoryStatus": self._region_status,
            "SystemSharedMemoryRegister": self._register,
            "SystemSharedMemoryUnregister": self._unregister,
            "CudaSharedMemoryStatus": _no_cuda,
            "CudaSharedMemoryRegister": _no_cuda,
            "CudaSharedMemoryUnregister": _no_cuda,
            "TraceSetting": _not_over_grpc,
            "LogSettings": _not_over_grpc,
        }
        methods: dict[str, Method] = {f"/{SERVICE}/{name}": self._unary(name, make) for name, make in answers.items()}
        methods[f"/{SERVICE}/ModelInfer"] = Unary(handler=self._infer.infer)
        methods[f"/{SERVICE}/ModelStreamInfer"] = Stream(
            on_open=self._infer.stream_open, on_message=self._infer.stream_message, on_end=self._infer.stream_end
        )
        return methods

    def _unary(self, name: str, make: Callable[[Any], Answer | Awaitable[Answer]]) -> Unary:
        request, response = MESSAGES[f"{name}Request"], MESSAGES[f"{name}Response"]

        def handler(call: GrpcCall, message: bytes) -> None:
            if name not in _OPEN:
                access = access_of(self._gate, call.head.metadata)
                if name in _ADMIN:
                    require_admin(access)
            try:
                asked = request.FromString(message)
            except DecodeError as error:
                raise DataError(f"the message is no {name}Request") from error
            made = make(asked)
            if isinstance(made, dict):
                call.reply(_message(response, made))
            else:
                task = asyncio.get_running_loop().create_task(_later(call, response, made))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

        return Unary(handler=handler)

    def _model_ready(self, asked: Any) -> Answer:
        try:
            return {"ready": self._plane.model_is_ready(asked.name, asked.version)}
        except (NotServedError, NotReadyError):
            return {"ready": False}

    async def _load(self, asked: Any) -> Answer:
        await self._plane.load(asked.model_name, _parameters(asked))
        return {}

    async def _unload(self, asked: Any) -> Answer:
        await self._plane.unload(asked.model_name, _parameters(asked))
        return {}

    def _region_status(self, asked: Any) -> Answer:
        found = self._plane.shared_memory().status(asked.name)
        return {
            "regions": {
                each.name: {"name": each.name, "key": each.key, "offset": each.offset, "byte_size": each.byte_size}
                for each in found
            }
        }

    def _register(self, asked: Any) -> Answer:
        self._plane.shared_memory().register(asked.name, asked.key, asked.offset, asked.byte_size)
        return {}

    def _unregister(self, asked: Any) -> Answer:
        self._plane.shared_memory().unregister(asked.name)
        return {}


async def _later(call: GrpcCall, response: Any, made: Awaitable[Answer]) -> None:
    try:
        call.reply(_message(response, await made))
    except NpuopsError as error:
        call.fail_with(error)
    except Exception as error:  # noqa: BLE001 -- a defect must not leave the client without an answer
        _log.exception("%s failed", call.head.path)
        call.fail(GrpcStatus.INTERNAL, words_of(error))


def _message(response: Any, document: Answer) -> bytes:
    data: bytes = ParseDict(document, response(), ignore_unknown_fields=True).SerializeToString()
    return data


def _parameters(asked: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in asked.parameters.items():
        kind = value.WhichOneof("parameter_choice")
        if kind is not None:
            found[key] = getattr(value, kind)
    return found


def _no_cuda(asked: Any) -> Answer:
    del asked
    raise no_cuda()


def _not_over_grpc(asked: Any) -> Answer:
    del asked
    raise GrpcCallError(
        "traces and logs are not set over the network",
        advice="set them in the server's configuration file",
        status=GrpcStatus.UNIMPLEMENTED,
    )
