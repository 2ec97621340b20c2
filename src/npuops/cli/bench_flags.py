"""The options of `npuops bench`, in the order of its help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

UrlArgument = Annotated[
    str, typer.Argument(help="http://HOST:PORT/v2/models/MODEL, grpc://HOST:PORT/MODEL; with --body any address.")
]
ConcurrencyFlag = Annotated[
    str | None,
    typer.Option("--concurrency", "-c", help="Closed loop: requests in flight; a stage for each. Default 1,8,32."),
]
RateFlag = Annotated[
    str | None, typer.Option("--rate", "-r", help="Open loop: requests/s, as 100,200,400; a stage for each.")
]
ArrivalsFlag = Annotated[str, typer.Option("--arrivals", help="Open loop: poisson or constant gaps.")]
DurationFlag = Annotated[float, typer.Option("--duration", "-d", help="Seconds of each stage.")]
WarmupFlag = Annotated[float, typer.Option("--warmup", help="Seconds before each stage that do not count.")]
RequestsFlag = Annotated[
    int | None, typer.Option("--requests", "-n", help="Closed loop: end a stage after so many, instead.")
]
TimeoutFlag = Annotated[float, typer.Option("--timeout", help="Seconds for each request.")]
SloFlag = Annotated[float | None, typer.Option("--slo", metavar="MS", help="Goodput counts only answers within it.")]
CapacityFlag = Annotated[
    bool, typer.Option("--find-capacity", help="Search the highest rate whose p99 is within --slo.")
]
ProtocolFlag = Annotated[str, typer.Option("--protocol", help="http or grpc; else as the address begins.")]
FormatFlag = Annotated[
    str, typer.Option("--format", help="HTTP: json, binary, or auto (binary where the server lists it).")
]
InputFlag = Annotated[
    Path | None, typer.Option("--input", "-i", help=".npz to send, or a picture; else random tensors.")
]
BatchFlag = Annotated[int | None, typer.Option("--batch", "-b", min=1, help="Rows, where the batch is free.")]
DistinctFlag = Annotated[int, typer.Option("--distinct", min=1, help="Random inputs that take turns.")]
BodyFlag = Annotated[Path | None, typer.Option("--body", help="Post this file as it is; no model is asked about.")]
ContentTypeFlag = Annotated[
    str, typer.Option("--content-type", help="Of --body; default: JSON where it is, else bytes.")
]
HeaderFlag = Annotated[
    list[str] | None, typer.Option("--header", "-H", help='"Name: value" on every request. Can be repeated.')
]
ApiKeyFlag = Annotated[str | None, typer.Option("--api-key", envvar="NPUOPS_API_KEY", help="Sent as a bearer token.")]
TenantFlag = Annotated[list[str] | None, typer.Option("--tenant", help="NAME or NAME=WEIGHT; several share the load.")]
TenantHeaderFlag = Annotated[str, typer.Option("--tenant-header", help="The header that names it.")]
ConnectionsFlag = Annotated[int, typer.Option("--connections", help="Open loop: the most at a time.")]
ProcessesFlag = Annotated[int, typer.Option("--processes", help="Client processes that share the load.")]
SeedFlag = Annotated[int, typer.Option("--seed", min=0, help="Of inputs, gaps and turns.")]
VerifyFlag = Annotated[
    bool, typer.Option("--verify", help="Compare each answer with the first one for the same input.")
]
ToleranceFlag = Annotated[float, typer.Option("--tolerance", min=0, help="--verify: of floats.")]
InsecureFlag = Annotated[bool, typer.Option("--insecure", help="HTTPS: take any certificate.")]
PercentilesFlag = Annotated[bool, typer.Option("--percentiles", help="Also the whole table of percentiles.")]
PlotFlag = Annotated[Path | None, typer.Option("--plot", help="Latency against load, into this .svg file.")]
