"""The process behind `command_line.npuops`: it has imported all that a command needs, and forks for each of them.

A command is still a process of its own, with streams, environment, folder and exit of its own, that runs the same
`main`; only the imports are done before, which are most of what a short command costs.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import socket
import sys

from npuops.cli.main import VERBS, main

OUTSIDE = ("numpy", "onnx", "onnxruntime", "typer", "rich.console")


def serve(descriptor: int) -> None:
    """Import, then run one command for each message, one after the other, until the other end closes."""
    for name in [*OUTSIDE, *(f"npuops.cli.{verb.replace('-', '_')}" for verb in VERBS)]:
        importlib.import_module(name)
    gc.freeze()  # else each command's collector, and its end, would walk over all of it
    with socket.socket(fileno=descriptor) as line:
        while True:
            message, streams, _, _ = socket.recv_fds(line, 1 << 20, 2)
            if not message:
                return
            if not (pid := os.fork()):
                break
            for stream in streams:
                os.close(stream)
            line.send(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())
    _become(json.loads(message), streams)
    main()


def _become(command: dict[str, object], streams: list[int]) -> None:
    for number, stream in enumerate(streams, start=1):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(str(command["folder"]))
    os.environ.clear()
    os.environ.update(command["environment"])  # type: ignore[call-overload]
    sys.argv[1:] = command["arguments"]  # type: ignore[call-overload]
