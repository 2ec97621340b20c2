"""A server that answers at once with the same bytes, whatever is asked: the ceiling for a load generator.

`python tests/instant_server.py` prints its port, and serves until it is ended.
"""

from __future__ import annotations

import asyncio
from typing import Any

import uvloop

HEAD = (
    b'{"model_name":"m","outputs":[{"name":"y","datatype":"FP32","shape":[1,10],"parameters":{"binary_data_size":40}}]}'
)
ANSWER = (
    (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
        b"Inference-Header-Content-Length: %d\r\nContent-Length: %d\r\n\r\n" % (len(HEAD), len(HEAD) + 40)
    )
    + HEAD
    + bytes(40)
)


class Instant(asyncio.Protocol):
    """Counts bytes until the request is whole; it reads no more of it."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.missing = 0

    def data_received(self, data: bytes) -> None:
        if not self.missing:
            end = data.find(b"\r\n\r\n")
            at = data.lower().rfind(b"\r\ncontent-length: ", 0, end + 2)
            self.missing = end + 4 + int(data[at + 18 : data.find(b"\r\n", at + 2)])
        self.missing -= len(data)
        if self.missing <= 0:
            self.missing = 0
            self.transport.write(ANSWER)


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Instant, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201 - whoever started it reads it
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
