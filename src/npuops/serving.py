"""The only place where the parts of a server meet: ports, repository, engines, telemetry."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import ssl
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from npuops.clock import SystemClock
from npuops.errors import UsageError
from npuops.events import Event, Observer
from npuops.runtime.replicas import Services
from npuops.runtime.step_pool import StepOptions, StepPool
from npuops.runtime.worker_process import SparePool
from npuops.server.access import Gate, TenantGate
from npuops.server.chain_members import ServedMembers
from npuops.server.cors import Cors
from npuops.server.dataplane import Dataplane
from npuops.server.engine_launcher import EngineLauncher
from npuops.server.grpc_call import GrpcCall
from npuops.server.grpc_health import Health
from npuops.server.grpc_infer import GrpcInfer
from npuops.server.grpc_recorded import RecordedCall, RecordedGrpcInfer
from npuops.server.grpc_server import GrpcLimits, GrpcServer
from npuops.server.grpc_service import GrpcService
from npuops.server.http2_streams import Http2Limits
from npuops.server.http_api import HttpApi
from npuops.server.http_connection import Connection
from npuops.server.http_cors import CorsConnection, RecordedCorsConnection
from npuops.server.http_infer import HttpInfer
from npuops.server.http_recorded import RecordedConnection, RecordedInfer
from npuops.server.http_server import Connect, HttpServer
from npuops.server.model_options import ModelOptions
from npuops.server.pipeline_launcher import PipelineLauncher
from npuops.server.recorder import Recorder
from npuops.server.repository import Repository
from npuops.server.repository_layout import Scanner
from npuops.server.repository_upload import Uploads
from npuops.server.repository_watch import RepositoryWatch
from npuops.server.serve_options import FOLLOWED, Ports, ServeOptions
from npuops.server.served_version import ServedVersion
from npuops.server.shared_memory import Regions
from npuops.server.statistics import Statistics
from npuops.server.tls import HTTP2, server_tls
from npuops.serving_adaptive import AdaptiveServing
from npuops.serving_chips import Chips
from npuops.serving_gauges import chip_users, gauges, heed_chips
from npuops.serving_hints import ServerHints
from npuops.serving_pages import pages
from npuops.serving_records import Records
from npuops.serving_scratch import Scratch
from npuops.telemetry.access_log import AccessLog
from npuops.telemetry.instruments import Instruments, unix_offset_us
from npuops.telemetry.serving_snapshot import PreprocessingGauges, ServingSnapshot
from npuops.telemetry.trace_options import trace_options_of

BEAT_S = 1.0
_log = logging.getLogger(__name__)
ENDPOINT_VARIABLE = "OTEL_EXPORTER_OTLP_ENDPOINT"
"""Of OpenTelemetry's specification; where the environment has it, it wins over `otlp_endpoint`."""


class Server:
    """One server. `start` once, `stop` once, on the loop that it was made in.

    Attributes:
        gate: knows the tenants.
    """

    def __init__(
        self, path: Path, options: ServeOptions, *, model: ModelOptions | None = None, observe: Sequence[Observer] = ()
    ) -> None:
        """`path`: an artifact or a repository; `model`: options of a single artifact.

        Raises:
            NpuopsError: there is nothing at the path, or an option cannot be.
        """
        self._loop = asyncio.get_running_loop()
        self._options = options
        self._clock = SystemClock()
        scanner = Scanner(path, options=model)
        if model is not None and not scanner.single:
            raise UsageError(
                f"{path} is a repository, and these options are of one artifact",
                advice="write them into its model.toml",
            )
        tenants = options.tenants(os.environ)
        gate = self.gate = TenantGate(tenants)
        self._certified: list[ssl.SSLContext] = []
        self._statistics = Statistics(unix_offset_us(self._clock))
        traces = trace_options_of({ENDPOINT_VARIABLE: options.otlp_endpoint, **os.environ})
        self._instruments = Instruments(self._clock, self._snapshot, tenants=options.tenant, traces=traces)
        self._log = AccessLog(options.access_log) if options.access_log else None
        recorder = None
        if self._log is not None or self._instruments.traces is not None:
            recorder = Records(self._clock, self._log, self._instruments.traces)
        self._chips = Chips(self._clock)
        self._observers: tuple[Observer, ...] = (self._statistics, self._instruments.observe, *observe)
        self._scratch = Scratch()
        self._spares = SparePool(self._loop, 1)
        services = Services(loop=self._loop, clock=self._clock, observe=self._tell, spares=self._spares)
        launcher = EngineLauncher(services, tenants.weight, self._scratch.path)
        self._pool = StepPool(StepOptions(processes=options.step_processes), self._clock, self._tell, tenants.weight)
        self._repository: Repository[ServedVersion] = Repository(
            scanner,
            PipelineLauncher(launcher, services, self._pool, lambda: ServedMembers(self._repository)),
            clock=self._clock,
            observe=self._tell,
            max_loaded=options.max_loaded,
            drain_s=options.drain_s,
            uploads=Uploads(self._scratch.path) if options.file_uploads else None,
        )
        regions = Regions() if options.client_shared_memory else None
        plane = Dataplane(repository=self._repository, statistics=self._statistics, regions=regions)
        infer = (HttpInfer if recorder is None else RecordedInfer)(
            self._repository, self._clock, self._loop, regions, self._tell
        )
        cors = Cors(options.cors_origins) if options.cors_origins else None
        api = HttpApi(plane, infer, gate, self._loop, pages(self._instruments), cors)
        connect = _connections(cors, recorder)
        self._http = HttpServer(api, options.limits, self._loop, connect)
        self._grpc = self._make_grpc(plane, gate, regions, recorder) if options.grpc else None
        poll_s = options.poll_s if options.watch else None
        self._watch = RepositoryWatch(self._repository, poll_s=poll_s, observe=self._tell)
        self._tasks: list[asyncio.Task[None]] = []
        self._hints = self._make_hints() if options.hints else None
        self._adaptive = self._make_adaptive() if options.adapt else None

    async def start(self) -> Ports:
        """Listen, look at the repository, and begin to load.

        Raises:
            NpuopsError: a port is taken, or the repository cannot be read.
        """
        options = self._options
        http = await self._http.listen(options.host, options.http_port, self._tls())
        grpc = None
        if self._grpc is not None:
            places = await self._grpc.listen(options.host, options.grpc_port, tls=self._tls(HTTP2))
            grpc = places[0][1]
        await self._repository.refresh()
        self._tasks = [self._loop.create_task(self._watch.run()), self._loop.create_task(self._beat())]
        if self._hints is not None:
            self._tasks.append(self._loop.create_task(self._hints.run()))
        if self._adaptive is not None:
            self._tasks.append(self._loop.create_task(self._adaptive.run()))
        return Ports(http=http, grpc=grpc)

    @property
    def repository(self) -> Repository[ServedVersion]:
        """What is served."""
        return self._repository

    def look_now(self) -> None:
        """Look at the repository at once, and open the access log anew."""
        self._watch.look_now()
        if self._log is not None:
            self._log.reopen()

    def follow(self, options: ServeOptions) -> list[str]:
        """Other tenants, keys, limits and times from now on, and the certificate as its files are now; all or nothing.

        Gives the keys that differ, and that hold only after a restart.

        Raises:
            OptionError: a tenant, a key or the certificate is none.
        """
        old = self._options
        tenants = options.tenants(os.environ)
        if old.tls is not None:
            certificate, key = Path(old.tls.cert), Path(old.tls.key)
            server_tls(certificate, key)  # tried first: a pair that does not fit must not get into what is in use
            for context in self._certified:
                context.load_cert_chain(certificate, key)
        self.gate.follow(tenants)
        self._watch.poll_every(options.poll_s if options.watch else None)
        followed = {name: getattr(options, name) for name in FOLLOWED}
        self._options = replace(old, **followed)
        return old.fixed_changes(options)

    async def stop(self) -> None:
        """Answer what is under way, and end; meanwhile nothing is ready, so that nobody sends more."""
        self._repository.end()
        drains = [self._http.drain(self._options.drain_s)]
        if self._grpc is not None:
            drains.append(self._grpc.drain(self._options.drain_s))
        await asyncio.gather(*drains)
        for task in self._tasks:
            task.cancel()
        await self._repository.close()
        await self._pool.close()
        await self._spares.close()
        self._scratch.close()
        await asyncio.to_thread(self._close_telemetry)

    def abandon(self) -> None:
        """Leave no file behind; the process ends right after this, and the workers see that."""
        self._scratch.close()
        if self._log is not None:
            self._log.close()

    def _close_telemetry(self) -> None:
        self._chips.close()
        self._instruments.close()
        if self._log is not None:
            self._log.close()

    def _make_grpc(
        self, plane: Dataplane, gate: Gate, regions: Regions | None, recorder: Recorder | None
    ) -> GrpcServer:
        repository = self._repository
        kind = GrpcInfer if recorder is None else RecordedGrpcInfer
        infer = kind(repository.serving, repository.wake, self._clock, gate, regions, self._tell)
        service = GrpcService(plane, infer, gate)
        health = Health(plane.is_ready, plane.model_is_ready, self._names, gate)
        methods = {**service.methods(), **health.methods()}
        make_call = GrpcCall if recorder is None else partial(RecordedCall, recorder)
        limits = self._options.limits
        calls = GrpcLimits(
            message_bytes=limits.body_bytes,
            unfinished_bytes=limits.received_bytes,
            stall_s=math.ceil(limits.body_s),
            max_connections=limits.connections,
        )
        http2 = Http2Limits(header_list_bytes=limits.head_bytes, handshake_s=math.ceil(limits.head_s))
        return GrpcServer(methods, calls, http2, on_drain=(infer.drain, health.stop), make_call=make_call)

    def _make_hints(self) -> ServerHints:
        path, slo_ms = self._options.hint_socket or None, self._options.hint_slo_ms
        hints = ServerHints(self._running, self._pool, path=path, slo_ms=slo_ms)
        self._observers = (*self._observers, hints.observe)
        return hints

    def _make_adaptive(self) -> AdaptiveServing:
        adaptive = AdaptiveServing(self._running, self._clock, slo_ms=self._options.hint_slo_ms)
        self._observers = (*self._observers, adaptive.observe)
        return adaptive

    def _tls(self, protocols: Sequence[str] = ()) -> ssl.SSLContext | None:
        files = self._options.tls
        if files is None:
            return None
        self._certified.append(server_tls(Path(files.cert), Path(files.key), protocols))
        return self._certified[-1]

    def _names(self) -> list[str]:
        return sorted({line.name for line in self._repository.index()})

    async def _beat(self) -> None:
        with suppress(asyncio.CancelledError):
            while True:
                try:
                    self._instruments.every_second()
                    heed_chips(self._running(), self._chips)
                except Exception:  # noqa: BLE001 - a defect there must not end the beat, and with it the page and the watch
                    _log.exception("the server's beat")
                await asyncio.sleep(BEAT_S)

    def _running(self) -> Collection[ServedVersion]:
        """A version that has several names once."""
        return {id(each): each for each in self._repository.serving.values()}.values()

    def _snapshot(self) -> ServingSnapshot:
        connections = {"http": self._http.connections}
        if self._grpc is not None:
            connections["grpc"] = self._grpc.connections
        running = self._running()
        return gauges(
            running,
            connections,
            self._log.dropped if self._log is not None else None,
            self._instruments.traces_dropped,
            self._chips.readings(chip_users(running)),
            PreprocessingGauges(processes=len(self._pool.pids), waiting=self._pool.waiting)
            if self._pool.is_started
            else None,
        )

    def _tell(self, event: Event) -> None:
        for observer in self._observers:
            observer(event)


def _connections(cors: Cors | None, recorder: Recorder | None) -> Connect:
    """The cheapest class that does what is asked for."""
    if cors is None:
        return Connection if recorder is None else partial(RecordedConnection, recorder)
    return partial(CorsConnection, cors) if recorder is None else partial(RecordedCorsConnection, cors, recorder)
