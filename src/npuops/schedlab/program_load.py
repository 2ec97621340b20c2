"""A load made of real programs: one side answers, the other works in bulk, on the same CPUs."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from npuops.artifacts.disk import storage_errors
from npuops.errors import MissingToolchainError, ToolchainCrashError, ToolchainTimeoutError
from npuops.hostsched.hint_place import VARIABLE
from npuops.schedlab.attendant import Attended, attended
from npuops.schedlab.meters import Meter
from npuops.schedlab.program_outcome import Answers
from npuops.schedlab.program_roles import ProgramRole, Roles

SERVERS: Final = ":/usr/local/sbin:/usr/sbin:/sbin"
"""Where servers are, which are not in everybody's PATH."""
_PORT_S: Final = 30.0
_LOOK_S: Final = 0.01
_ANSWER_BYTES: Final = 100


@dataclass(frozen=True, slots=True)
class Need:
    """A command that must be there.

    Attributes:
        command: its name.
        package: of Debian, in which it is.
    """

    command: str
    package: str


class Asked(Protocol):
    """The side that answers, and whoever asks it."""

    def go(self, start_ns: int) -> None:
        """The window begins then, in ns of CLOCK_MONOTONIC."""
        ...

    def finish(self) -> Answers:
        """What became of the requests, after the window."""
        ...


@dataclass(frozen=True, slots=True)
class Scene:
    """Where a load is set up.

    Attributes:
        stack: ends whatever was started.
        folder: for files of this play.
        seed: of arrivals.
        seconds: length of the window.
        cpus: of this process.
        people: programs that were started, and must not end.
    """

    stack: ExitStack
    folder: Path
    seed: int
    seconds: float
    cpus: int
    people: list[Attended] = field(default_factory=list)

    def start(
        self,
        name: str,
        words: Sequence[object],
        *,
        log: bool = True,
        pass_fds: Sequence[int] = (),
    ) -> Attended:
        """As `attended`; it must live until the window is over."""
        place = {VARIABLE: str(self.folder / "hints.sock")}
        found = self.stack.enter_context(attended(name, words, self.folder, log=log, pass_fds=pass_fds, env=place))
        self.people.append(found)
        return found

    def cast(self, latency: ProgramRole, batch: ProgramRole) -> Roles:
        """Both sides."""
        return Roles((latency, batch), self.folder)

    def write(self, name: str, text: str) -> Path:
        """A file in the folder.

        Raises:
            StorageError: it cannot be written.
        """
        path = self.folder / name
        with storage_errors("write", path, need_bytes=len(text)):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return path

    @property
    def window_ns(self) -> int:
        """Length of the window."""
        return round(self.seconds * 1e9)


@dataclass(frozen=True, slots=True)
class Cast:
    """A load that is set up.

    Attributes:
        roles: who is who.
        asked: the side that answers.
        meter: of the batch side.
        ahead: the client runs before all others; None where the program measures itself.
    """

    roles: Roles
    asked: Asked
    meter: Meter
    ahead: bool | None


@dataclass(frozen=True, slots=True)
class ProgramLoad:
    """A load by name.

    Attributes:
        name: for tables and the command line.
        words: what it is, for people.
        slo_us: an answer later than this is a miss.
        needs: commands.
        set_up: starts everything; nothing of it is left once the scene's stack is closed.
        hints: it tells the agent what waits; the others cannot.
    """

    name: str
    words: str
    slo_us: int
    needs: tuple[Need, ...]
    set_up: Callable[[Scene], Cast]
    hints: bool = False

    def missing(self) -> tuple[Need, ...]:
        """Commands that are not there."""
        return tuple(need for need in self.needs if where_is(need.command) is None)

    def demand(self) -> None:
        """Raises: MissingToolchainError: a command is not there; the advice names the packages."""
        if missing := self.missing():
            commands = ", ".join(need.command for need in missing)
            packages = " ".join(sorted({need.package for need in missing}))
            raise MissingToolchainError(
                f"load {self.name} cannot be played: {commands} not found", advice=f"apt install {packages}"
            )


def where_is(command: str) -> str | None:
    """Path of a command, also of a server."""
    return shutil.which(command, path=f"{os.environ.get('PATH', os.defpath)}{SERVERS}")


def path_of(command: str) -> str:
    """As `where_is`, of one that `demand` found."""
    return where_is(command) or command


def free_port(stack: ExitStack) -> int:
    """A port of the kernel's choice, kept from others: only servers that set SO_REUSEADDR, as ours do, can take it."""
    kept = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    kept.bind(("127.0.0.1", 0))
    return int(kept.getsockname()[1])


def http_request(method: str, path: str, body: bytes = b"", *, headers: tuple[str, ...] = ()) -> bytes:
    """The bytes of a request on a connection that stays open."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *headers]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


def tell(port: int, server: Attended, words: bytes, answer: bytes) -> None:
    """Say something to a server, before anybody asks it.

    Raises:
        ToolchainCrashError: it does not answer this.
    """
    try:
        with socket.create_connection(("127.0.0.1", port), _PORT_S) as line:
            line.sendall(words)
            found = line.recv(_ANSWER_BYTES)
    except OSError as error:
        raise ToolchainCrashError(f"{server.name} cannot be spoken to: {error}") from error
    if found != answer:
        raise ToolchainCrashError(f"{server.name} answers {found!r} where {answer!r} is right")


def await_port(port: int, server: Attended) -> None:
    """Until somebody listens there.

    Raises:
        ToolchainCrashError: the server ended before.
        ToolchainTimeoutError: nobody does.
    """
    until = time.monotonic() + _PORT_S
    while True:
        server.demand_alive()
        try:
            socket.create_connection(("127.0.0.1", port), _PORT_S).close()
        except ConnectionRefusedError:
            if time.monotonic() > until:
                raise ToolchainTimeoutError(f"{server.name} did not listen within {_PORT_S:g} s") from None
            time.sleep(_LOOK_S)
        else:
            return
