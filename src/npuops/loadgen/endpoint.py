"""Where the load goes: a model of a server, or any address that takes a POST."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final, Literal
from urllib.parse import quote, unquote, urlsplit

from npuops.errors import UsageError

Protocol = Literal["http", "grpc"]

_SCHEMES: Final[dict[str, tuple[Protocol, bool, int]]] = {
    "http": ("http", False, 80),
    "https": ("http", True, 443),
    "grpc": ("grpc", False, 8001),
    "grpcs": ("grpc", True, 443),
}
_MODEL: Final = re.compile(
    r"(?P<prefix>.*?)/v2/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+))?(?:/infer|/ready)?/?"
)
_ADVICE: Final = "for example http://127.0.0.1:8000/v2/models/digits, or grpc://127.0.0.1:8001/digits"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One place that answers.

    Attributes:
        url: as the user wrote it.
        prefix: of the path, before `/v2`; a gateway may want one.
        path: what a plain POST goes to, with the query.
        model: empty where the address names none.
        version: empty for the server's own choice.
    """

    url: str
    protocol: Protocol
    tls: bool
    host: str
    port: int
    prefix: str = ""
    path: str = "/"
    model: str = ""
    version: str = ""

    @property
    def authority(self) -> str:
        """`host:port`, as the Host header and gRPC want it; an IPv6 address in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def model_path(self) -> str:
        """Of the model's metadata over HTTP; `/infer` is its sibling below."""
        version = f"/versions/{quote(self.version, safe='')}" if self.version else ""
        return f"{self.prefix}/v2/models/{quote(self.model, safe='')}{version}"


def parse_url(url: str, *, protocol: str = "") -> Endpoint:
    """Read the address; one without a scheme is HTTP.

    Args:
        url: `http[s]://HOST:PORT/v2/models/MODEL[/versions/V][/infer]`, `grpc[s]://HOST:PORT/MODEL[/VERSION]`, or any
            other HTTP address for a plain POST.
        protocol: `http` or `grpc` to speak to the same place in that protocol; "" for the scheme's.

    Raises:
        UsageError: no such address can be.
    """
    if protocol not in {"", "http", "grpc"}:
        raise UsageError(f"no protocol {protocol!r}", advice="http or grpc")
    if any(letter.isspace() or not letter.isprintable() for letter in url):
        raise UsageError(f"{url!r} is no address: it holds a space or a control character", advice=_ADVICE)
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port
        host = host and host.encode("ascii" if ":" in host else "idna").decode()
    except ValueError as error:  # also a host that cannot be a name
        raise UsageError(f"{url!r} is no address: {error}", advice=_ADVICE) from error
    if parts.scheme not in _SCHEMES or not host:
        raise UsageError(f"{url!r} is no address of a server", advice=_ADVICE)
    if parts.username is not None or parts.password is not None:
        raise UsageError("a password in an address ends in logs and reports", advice="give it with -H or --api-key")
    spoken, tls, usual_port = _SCHEMES[parts.scheme]
    path = parts.path or "/"
    query = f"?{parts.query}" if parts.query else ""
    found = Endpoint(
        url=url,
        protocol=spoken,
        tls=tls,
        host=host,
        port=port or usual_port,
        path=_quoted(path) + _quoted(query),
    )
    found = _named(found, path)
    return replace(found, protocol="grpc" if protocol == "grpc" else "http") if protocol else found


def _quoted(text: str) -> str:
    """As a request line can hold it: what is quoted already stays."""
    return quote(text, safe="/%:@+,;=~!$&'()*?")


def _named(endpoint: Endpoint, path: str) -> Endpoint:
    match = _MODEL.fullmatch(path)
    if match is not None:
        version = unquote(match["version"] or "")
        return replace(endpoint, prefix=_quoted(match["prefix"]), model=unquote(match["model"]), version=version)
    if endpoint.protocol == "grpc":
        names = [unquote(part) for part in path.split("/") if part]
        if len(names) > 2:
            raise UsageError(f"{endpoint.url!r} names more than a model and a version", advice=_ADVICE)
        return replace(endpoint, model="".join(names[:1]), version="".join(names[1:]))
    return endpoint
