"""`serve.toml` and the flags of `npuops serve`: how the server itself works."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

from npuops.config import read_options, read_toml
from npuops.errors import OptionError
from npuops.runtime.tenant_options import TenantOptions, Tenants, Unknown
from npuops.server.cors import check_origins
from npuops.server.http_known import HttpLimits

ADVICE: Final = "docs/serving.md lists the keys of serve.toml"
FOLLOWED: Final = frozenset({"tenant", "api_key_env", "unknown_tenants", "watch", "poll_s"})
"""Keys that a server follows while it runs (SIGHUP)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsOptions:
    """`[tls]`: both, or the table is left away.

    Attributes:
        cert: file with the certificate chain, PEM.
        key: file with its private key, PEM, without a passphrase.
    """

    cert: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Where a server listens; `grpc` is None where it does not."""

    http: int
    grpc: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """All of `serve.toml`.

    Attributes:
        host: address to listen at. The default is this machine alone.
        http_port: 0 takes any free one.
        grpc_port: 0 takes any free one.
        grpc: listen for gRPC at all.
        limits: `[limits]`: what a client may take.
        tls: `[tls]`: without it, connections are plain.
        tenant: `[tenant.NAME]`: who shares the server. With an API key in any of them, every request needs one.
        api_key_env: tenant → variable of the environment that holds an API key of it, besides those in `tenant`.
        unknown_tenants: `share`: other names are the tenant `default`; `own`: each is one of its own; `refuse`.
        max_loaded: models in memory at the same time; None for all.
        step_processes: that turn pictures into tensors, for models with a pipeline; None for half of the cores.
        watch: follow changes of the repository.
        poll_s: seconds between two looks at it; a change is followed when it stayed for this long.
        cors_origins: sites whose pages may ask, as browsers name them (`https://app.example`), or `*`.
        client_shared_memory: clients on this machine may hand over tensors in shared memory.
        file_uploads: a load request may bring files. Whoever can send requests can then make the server run a model.
        access_log: a line of JSON for each request: a path, or `-` for standard output.
        otlp_endpoint: URL of an OpenTelemetry collector (HTTP); "" sends nothing.
        hints: tell an agent of `npuops hostsched` that somebody waits, where one listens.
        hint_socket: its socket; "" for the usual places.
        hint_slo_ms: of models whose `[queue]` names no time; None: they have no SLO.
        adapt: set batch budget, queue limit and spill by the load, of models that have an SLO (as for hints).
        drain_s: after SIGTERM, and of a version that is replaced: how long requests under way may take.
    """

    host: str = "127.0.0.1"
    http_port: int = 8000
    grpc_port: int = 8001
    grpc: bool = True
    limits: HttpLimits = field(default_factory=HttpLimits)
    tls: TlsOptions | None = None
    tenant: Mapping[str, TenantOptions] = field(default_factory=dict)
    api_key_env: Mapping[str, str] = field(default_factory=dict)
    unknown_tenants: Unknown = "share"
    max_loaded: int | None = None
    step_processes: int | None = None
    watch: bool = True
    poll_s: float = 5.0
    cors_origins: tuple[str, ...] = ()
    client_shared_memory: bool = False
    file_uploads: bool = False
    access_log: str = ""
    otlp_endpoint: str = ""
    hints: bool = True
    hint_socket: str = ""
    hint_slo_ms: float | None = None
    adapt: bool = False
    drain_s: float = 30.0

    def __post_init__(self) -> None:
        for name in ("http_port", "grpc_port"):
            if not 0 <= getattr(self, name) <= 65535:
                raise OptionError(f"{name} is {getattr(self, name)}, and must be from 0 to 65535")
        if self.grpc and self.http_port == self.grpc_port != 0:
            raise OptionError(
                f"http_port and grpc_port are both {self.http_port}", advice="choose two, or grpc = false"
            )
        for name in ("max_loaded", "step_processes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise OptionError(f"{name} is {value}, and must be at least 1")
        above = {"poll_s": self.poll_s, "drain_s": self.drain_s}
        above |= {f"limits.{item.name}": getattr(self.limits, item.name) for item in fields(self.limits)}
        if self.hint_slo_ms is not None:
            above["hint_slo_ms"] = self.hint_slo_ms
        for name, value in above.items():
            if not 0 < value < float("inf"):
                raise OptionError(f"{name} is {value}, and must be above 0")
        check_origins(self.cors_origins)
        if self.otlp_endpoint and not self.otlp_endpoint.startswith(("http://", "https://")):
            raise OptionError(f"otlp_endpoint {self.otlp_endpoint!r} is no http:// or https:// URL")

    def fixed_changes(self, other: ServeOptions) -> list[str]:
        """Keys that differ, and that a server which runs cannot follow."""
        return [
            item.name
            for item in fields(self)
            if item.name not in FOLLOWED and getattr(self, item.name) != getattr(other, item.name)
        ]

    def tenants(self, environment: Mapping[str, str]) -> Tenants:
        """Who shares the server, with all API keys.

        Args:
            environment: where the variables in `api_key_env` are looked up.

        Raises:
            OptionError: a variable is not set or empty, a name is none, or two tenants have the same key.
        """
        options = dict(self.tenant)
        for name, variable in self.api_key_env.items():
            key = environment.get(variable, "")
            if not key:
                raise OptionError(f"${variable} is not set: it should hold an API key of tenant {name!r}")
            old = options.get(name, TenantOptions())
            digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
            options[name] = replace(old, api_key_sha256=(*old.api_key_sha256, digest))
        return Tenants(options, unknown=self.unknown_tenants)


def read_serve_options(
    text: str | None, flags: Mapping[str, Any] | None = None, *, where: str = "serve.toml"
) -> ServeOptions:
    """The options of a server.

    Args:
        text: of `serve.toml`; None where there is none.
        flags: of the command line, by key; None values were not given. They win over the file.
        where: what to call the file in an error.

    Raises:
        OptionError: not TOML, an unknown key (the nearest one is named), or an impossible value.
    """
    values = read_toml(text, where=where) if text is not None else {}
    values |= {key: value for key, value in (flags or {}).items() if value is not None}
    return read_options(ServeOptions, values, where=where, advice=ADVICE)
