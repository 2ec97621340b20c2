"""`npuops serve`: an artifact, or a repository of them, over HTTP and gRPC."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from npuops.cli.json_line import print_json_line
from npuops.cli.serve_words import Narrator
from npuops.cli.show import JsonFlag
from npuops.config import toml_text
from npuops.errors import MissingToolchainError
from npuops.server.serve_options import ServeOptions, read_serve_options

INSTALL: Final = "pip install 'npuops[serve]'"


def command(
    source: Annotated[Path, typer.Argument(metavar="ARTIFACT|REPOSITORY", help="What to serve.")],
    config: Annotated[Path | None, typer.Option("--config", "-c", help="serve.toml; flags win over it.")] = None,
    host: Annotated[
        str | None, typer.Option("--host", help="Address to listen at; default: this machine only.")
    ] = None,
    http_port: Annotated[int | None, typer.Option("--http-port", help="Default 8000; 0 takes a free one.")] = None,
    grpc_port: Annotated[int | None, typer.Option("--grpc-port", help="Default 8001; 0 takes a free one.")] = None,
    grpc: Annotated[bool | None, typer.Option("--grpc/--no-grpc", help="Listen for gRPC.")] = None,
    watch: Annotated[bool | None, typer.Option("--watch/--no-watch", help="Follow changes of the repository.")] = None,
    max_loaded: Annotated[int | None, typer.Option("--max-loaded", help="Models in memory at the same time.")] = None,
    client_shared_memory: Annotated[
        bool | None, typer.Option("--client-shared-memory", help="Clients may pass tensors in shared memory.")
    ] = None,
    access_log: Annotated[
        str | None, typer.Option("--access-log", help="A JSON line for each request: a path, or - for stdout.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Serve until SIGTERM or Ctrl-C; both answer what is under way first. SIGHUP looks at the repository at once."""
    flags = {
        "host": host,
        "http_port": http_port,
        "grpc_port": grpc_port,
        "grpc": grpc,
        "watch": watch,
        "max_loaded": max_loaded,
        "client_shared_memory": client_shared_memory,
        "access_log": access_log,
    }
    text = toml_text(config) if config is not None else None
    options = read_serve_options(text, flags, where=str(config or "serve.toml"))
    narrator = Narrator(print_json_line if as_json else None)
    _run(_serve(source, options, narrator))


async def _serve(source: Path, options: ServeOptions, narrator: Narrator) -> None:
    from npuops.serving import Server  # noqa: PLC0415 - the extra `serve` is needed only here

    server = Server(source, options, observe=(narrator,))
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    loop.add_signal_handler(signal.SIGHUP, server.look_now)
    try:
        narrator.listening(await server.start(), options)
        gc.freeze()  # modules stay for ever: without them a full collection takes 1 ms, not 30, out of a p99
        await ending.wait()
        narrator.ending(options.drain_s)
    finally:
        await server.stop()


def _run(main: Coroutine[Any, Any, None]) -> None:
    try:
        import uvloop  # noqa: PLC0415 - of the extra `serve`
    except ImportError as error:
        main.close()
        raise MissingToolchainError(f"{error.name} is not installed", advice=INSTALL) from error
    sys.setswitchinterval(0.0005)  # other threads only hash and log; the loop must not wait long for them
    uvloop.run(main)
