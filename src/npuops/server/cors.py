"""Pages of other sites: which of them may ask this server, by the CORS protocol of the Fetch standard."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Final

from npuops.errors import ForbiddenError, OptionError
from npuops.server.http_head import Head

EVERY: Final = "*"
ADVICE: Final = 'cors_origins = ["https://app.example"] in serve.toml lets pages of that site ask'

_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
_TOKENS: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~, -]{1,1024}")
_SHOWN: Final = "Inference-Header-Content-Length, Retry-After, Content-Encoding"
"""What a page may read besides the fields that every page may."""
_REMEMBERED_S: Final = 600


def check_origins(origins: Collection[str]) -> None:
    """Every one is written as browsers write it, or is `*`.

    Raises:
        OptionError: one is not.
    """
    for origin in origins:
        if origin != EVERY and not _ORIGIN.fullmatch(origin):
            raise OptionError(
                f"cors_origins holds {origin!r}, which no browser calls a site",
                advice='"https://app.example" or "http://localhost:3000": in lower case, without a path; or "*"',
            )


class Cors:
    """The sites whose pages may ask."""

    def __init__(self, origins: Collection[str]) -> None:
        """`origins` as in the options."""
        self._every = EVERY in origins
        self._origins = frozenset(origins)

    def allows(self, origin: str) -> bool:
        """A page of this site may ask."""
        return self._every or origin in self._origins

    def fields(self, head: Head) -> bytes:
        """Lines for the answer; none where no page asks, or none that may."""
        origin = head.headers.get("origin")
        if origin is None or not self.allows(origin):
            return b""
        who = EVERY if self._every else f"{origin}\r\nVary: Origin"
        return f"Access-Control-Allow-Origin: {who}\r\nAccess-Control-Expose-Headers: {_SHOWN}\r\n".encode("latin-1")

    def preflight(self, head: Head) -> Mapping[str, str] | None:
        """Fields of the answer to a browser that asks before it sends a request; None where this is none.

        Raises:
            ForbiddenError: a page of that site may not.
        """
        method, origin = head.headers.get("access-control-request-method"), head.headers.get("origin")
        if head.method != "OPTIONS" or method is None or origin is None:
            return None
        if not self.allows(origin):
            raise ForbiddenError(f"pages of {origin[:200]!r} may not ask this server", advice=ADVICE)
        fields = {"Access-Control-Allow-Methods": "GET, HEAD, POST", "Access-Control-Max-Age": str(_REMEMBERED_S)}
        wished = head.headers.get("access-control-request-headers", "")
        if _TOKENS.fullmatch(wished):
            fields["Access-Control-Allow-Headers"] = wished
        if head.headers.get("access-control-request-private-network") == "true":
            fields["Access-Control-Allow-Private-Network"] = "true"
        return fields


def refuse_foreign_page(head: Head, cors: Cors | None) -> None:
    """A browser sends some requests for any page without asking first; none of them may load or unload models.

    Raises:
        ForbiddenError: a page of another site asks, which `cors_origins` does not name.
    """
    origin = head.headers.get("origin")
    if origin is None or origin.partition("://")[2] == head.headers.get("host"):
        return
    if cors is None or not cors.allows(origin):
        raise ForbiddenError(f"pages of {origin[:200]!r} may not load or unload models here", advice=ADVICE)
