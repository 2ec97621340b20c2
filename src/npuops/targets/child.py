"""Vendor code runs in a child process with a time limit: a crash or a hang ends the child, not us.

`call` starts `python -m npuops.targets.child FOLDER`, where FOLDER is private to this call and holds the
pickled request; the child leaves the pickled reply there. What the vendor's code prints goes to a file
and comes back as `words`. Progress crosses on a pipe, one JSON line each. A child ends with its parent, also
when that is killed.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import pickle  # only between us and our own child, in a folder that only this user can read
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from npuops.errors import NpuopsError, ToolchainCrashError, ToolchainError, ToolchainTimeoutError
from npuops.events import Observer, StepProgressed, ignore

WORDS_KEPT = 4000
"""Characters of the vendor's output that an error carries (its end: the cause comes last)."""

PR_SET_PDEATHSIG = 1
"""From <linux/prctl.h>."""

PROGRESS_FD = "NPUOPS_CHILD_PROGRESS_FD"


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: the function's value and everything that was printed meanwhile."""

    value: Any
    words: str


def call(
    function: Callable[..., Any],
    arguments: Mapping[str, Any],
    *,
    what: str,
    timeout_s: float,
    observe: Observer = ignore,
) -> Reply:
    """Run `function(**arguments)` in a child process.

    Args:
        function: importable by `module:name`; arguments and value must pickle.
        arguments: keyword arguments.
        what: who works, for messages (`qnn-htp:sm8650 compile`).
        timeout_s: the child's whole process group is killed after it.
        observe: gets `StepProgressed` whenever the child calls `progress`.

    Raises:
        NpuopsError: whatever the function raised of our tree, with its advice.
        ToolchainTimeoutError: it did not end in time.
        ToolchainCrashError: a signal killed it, or it ended without a reply.
    """
    with tempfile.TemporaryDirectory(prefix="npuops-child-") as name:
        folder = Path(name)
        (folder / "path").write_bytes(pickle.dumps(list(sys.path)))
        request = (function.__module__, function.__qualname__, dict(arguments))
        (folder / "request").write_bytes(pickle.dumps(request, protocol=5))
        status = _run(folder, what, timeout_s, observe)
        words = _words(folder)
        reply_file = folder / "reply"
        if status != 0 or not reply_file.exists():
            raise ToolchainCrashError(
                f"{what} {_death(status)}{_quoted(words)}",
                advice="the vendor's code failed outside of its own error handling; the words above are all",
            )
        kind, value = pickle.loads(reply_file.read_bytes())  # noqa: S301 - written by our own child
    if kind == "error":
        raise value
    return Reply(value, words)


def progress(step: str, done: int, total: int | None = None, detail: str = "") -> None:
    """Inside a child: tell the parent how far the work is. Elsewhere it does nothing."""
    descriptor = os.environ.get(PROGRESS_FD)
    if descriptor is not None:
        line = json.dumps({"step": step, "done": done, "total": total, "detail": detail}) + "\n"
        os.write(int(descriptor), line.encode())


def _run(folder: Path, what: str, timeout_s: float, observe: Observer) -> int:
    read_end, write_end = os.pipe()
    environment = {**os.environ, PROGRESS_FD: str(write_end)}
    with (folder / "words").open("wb") as words:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", "npuops.targets.child", str(folder), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=words,
            stderr=subprocess.STDOUT,
            env=environment,
            pass_fds=[write_end],
            start_new_session=True,
        )
    os.close(write_end)
    try:
        _follow(read_end, time.monotonic() + timeout_s, observe)
        return process.wait(timeout=5)
    except (TimeoutError, subprocess.TimeoutExpired):
        raise ToolchainTimeoutError(
            f"{what} did not end within {timeout_s:g} s{_quoted(_words(folder))}",
            advice="raise --time-limit, or look for un-quantized float operators: emulators crawl there",
        ) from None
    finally:
        os.close(read_end)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _follow(read_end: int, deadline: float, observe: Observer) -> None:
    """Pass progress on until the child closes the pipe, which its end does at the latest."""
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(read_end, selectors.EVENT_READ)
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not selector.select(left):
                raise TimeoutError
            chunk = os.read(read_end, 65536)
            if not chunk:
                return
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                observe(StepProgressed(**json.loads(line)))


def _words(folder: Path) -> str:
    text = (folder / "words").read_text(encoding="utf-8", errors="replace").strip()
    return text if len(text) <= WORDS_KEPT else "… " + text[-WORDS_KEPT:]


def _quoted(words: str) -> str:
    return f"; it said:\n{words}" if words else "; it said nothing"


def _death(status: int) -> str:
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"ended with status {status} and no reply"


def _die_with(parent: int) -> None:
    """Let the kernel end us when our parent ends, however it ends: vendor code must not run on for nobody."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the kernel was told
        os._exit(1)


def _serve(folder: Path) -> None:
    # The path comes first: the arguments may be of classes that only the parent's path finds.
    sys.path[:] = pickle.loads((folder / "path").read_bytes())  # noqa: S301 - written by our parent
    module, name, arguments = pickle.loads((folder / "request").read_bytes())  # noqa: S301 - written by our parent
    outcome: tuple[str, object]
    try:
        outcome = ("value", getattr(importlib.import_module(module), name)(**arguments))
    except NpuopsError as error:
        outcome = ("error", error)
    except Exception as error:  # noqa: BLE001 - the border to vendor code: everything must become an answer
        sys.stdout.flush()
        outcome = ("error", ToolchainError(f"{module}.{name}: {type(error).__name__}: {error}"))
    scratch = folder / "reply.part"
    scratch.write_bytes(pickle.dumps(outcome, protocol=5))
    scratch.rename(folder / "reply")


if __name__ == "__main__":
    _die_with(int(sys.argv[2]))
    _serve(Path(sys.argv[1]))
    sys.stdout.flush()
    os._exit(0)  # vendor libraries crash in their exit handlers after the work is done
