"""Vendor code runs in a child process with a time limit: a crash or a hang ends the child, not us.

`call` starts `python -m npuops.targets.child FOLDER`, where FOLDER is private to this call and holds the
pickled request; the child leaves the pickled reply there, and its temporary files, which a vendor's code that
crashes or is killed cannot remove. What it prints goes to a file and comes back as `words`. Progress crosses on a
pipe, one JSON line each. A child ends with its parent, also when that is killed; what the child started ends with
the child.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import importlib
import json
import os
import pickle  # only between us and our own child, in a folder that only this user can read
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from npuops.errors import NpuopsError, StorageError, ToolchainCrashError, ToolchainError, ToolchainTimeoutError
from npuops.events import Observer, StepProgressed, ignore
from npuops.private_folder import private_folder

WORDS_KEPT = 4000
"""Characters of the vendor's output that an error carries (its end: the cause comes last)."""

PR_SET_PDEATHSIG = 1
"""From <linux/prctl.h>."""

PROGRESS_FD = "NPUOPS_CHILD_PROGRESS_FD"

SCRATCH = "tmp"
"""Below a call's folder: what the child finds as TMPDIR."""

LOOK_S = 0.2
"""How often the parent looks whether the child ended, in case that somebody else holds its pipe open."""

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""What the system says when there is no room left: nobody's code is to blame."""


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
        StorageError: there is no room for what goes to the child, for its reply, or for what it writes.
        ToolchainTimeoutError: it did not end in time.
        ToolchainCrashError: a signal killed it, or it ended without a reply.
    """
    with _private_folder() as folder:
        request = (function.__module__, function.__qualname__, dict(arguments))
        _write_request(folder, request)
        status = _run(folder, what, timeout_s, observe)
        words = _words(folder)
        reply_file = folder / "reply"
        if status != 0 or not reply_file.exists():
            raise ToolchainCrashError(
                f"{what} {_death(status)}{_quoted(words)}",
                advice="the vendor's code failed outside of its own error handling; the words above are all",
            )
        with reply_file.open("rb") as reply:
            kind, value = pickle.load(reply)  # noqa: S301 - written by our own child
    if kind == "error":
        raise value
    return Reply(value, words)


def progress(step: str, done: int, total: int | None = None, detail: str = "") -> None:
    """Inside a child: tell the parent how far the work is. Elsewhere it does nothing."""
    descriptor = os.environ.get(PROGRESS_FD)
    if descriptor is not None:
        line = json.dumps({"step": step, "done": done, "total": total, "detail": detail}) + "\n"
        os.write(int(descriptor), line.encode())


@contextlib.contextmanager
def _private_folder() -> Iterator[Path]:
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(private_folder())
            (folder / SCRATCH).mkdir()
        except OSError as error:
            raise StorageError(f"no temporary folder can be made: {error.strerror}", advice="set TMPDIR") from error
        yield folder


def _write_request(folder: Path, request: tuple[str, str, dict[str, Any]]) -> None:
    try:
        (folder / "path").write_bytes(pickle.dumps(list(sys.path)))
        with (folder / "request").open("wb") as file:
            pickle.dump(request, file, protocol=5)
    except OSError as error:
        raise _no_room(folder, error) from error


def _no_room(folder: Path, error: OSError) -> StorageError:
    return StorageError(
        f"{folder.parent} cannot hold what goes to the vendor's process and back: {error.strerror}",
        advice="make room there, or set TMPDIR to a larger place",
    )


def _run(folder: Path, what: str, timeout_s: float, observe: Observer) -> int:
    read_end, write_end = os.pipe()
    environment = {**os.environ, PROGRESS_FD: str(write_end), "TMPDIR": str(folder / SCRATCH)}
    with (folder / "words").open("wb") as words:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            # -u: words in a buffer are lost in a crash. -P: nothing is imported from where the user happens to stand.
            [sys.executable, "-u", "-P", "-m", "npuops.targets.child", str(folder), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=words,
            stderr=subprocess.STDOUT,
            env=environment,
            pass_fds=[write_end],
            start_new_session=True,
        )
    os.close(write_end)
    try:
        _follow(read_end, process.pid, time.monotonic() + timeout_s, observe)
    except TimeoutError:
        raise ToolchainTimeoutError(
            f"{what} did not end within {timeout_s:g} s{_quoted(_words(folder))}",
            advice="raise --time-limit, or look for un-quantized float operators: emulators crawl there",
        ) from None
    finally:
        os.close(read_end)
        # The child is not reaped yet, so the number is still its group's: this ends what it started, and nobody else.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        status = process.wait()
    return status


def _follow(read_end: int, pid: int, deadline: float, observe: Observer) -> None:
    """Pass progress on until the child ends: others may hold the pipe longer, and vendor code may close it earlier."""
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(read_end, selectors.EVENT_READ)
        while True:
            ended = _has_ended(pid)
            left = deadline - time.monotonic()
            if left <= 0 and not ended:
                raise TimeoutError
            if not selector.select(0 if ended else min(left, LOOK_S)):
                if ended:
                    return
                continue
            chunk = os.read(read_end, 65536)
            if not chunk:
                break
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                observe(StepProgressed(**json.loads(line)))
    pause_s = 0.001
    while not _has_ended(pid):
        if time.monotonic() >= deadline:
            raise TimeoutError
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, LOOK_S)


def _has_ended(pid: int) -> bool:
    """Whether the child is a zombie; it stays one."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _words(folder: Path) -> str:
    """The end of what was printed, however much that is."""
    with (folder / "words").open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 4 * WORDS_KEPT))  # a character has at most four bytes
        text = file.read().decode("utf-8", errors="replace").strip()
    return text if size <= 4 * WORDS_KEPT and len(text) <= WORDS_KEPT else "… " + text[-WORDS_KEPT:]


def _quoted(words: str) -> str:
    return f"; it said:\n{words}" if words else "; it said nothing"


def _death(status: int) -> str:
    if status < 0:
        names = {known.value: known.name for known in signal.Signals}
        return f"was killed by {names.get(-status, f'signal {-status}')}"
    return f"ended with status {status} and no reply"


def _die_with(parent: int) -> None:
    """Let the kernel end us when our parent ends, however it ends: vendor code must not run on for nobody."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the kernel was told
        os._exit(1)


def _serve(folder: Path) -> None:
    # The path comes first: the arguments may be of classes that only the parent's path finds.
    sys.path[:] = pickle.loads((folder / "path").read_bytes())  # noqa: S301 - written by our parent
    module, name = "", ""
    scratch = folder / "reply.part"
    try:
        with (folder / "request").open("rb") as request:
            module, name, arguments = pickle.load(request)  # noqa: S301 - written by our parent
        _keep(scratch, "value", getattr(importlib.import_module(module), name)(**arguments))
    except NpuopsError as error:
        _keep(scratch, "error", error)
    except OSError as error:
        _keep(scratch, "error", _of_system(error, f"{module}.{name}"))
    except Exception as error:  # noqa: BLE001 - the border to vendor code: everything must become an answer
        _keep(scratch, "error", ToolchainError(f"{module}.{name}: {type(error).__name__}: {error}"))
    scratch.rename(folder / "reply")


def _keep(path: Path, kind: str, value: object) -> None:
    with path.open("wb") as file:
        pickle.dump((kind, value), file, protocol=5)


def _of_system(error: OSError, who: str) -> NpuopsError:
    if error.errno in FULL:
        where = f"{error.filename}: " if error.filename else ""
        return StorageError(f"{where}{error.strerror}", advice="make room, or set TMPDIR to a larger place")
    return ToolchainError(f"{who}: {type(error).__name__}: {error}")


if __name__ == "__main__":
    _die_with(int(sys.argv[2]))
    _serve(Path(sys.argv[1]))
    os._exit(0)  # vendor libraries crash in their exit handlers after the work is done
