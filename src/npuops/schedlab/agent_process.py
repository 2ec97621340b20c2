"""The real agent beside a play, started as users start it, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from npuops.errors import ToolchainCrashError, ToolchainTimeoutError
from npuops.hostsched.hint_place import VARIABLE
from npuops.schedlab.played import AgentCost
from npuops.schedlab.process_family import living_cpu_ns
from npuops.schedlab.rivals import ByAgent

_BEGIN_S: Final = 60.0
_END_S: Final = 20.0
_LOOK_S: Final = 0.02
_WORDS: Final = 600


class AgentProcess:
    """Made by `running_agent`, which ends it."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        """Of a process that writes its events to files in `folder`."""
        self._process = process
        self._folder = folder
        self._from_ns = self._from_cpu_ns = 0
        self._share = 0.0

    def await_first_look(self) -> None:
        """Until it says that it has begun.

        Raises:
            ToolchainCrashError: it ended instead.
            ToolchainTimeoutError: it says nothing.
        """
        until = time.monotonic() + _BEGIN_S
        while not any(event.get("event") == "started" for event in self._events()):
            self.check()
            if time.monotonic() > until:
                raise ToolchainTimeoutError(f"the agent did not begin within {_BEGIN_S:g} s")
            time.sleep(_LOOK_S)

    def check(self) -> None:
        """It still runs.

        Raises:
            ToolchainCrashError: it ended, with its last words.
        """
        if self._process.poll() is not None:
            raise ToolchainCrashError(f"the agent ended with {self._process.returncode}: {self._said()}")

    def begin(self) -> None:
        """From now on its CPU time counts."""
        self._from_ns, self._from_cpu_ns = time.monotonic_ns(), living_cpu_ns(self._process.pid)

    def end(self) -> None:
        """Until now."""
        spent_ns = living_cpu_ns(self._process.pid) - self._from_cpu_ns
        self._share = max(spent_ns, 0) / max(time.monotonic_ns() - self._from_ns, 1)

    def cost(self) -> AgentCost:
        """End it, and hear what it says of itself.

        Raises:
            ToolchainCrashError: it ended badly, or without a last word.
            ToolchainTimeoutError: it does not end.
        """
        self._process.terminate()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired as error:
            raise ToolchainTimeoutError(f"the agent did not end within {_END_S:g} s") from error
        last = next((event for event in reversed(self._events()) if event.get("event") == "ended"), None)
        if last is None or self._process.returncode not in (0, 143, -15):
            raise ToolchainCrashError(f"the agent ended with {self._process.returncode}: {self._said()}")
        summary = last["summary"]
        return AgentCost(
            cpu_share=self._share,
            own_share=summary["cpu_share"],
            looks=summary["steps"],
            changed=summary["changed"],
            stuck=summary["stuck"],
            slowed=summary["slowed"],
            refused=summary["refused"],
            denied=summary["denied"],
        )

    def _events(self) -> list[dict[str, Any]]:
        """Of whole lines; an error is told over several, and is none."""
        content = (self._folder / "events.jsonl").read_bytes()
        lines = content[: content.rfind(b"\n") + 1].splitlines()
        return [msgspec.json.decode(line, type=dict[str, Any]) for line in lines if line[:1] + line[-1:] == b"{}"]

    def _said(self) -> str:
        for name in ("errors.txt", "events.jsonl"):
            if words := (self._folder / name).read_text(errors="replace").strip():
                return words[-_WORDS:]
        return "it said nothing"


@contextmanager
def running_agent(
    rival: ByAgent, pids: Sequence[int], folder: Path, *, arguments: Sequence[str] = (), record: Path | None = None
) -> Iterator[AgentProcess]:
    """Start it on these processes, and wait for its first look; on leaving it has ended.

    Args:
        rival: which policy.
        pids: who opted in.
        folder: for its files and its socket; of this play only, and short: a socket's path is.
        arguments: more of them, for the command line.
        record: file of its trace; None: it keeps none.

    Raises:
        ToolchainCrashError: it does not begin.
        ToolchainTimeoutError: as above.
    """
    words = [sys.executable, "-m", "npuops.cli.main", "hostsched", "act", "--json"]
    words += ["--policy", rival.policy, "--period", f"{rival.period_us / 1000:g}"]
    words += [word for pid in pids for word in ("--pid", str(pid))]
    words += ["--thresholds", str(rival.thresholds)] if rival.thresholds is not None else []
    words += ["--policy-folder", str(rival.folder)] if rival.folder is not None else []
    words += ["--record", str(record)] if record is not None else []
    with (folder / "events.jsonl").open("wb") as events, (folder / "errors.txt").open("wb") as errors:
        process = subprocess.Popen(  # noqa: S603 - our own command line
            [*words, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=events,
            stderr=errors,
            env={**os.environ, **places(folder)},
            start_new_session=True,  # an autogroup of its own, as a service has; and Ctrl-C is for us
        )
    agent = AgentProcess(process, folder)
    try:
        agent.await_first_look()
        yield agent
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()  # its reaper puts everything back
                process.wait()


def places(folder: Path) -> Mapping[str, str]:
    """Environment of an agent that meets nobody else's, and of those who speak to it."""
    return {VARIABLE: str(folder / "hints.sock"), "NPUOPS_LEASES": str(folder)}
