"""`npuops serve`: an artifact, or a repository of them, over HTTP and gRPC."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from npuops.cli.show import JsonFlag
from npuops.errors import MissingToolchainError

INSTALL: Final = "pip install 'npuops[serve]'"


def command(
    source: Annotated[Path, typer.Argument(metavar="ARTIFACT|REPOSITORY", help="What to serve.")],
    config: Annotated[Path | None, typer.Option("--config", "-c", help="serve.toml; flags win over it.")] = None,
    host: Annotated[str | None, typer.Option("--host", help="Address; default: for this machine only.")] = None,
    http_port: Annotated[int | None, typer.Option("--http-port", help="Default 8000; 0 takes a free one.")] = None,
    grpc_port: Annotated[int | None, typer.Option("--grpc-port", help="Default 8001; 0 takes a free one.")] = None,
    grpc: Annotated[bool | None, typer.Option("--grpc/--no-grpc", help="Listen for gRPC.")] = None,
    watch: Annotated[bool | None, typer.Option("--watch/--no-watch", help="Follow the repository's changes.")] = None,
    max_loaded: Annotated[int | None, typer.Option("--max-loaded", help="Models in memory at a time.")] = None,
    client_shared_memory: Annotated[
        bool | None, typer.Option("--client-shared-memory", help="Take tensors in shared memory.")
    ] = None,
    access_log: Annotated[str | None, typer.Option("--access-log", help="A line a request: a path, or -.")] = None,
    hints: Annotated[
        bool | None, typer.Option("--hints/--no-hints", help="Tell `npuops hostsched` that somebody waits.")
    ] = None,
    fallback: Annotated[
        str | None, typer.Option("--fallback", help="Of an artifact: forbid, allow or budget=R.")
    ] = None,
    inline: Annotated[str | None, typer.Option("--inline", help="Of an artifact: auto, never or always.")] = None,
    max_rows: Annotated[int | None, typer.Option("--max-rows", help="Of an artifact: of one run, at most.")] = None,
    budget_ms: Annotated[float | None, typer.Option("--budget-ms", help="Of an artifact: longest batch.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Until Ctrl-C or SIGTERM; requests under way are answered first."""
    flags = {
        "host": host,
        "http_port": http_port,
        "grpc_port": grpc_port,
        "grpc": grpc,
        "watch": watch,
        "max_loaded": max_loaded,
        "client_shared_memory": client_shared_memory,
        "access_log": access_log,
        "hints": hints,
    }
    model: dict[str, Any] = {
        "fallback": fallback,
        "inline": inline,
        "batching": _given(max_rows=max_rows, budget_ms=budget_ms) or None,
    }
    try:
        from npuops.cli.serve_run import serve  # noqa: PLC0415 - the extra `serve` is needed only here
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("npuops"):
            raise
        raise MissingToolchainError(f"{error.name} is not installed", advice=INSTALL) from error
    serve(source, config, _given(**flags), _given(**model), as_json=as_json)


def _given(**flags: Any) -> dict[str, Any]:
    return {key: value for key, value in flags.items() if value is not None}
