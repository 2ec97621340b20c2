"""memcached asked at a steady rate, beside a build."""

from __future__ import annotations

import os
from typing import Final

from npuops.hostsched.hint import Kind
from npuops.schedlab.batch_programs import BUILD_NEEDS, build
from npuops.schedlab.open_loop import asking, poisson_ns
from npuops.schedlab.program_load import Cast, Need, ProgramLoad, Scene, await_port, free_port, tell
from npuops.schedlab.program_roles import ProgramRole

_RATE_PER_S: Final = 4000.0
_VALUE_BYTES: Final = 4096


def _set_up(scene: Scene) -> Cast:
    port = free_port(scene.stack)
    user = ["-u", "root"] if os.geteuid() == 0 else []
    server = scene.start("memcached", ["memcached", "-l", "127.0.0.1", "-p", str(port), "-U", "0", "-t", "2", *user])
    await_port(port, server)
    value = f"set item 0 0 {_VALUE_BYTES}\r\n{'x' * _VALUE_BYTES}\r\n".encode("ascii")
    tell(port, server, value, b"STORED\r\n")
    batch, meter = build(scene)
    arrivals = poisson_ns(scene.seed, _RATE_PER_S, scene.window_ns)
    client = scene.stack.enter_context(
        asking(port, "memcached", b"get item\r\n", arrivals, scene.window_ns, scene.folder)
    )
    role = ProgramRole("memcached", Kind.LATENCY, server.pid, ("memcached*",))
    return Cast(scene.cast(role, batch), client, meter, client.ahead)


MEMCACHED: Final = ProgramLoad(
    "memcached-build",
    f"memcached, {_RATE_PER_S:g} values of {_VALUE_BYTES} bytes a second, beside make -j",
    1000,
    (Need("memcached", "memcached"), *BUILD_NEEDS),
    _set_up,
)
