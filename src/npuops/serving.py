"""The only place where the parts of a server meet: ports, repository, engines, telemetry."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from npuops.clock import SystemClock
from npuops.errors import OptionError
from npuops.events import Event, Observer
from npuops.runtime.replicas import Services
from npuops.runtime.worker_process import SparePool
from npuops.server.access import Gate, OpenGate
from npuops.server.dataplane import Dataplane
from npuops.server.engine_launcher import EngineLauncher, LaunchOptions
from npuops.server.grpc_health import Health
from npuops.server.grpc_infer import GrpcInfer
from npuops.server.grpc_server import GrpcServer
from npuops.server.grpc_service import GrpcService
from npuops.server.http2_server import http2_tls
from npuops.server.http_api import HttpApi
from npuops.server.http_infer import HttpInfer
from npuops.server.http_server import HttpServer
from npuops.server.model_options import ModelOptions
from npuops.server.repository import Repository
from npuops.server.repository_layout import Scanner
from npuops.server.repository_watch import RepositoryWatch
from npuops.server.serve_options import Ports, ServeOptions
from npuops.server.served_version import ServedVersion
from npuops.server.shared_memory import Regions
from npuops.server.statistics import Statistics
from npuops.serving_gauges import gauges
from npuops.serving_pages import pages
from npuops.telemetry.instruments import Instruments, unix_offset_us
from npuops.telemetry.serving_snapshot import ServingSnapshot
from npuops.telemetry.trace_options import trace_options_of

BEAT_S = 1.0


class Server:
    """One server. `start` once, `stop` once, on the loop that it was made in."""

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
        gate: Gate = OpenGate()
        self._statistics = Statistics(unix_offset_us(self._clock))
        self._instruments = Instruments(self._clock, self._snapshot, traces=trace_options_of(os.environ))
        self._observers: tuple[Observer, ...] = (self._statistics, self._instruments.observe, *observe)
        self._spares = SparePool(self._loop, self._clock, 1)
        services = Services(loop=self._loop, clock=self._clock, observe=self._tell, spares=self._spares)
        self._launcher = EngineLauncher(services, LaunchOptions(max_request_bytes=options.limits.body_bytes), _weight)
        self._repository: Repository[ServedVersion] = Repository(
            Scanner(path, options=model),
            self._launcher,
            clock=self._clock,
            observe=self._tell,
            max_loaded=options.max_loaded,
        )
        regions = Regions() if options.client_shared_memory else None
        plane = Dataplane(repository=self._repository, statistics=self._statistics, regions=regions)
        infer = HttpInfer(self._repository, self._clock, self._loop, regions)
        api = HttpApi(plane, infer, gate, self._loop, pages(self._instruments))
        self._http = HttpServer(api, options.limits, self._loop)
        self._grpc = self._make_grpc(plane, gate, regions) if options.grpc else None
        poll_s = options.poll_s if options.watch else None
        self._watch = RepositoryWatch(self._repository, poll_s=poll_s, observe=self._tell)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> Ports:
        """Listen, look at the repository, and begin to load.

        Raises:
            NpuopsError: a port is taken, or the repository cannot be read.
        """
        options = self._options
        http = await self._http.listen(options.host, options.http_port, tls_context(options))
        grpc = None
        if self._grpc is not None:
            tls = http2_tls(Path(options.tls.cert), Path(options.tls.key)) if options.tls else None
            places = await self._grpc.listen(options.host, options.grpc_port, tls=tls)
            grpc = places[0][1]
        await self._repository.refresh()
        self._tasks = [self._loop.create_task(self._watch.run()), self._loop.create_task(self._beat())]
        return Ports(http=http, grpc=grpc)

    @property
    def repository(self) -> Repository[ServedVersion]:
        """What is served."""
        return self._repository

    def look_now(self) -> None:
        """Look at the repository at once."""
        self._watch.look_now()

    async def stop(self) -> None:
        """Answer what is under way, and end."""
        drains = [self._http.drain(self._options.drain_s)]
        if self._grpc is not None:
            drains.append(self._grpc.drain(self._options.drain_s))
        await asyncio.gather(*drains)
        for task in self._tasks:
            task.cancel()
        await self._repository.close()
        await self._spares.close()
        self._launcher.close()
        await asyncio.to_thread(self._instruments.close)

    def _make_grpc(self, plane: Dataplane, gate: Gate, regions: Regions | None) -> GrpcServer:
        repository = self._repository
        infer = GrpcInfer(repository.serving, repository.wake, self._clock, gate, regions)
        service = GrpcService(plane, infer, gate)
        health = Health(plane.is_ready, plane.model_is_ready, self._names)
        methods = {**service.methods(), **health.methods()}
        return GrpcServer(methods, on_drain=(infer.drain, health.stop))

    def _names(self) -> list[str]:
        return sorted({line.name for line in self._repository.index()})

    async def _beat(self) -> None:
        with suppress(asyncio.CancelledError):
            while True:
                self._instruments.every_second()
                await asyncio.sleep(BEAT_S)

    def _snapshot(self) -> ServingSnapshot:
        connections = {"http": self._http.connections}
        if self._grpc is not None:
            connections["grpc"] = self._grpc.connections
        traces = self._instruments.traces
        running = {id(each): each for each in self._repository.serving.values()}
        return gauges(running.values(), connections, None, traces.dropped if traces is not None else None)

    def _tell(self, event: Event) -> None:
        for observer in self._observers:
            observer(event)


def tls_context(options: ServeOptions) -> ssl.SSLContext | None:
    """For the options' certificate; None without one.

    Raises:
        OptionError: the files cannot be read, or do not belong together.
    """
    if options.tls is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(options.tls.cert, options.tls.key)
    except (OSError, ssl.SSLError) as error:
        raise OptionError(f"the certificate {options.tls.cert} cannot be used: {error}") from error
    return context


def _weight(tenant: str) -> float:
    del tenant
    return 1.0
