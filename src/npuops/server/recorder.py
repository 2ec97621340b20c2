"""What is known of a request when it is over, for an access log and for traces. Made only where somebody wants it."""

from __future__ import annotations

from typing import Final, Protocol

from npuops.clock import Clock
from npuops.runtime.job import Completion, Job

CLIENT_GONE: Final = "ClientGone"
CLIENT_GONE_STATUS: Final = 499
"""Status of a request whose client went away; no client ever sees it, and proxies' logs use the same number."""


class RequestRecord:
    """One request. All `*_us` are microseconds on the engine's clock; 0 where it did not happen.

    Attributes:
        protocol: `http` or `grpc`.
        client: address of the peer.
        received_us: its first byte came.
        arrived_us: it was handed to an engine.
        completed_us: the engine answered.
        responded_us: the answer was handed to the socket.
        method: of HTTP.
        path: without the query; of gRPC `package.Service/Method`.
        user_agent, traceparent: as the client says.
        status: of HTTP.
        grpc_status: of gRPC; -1 where there is none.
        request_bytes, response_bytes: of the bodies; -1 where unknown.
        model, version: that were asked for, or that answered; "" where the request is no inference.
        device: that answered.
        fell_back: it is the model's fallback.
        tenant: whose request it was.
        request_id: the client's own.
        error: class of the error, "" where there was none.
    """

    __slots__ = (
        "arrived_us", "client", "completed_us", "device", "error", "fell_back", "grpc_status", "method", "model",
        "path", "protocol", "received_us", "request_bytes", "request_id", "responded_us", "response_bytes", "status",
        "tenant", "traceparent", "user_agent", "version",
    )  # fmt: skip

    def __init__(self, protocol: str, client: str, received_us: int) -> None:
        self.protocol = protocol
        self.client = client
        self.received_us = received_us
        self.arrived_us = self.completed_us = self.responded_us = 0
        self.method = self.path = self.user_agent = self.traceparent = ""
        self.status = 0
        self.grpc_status = self.request_bytes = self.response_bytes = -1
        self.model = self.version = self.device = ""
        self.fell_back = False
        self.tenant = self.request_id = self.error = ""

    def answered(self, job: Job, result: Completion | BaseException, now_us: int) -> None:
        """The engine's word on it; the last one counts, since a successor may answer what its version could not."""
        self.arrived_us, self.completed_us, self.tenant = job.arrived_us, now_us, job.tenant
        if type(result) is Completion:
            self.device, self.fell_back, self.error = result.device, result.fell_back, ""
        else:
            self.error = type(result).__name__


class Recorder(Protocol):
    """Takes records.

    Attributes:
        clock: the engine's.
    """

    clock: Clock

    def end(self, record: RequestRecord) -> None:
        """A request is over. Called in the event loop's thread, so it must not wait."""
        ...
