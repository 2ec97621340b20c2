"""What `npuops serve` does: options, signals, and the end."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import uvloop

from npuops.cli.json_line import print_json_line
from npuops.cli.serve_words import Narrator
from npuops.config import read_options, toml_text
from npuops.errors import OptionError
from npuops.events import Warned
from npuops.server.model_options import ModelOptions
from npuops.server.serve_options import ServeOptions, read_serve_options
from npuops.serving import Server

SWITCH_S: Final = 0.0005
"""Other threads only hash and log: the loop must not wait for them for long."""

SPARE_DESCRIPTORS: Final = 512
"""Besides connections: workers, shared memory, files."""


def serve(
    source: Path, config: Path | None, flags: Mapping[str, Any], model: Mapping[str, Any], *, as_json: bool
) -> None:
    """Serve until a signal ends it.

    Args:
        source: an artifact, or a repository.
        config: `serve.toml`.
        flags: keys of `serve.toml`, which win over it.
        model: keys of `model.toml`, for the one artifact that is served.
        as_json: tell programs, on standard output, not people.

    Raises:
        NpuopsError: nothing is there, a port is taken, or an option cannot be.
    """

    def read() -> ServeOptions:
        text = toml_text(config) if config is not None else None
        return read_serve_options(text, flags, where=str(config or "the command line"))

    options = read()
    of_model = read_options(ModelOptions, model, where="the command line") if model else None
    sys.setswitchinterval(SWITCH_S)
    _allow_descriptors(options.limits.connections + SPARE_DESCRIPTORS)
    again = read if config is not None else None
    uvloop.run(_serve(source, options, again, of_model, Narrator(print_json_line if as_json else None)))


def _allow_descriptors(wanted: int) -> None:
    """Each connection is an open file, of which a process may have 1,024 unless it asks for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


async def _serve(
    source: Path,
    options: ServeOptions,
    again: Callable[[], ServeOptions] | None,
    model: ModelOptions | None,
    narrator: Narrator,
) -> None:
    server = Server(source, options, model=model, observe=(narrator,))
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _ender(number, ending, server.abandon))
    loop.add_signal_handler(signal.SIGHUP, _look_again, server, again, narrator)
    try:
        narrator.listening(await server.start(), options)
        if not server.repository.index():
            narrator.empty(source)
        gc.freeze()  # modules stay for ever: without them a full collection takes 1 ms, not 30, out of a p99
        await ending.wait()
        narrator.ending(options.drain_s)
    finally:
        await server.stop()
    narrator.ended()


def _look_again(server: Server, read: Callable[[], ServeOptions] | None, narrator: Narrator) -> None:
    """At the repository, and at `serve.toml` where there is one; while that is wrong, the options stay as they are."""
    try:
        if read is not None:
            narrator.configured(server.follow(read()))
    except OptionError as error:
        narrator(Warned(step="serve", message=f"the options stay as they are: {error.message}", advice=error.advice))
    server.look_now()


def _ender(number: int, ending: asyncio.Event, abandon: Callable[[], None]) -> Callable[[], None]:
    """The first signal asks, the second does not."""

    def end() -> None:
        if ending.is_set():
            abandon()
            sys.stderr.write("ended without an answer to what was under way\n")
            sys.stderr.flush()
            os._exit(128 + number)  # the workers see it, and end as well
        ending.set()

    return end
