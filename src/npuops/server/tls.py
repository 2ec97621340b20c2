"""A server's side of TLS, for HTTP and for gRPC."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from npuops.errors import OptionError

HTTP2: Final = ("h2",)
"""What gRPC offers by ALPN."""


def server_tls(certificate: Path, key: Path, protocols: Sequence[str] = ()) -> ssl.SSLContext:
    """Version 1.2 at least, as HTTP/2 demands (RFC 9113, section 9.2).

    Args:
        certificate: a file with the chain, PEM.
        key: a file with its private key, PEM.
        protocols: offered by ALPN.

    Raises:
        OptionError: the files are no certificate and its key.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if protocols:
        context.set_alpn_protocols(list(protocols))
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise OptionError(f"{certificate} and {key}: {error}", advice="give a certificate chain and its key") from error
    return context
