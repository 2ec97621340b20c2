"""gRPC's health service (`grpc.health.v1`): ready as the inference service is, overall and for each model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from google.protobuf.message import DecodeError

from npuops.errors import DataError, NotServedError, NpuopsError
from npuops.server.access import Gate, access_of
from npuops.server.grpc_call import GrpcCall, Method, Unary
from npuops.server.grpc_encode import varint
from npuops.server.inference_pb import HEALTH_SERVICE, SERVICE, HealthCheckRequest, HealthListResponse

SERVING: Final = 1
NOT_SERVING: Final = 2
SERVICE_UNKNOWN: Final = 3

_WHOLE_SERVER: Final = frozenset({"", SERVICE})
_LOOK_S: Final = 0.5
_LISTED: Final = 100
"""The protocol's limit."""


class Health:
    """Answers `Check`, `List` and `Watch`.

    The names it knows are "" and the inference service for the whole server, which everybody may ask for, and those of
    the models, which need an API key where the others do.
    """

    def __init__(
        self,
        is_ready: Callable[[], bool],
        model_is_ready: Callable[[str], bool],
        model_names: Callable[[], list[str]],
        gate: Gate,
    ) -> None:
        """`model_is_ready` raises NotServedError for a model that nobody knows."""
        self._gate = gate
        self._is_ready, self._model_is_ready, self._model_names = is_ready, model_is_ready, model_names
        self._watchers: dict[GrpcCall, tuple[str, int]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._is_stopping = False

    def methods(self) -> Mapping[str, Method]:
        """By path."""
        return {
            f"/{HEALTH_SERVICE}/Check": Unary(handler=self._check),
            f"/{HEALTH_SERVICE}/List": Unary(handler=self._list),
            f"/{HEALTH_SERVICE}/Watch": Unary(handler=self._watch),
        }

    def stop(self) -> None:
        """The server stops: nothing is ready any more, watchers are told, and their calls end."""
        self._is_stopping = True
        self._look()
        for call in list(self._watchers):
            call.end()
        self._watchers.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _status(self, service: str) -> int:
        if self._is_stopping:
            return NOT_SERVING
        try:
            ready = self._is_ready() if service in _WHOLE_SERVER else self._model_is_ready(service)
        except NotServedError:
            return SERVICE_UNKNOWN
        except NpuopsError:
            return NOT_SERVING
        return SERVING if ready else NOT_SERVING

    def _check(self, call: GrpcCall, message: bytes) -> None:
        service = self._asked(call, message)
        status = self._status(service)
        if status == SERVICE_UNKNOWN:
            raise NotServedError(f"nothing is called {service[:80]!r} here", advice="ask for a model's name, or for ''")
        call.reply(_response(status))

    def _list(self, call: GrpcCall, message: bytes) -> None:
        del message
        access_of(self._gate, call.head.metadata)
        response = HealthListResponse()
        for service in ["", SERVICE, *self._model_names()][:_LISTED]:
            response.statuses[service].status = self._status(service)
        call.reply(response.SerializeToString())

    def _watch(self, call: GrpcCall, message: bytes) -> None:
        service = self._asked(call, message)
        status = self._status(service)
        call.send(_response(status))
        if self._is_stopping:
            call.end()
            return
        self._watchers[call] = (service, status)
        call.on_cancel = lambda: self._watchers.pop(call, None) and None
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_LOOK_S, self._tick)

    def _asked(self, call: GrpcCall, message: bytes) -> str:
        try:
            service: str = HealthCheckRequest.FromString(message).service
        except DecodeError as error:
            raise DataError("the message is no HealthCheckRequest") from error
        if service not in _WHOLE_SERVER:
            access_of(self._gate, call.head.metadata)
        return service

    def _tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_LOOK_S, self._tick) if self._watchers else None
        self._look()

    def _look(self) -> None:
        """Tell watchers what changed."""
        for call, (service, before) in list(self._watchers.items()):
            status = self._status(service)
            if status != before:
                self._watchers[call] = (service, status)
                call.send(_response(status))


def _response(status: int) -> bytes:
    return b"\x08" + varint(status)
