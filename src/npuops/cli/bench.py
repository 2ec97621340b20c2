"""`npuops bench`: load on a server, and what came of it."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from npuops.cli import bench_flags as flags
from npuops.cli.shape_flag import ShapeFlag, parse_shapes
from npuops.cli.show import EXIT_NO, JsonFlag, print_json, progress
from npuops.errors import DataError, OptionError, nearest

if TYPE_CHECKING:
    from npuops.loadgen.arrivals import Arrivals
    from npuops.loadgen.load_controller import BenchOptions
    from npuops.loadgen.request_source import RequestOptions, Tenant
    from npuops.loadgen.results import BenchReport

_BODY_LIMIT_BYTES = 1 << 30


def command(
    url: flags.UrlArgument,
    concurrency: flags.ConcurrencyFlag = None,
    rate: flags.RateFlag = None,
    arrivals: flags.ArrivalsFlag = "poisson",
    duration: flags.DurationFlag = 5.0,
    warmup: flags.WarmupFlag = 1.0,
    requests: flags.RequestsFlag = None,
    timeout: flags.TimeoutFlag = 10.0,
    slo: flags.SloFlag = None,
    find_capacity: flags.CapacityFlag = False,
    protocol: flags.ProtocolFlag = "",
    wire_format: flags.FormatFlag = "auto",
    input_file: flags.InputFlag = None,
    batch: flags.BatchFlag = None,
    shape: ShapeFlag = None,
    distinct: flags.DistinctFlag = 8,
    body: flags.BodyFlag = None,
    content_type: flags.ContentTypeFlag = "",
    header: flags.HeaderFlag = None,
    api_key: flags.ApiKeyFlag = None,
    tenant: flags.TenantFlag = None,
    tenant_header: flags.TenantHeaderFlag = "X-Npuops-Tenant",
    connections: flags.ConnectionsFlag = 512,
    processes: flags.ProcessesFlag = 1,
    seed: flags.SeedFlag = 0,
    verify: flags.VerifyFlag = False,
    tolerance: flags.ToleranceFlag = 0.0,
    insecure: flags.InsecureFlag = False,
    percentiles: flags.PercentilesFlag = False,
    plot: flags.PlotFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Send requests to a server of the Open Inference Protocol, or a fixed body to any, and measure the answers."""
    from npuops.loadgen.load_controller import BenchOptions  # noqa: PLC0415 - help must not pay for it
    from npuops.loadgen.request_source import RequestOptions  # noqa: PLC0415 - as above

    shared: dict[str, Any] = {"timeout_s": timeout, "seed": seed, "tenants": _tenants(tenant or ())}
    timing: dict[str, Any] = {"duration_s": duration, "warmup_s": warmup, "requests": requests, "slo_ms": slo}
    client: dict[str, Any] = {"connections": connections, "processes": processes, "percentiles": percentiles}
    tensors: dict[str, Any] = {"input": input_file, "batch": batch, "shapes": parse_shapes(shape), "distinct": distinct}
    content: dict[str, Any] = {"body": _content(body), "content_type": content_type, "format": wire_format}
    answers: dict[str, Any] = {"verify": verify, "tolerance": tolerance, "insecure": insecure}
    loads: dict[str, Any] = {"concurrency": _counts(concurrency), "rates": _figures("--rate", rate)}
    load = BenchOptions(
        arrivals=_arrivals(arrivals), find_capacity=find_capacity, **loads, **timing, **client, **shared
    )
    fields: dict[str, Any] = {"headers": _headers(header or (), api_key), "tenant_header": _name(tenant_header)}
    what = RequestOptions(**fields, **tensors, **content, **answers, **shared)
    _run(url, protocol, what, load, plot, as_json=as_json)


def _run(
    url: str, protocol: str, what: RequestOptions, load: BenchOptions, plot: Path | None, *, as_json: bool
) -> None:
    from npuops.loadgen.endpoint import parse_url  # noqa: PLC0415 - help must not pay for it
    from npuops.loadgen.http_client import require_parser  # noqa: PLC0415 - as above
    from npuops.loadgen.load_controller import bench  # noqa: PLC0415 - as above
    from npuops.loadgen.request_source import prepare  # noqa: PLC0415 - as above

    _refuse_plot(plot)
    require_parser()
    prepared = prepare(parse_url(url, protocol=protocol), what)
    with progress(quiet=as_json) as observe:
        report = bench(prepared, load, observe)
    _finish(report, plot, as_json=as_json)


def _finish(report: BenchReport, plot: Path | None, *, as_json: bool) -> None:
    from npuops.cli.bench_text import show  # noqa: PLC0415 - help must not pay for it
    from npuops.loadgen.latency_plot import svg_plot  # noqa: PLC0415 - as above
    from npuops.report.output_file import write_output  # noqa: PLC0415 - as above

    if plot is not None:
        write_output(plot, svg_plot(report.stages, report.url).encode())
    if as_json:
        print_json(report)
    else:
        show(report)
    if report.interrupted:
        raise typer.Exit(128 + signal.Signals[report.interrupted])  # as the shell counts it
    if not report.good:
        raise typer.Exit(EXIT_NO)


def _refuse_plot(plot: Path | None) -> None:
    from npuops.report.output_file import refuse_place  # noqa: PLC0415 - help must not pay for it

    if plot is None:
        return
    if plot.suffix.lower() != ".svg":
        raise OptionError(f"{plot} is no .svg file", advice="name it .svg: browsers and image programs show it")
    refuse_place(plot)


def _figures(name: str, text: str | None) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError as error:
        raise OptionError(f"{name} {text!r} is no list of numbers", advice=f"for example {name} 1,8,32") from error


def _counts(text: str | None) -> tuple[int, ...]:
    figures = _figures("--concurrency", text)
    if not all(figure.is_integer() for figure in figures):
        raise OptionError(f"--concurrency {text!r} is no list of whole numbers", advice="for example 1,8,32")
    return tuple(int(figure) for figure in figures)


def _headers(texts: Sequence[str], api_key: str | None) -> dict[str, str]:
    from npuops.loadgen.oip_request import parse_headers  # noqa: PLC0415 - help must not pay for it

    return parse_headers([*([f"Authorization: Bearer {api_key}"] if api_key else []), *texts])


def _name(tenant_header: str) -> str:
    from npuops.loadgen.oip_request import parse_headers  # noqa: PLC0415 - help must not pay for it

    return next(iter(parse_headers([f"{tenant_header}: name"])))


def _arrivals(text: str) -> Arrivals:
    from npuops.loadgen.arrivals import Arrivals  # noqa: PLC0415 - help must not pay for it

    if text not in set(Arrivals):
        raise OptionError(f"no arrivals {text!r}", advice=nearest(text, [known.value for known in Arrivals]))
    return Arrivals(text)


def _tenants(texts: Sequence[str]) -> tuple[Tenant, ...]:
    from npuops.loadgen.request_source import Tenant  # noqa: PLC0415 - help must not pay for it

    found: list[Tenant] = []
    for text in texts:
        name, equals, weight = text.rpartition("=")
        try:
            one = Tenant(name=name, weight=float(weight)) if equals else Tenant(name=text)
        except ValueError as error:
            raise OptionError(f"--tenant {text!r} is not NAME=WEIGHT", advice="for example --tenant a=10") from error
        if not one.name or not one.name.isascii() or not one.name.isprintable():
            raise OptionError(f"--tenant {text!r}: a name has printable ASCII only")
        if one.name in {other.name for other in found}:
            raise OptionError(f"--tenant names {one.name!r} twice")
        found.append(one)
    return tuple(found)


def _content(path: Path | None) -> bytes | None:
    if path is None:
        return None
    if not path.is_file():
        raise DataError(f"there is no file {path}", advice="--body takes the file to post")
    if path.stat().st_size > _BODY_LIMIT_BYTES:
        raise DataError(f"{path} holds more than 1 GiB", advice="a request is held in memory")
    return path.read_bytes()
