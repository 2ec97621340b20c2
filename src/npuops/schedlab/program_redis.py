"""redis asked at a steady rate, beside a build."""

from __future__ import annotations

from typing import Final

from npuops.hostsched.hint import Kind
from npuops.schedlab.batch_programs import BUILD_NEEDS, build
from npuops.schedlab.open_loop import asking, poisson_ns
from npuops.schedlab.program_load import Cast, Need, ProgramLoad, Scene, free_port, tell
from npuops.schedlab.program_roles import ProgramRole

_RATE_PER_S: Final = 1500.0
_ITEMS: Final = 900


def command(*words: str) -> bytes:
    """As redis reads it: an array of strings."""
    parts = [f"*{len(words)}\r\n", *(f"${len(word)}\r\n{word}\r\n" for word in words)]
    return "".join(parts).encode("ascii")


def _set_up(scene: Scene) -> Cast:
    port = free_port(scene.stack)
    options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no", "--daemonize", "no"]
    server = scene.start("redis", ["redis-server", *options, "--dir", str(scene.folder)])
    server.await_said("Ready to accept connections")
    items = [f"item-{number * 7919 % 100_003:06}" for number in range(_ITEMS)]
    tell(port, server, command("RPUSH", "items", *items), f":{_ITEMS}\r\n".encode("ascii"))
    batch, meter = build(scene)
    arrivals = poisson_ns(scene.seed, _RATE_PER_S, scene.window_ns)
    request = command("SORT", "items", "ALPHA", "LIMIT", "0", "10")
    client = scene.stack.enter_context(asking(port, "redis", request, arrivals, scene.window_ns, scene.folder))
    redis = ProgramRole("redis", Kind.LATENCY, server.pid, ("redis-server*",))
    return Cast(scene.cast(redis, batch), client, meter, client.ahead)


REDIS: Final = ProgramLoad(
    "redis-build",
    f"redis, {_RATE_PER_S:g} times a second the first of {_ITEMS} sorted items, beside make -j",
    2000,
    (Need("redis-server", "redis-server"), *BUILD_NEEDS),
    _set_up,
)
