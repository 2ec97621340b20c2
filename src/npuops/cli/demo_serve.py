"""The server's part of the demo: clients ask while its worker is killed, and while another version takes over.

Nothing is scripted here either: `npuops serve` and `npuops bench` run as processes of their own, as a user starts them,
and every figure is what one of the two said.
"""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from npuops.artifacts.manifest import Artifact
from npuops.errors import RunError
from npuops.events import Observer, StepFinished, StepStarted

EXTRA: Final = ("google.protobuf", "hpack", "httptools", "orjson", "prometheus_client", "simdjson", "uvloop")
"""Modules of the extra `serve`."""
CLIENTS: Final = 8
STAGE_S: Final = 2.0
"""At least; the stage goes on until what happened in it is over, and as many requests again are answered."""
UNDER_WAY: Final = 300
"""Requests answered in a stage before something happens to the server: all clients are at work then."""
LIMIT_S: Final = 60.0
"""After which the server or the clients are given up; this machine's time."""
_LOOK_S: Final = 0.01
_MODEL: Final = "model"
_WORKER: Final = b"npuops.runtime.worker"
_SHARED: Final = "memfd:npuops-serve"
_RUN: Final = (
    # A demo that is killed must leave no server behind: the kernel ends it with the demo.
    "import ctypes, os, signal; ctypes.CDLL(None).prctl(1, signal.SIGTERM); os.getppid() == {parent} or os._exit(0); "
    "from npuops.cli.main import main; main()"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedStage:
    """What clients saw in one part of the story.

    Attributes:
        title: what was going on.
        asked, answered: requests.
        differing: answers that are not those of the same version to the same input; None where versions changed.
        per_s: right answers a second.
        p50_ms, p99_ms, max_ms: from sending a request to its answer; measured by the client on this host.
    """

    title: str
    asked: int
    answered: int
    differing: int | None
    per_s: float
    p50_ms: float
    p99_ms: float
    max_ms: float

    @property
    def lost(self) -> int:
        """Requests without an answer, or with an error."""
        return self.asked - self.answered


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingStory:
    """All of it.

    Attributes:
        first, second: what was served, and what replaced it.
        ready_s: from the start of the server's process until it could answer.
        recovery_s: until the killed worker's successor was ready, as the server says; None: it never was.
        replayed: runs of the killed worker that were run again.
        swap_s: from the wish for the second version until it answered, while the first one did.
        ended: exit code of the server after SIGTERM; 0 when everything that was asked was answered.
    """

    first: str
    second: str
    stages: tuple[ServedStage, ...]
    ready_s: float
    recovery_s: float | None
    replayed: int
    swap_s: float
    version: str
    ended: int

    @property
    def is_as_promised(self) -> bool:
        """Nothing was lost, no answer was wrong, the worker came back, and the new version answers."""
        whole = all(stage.lost == 0 and not stage.differing for stage in self.stages)
        return whole and self.recovery_s is not None and self.version == "2" and self.ended == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """An artifact, and what to call it."""

    name: str
    artifact: Artifact


def missing() -> str:
    """The first module of the extra `serve` that is not installed; "" where all are."""
    return next((name for name in EXTRA if not _is_there(name)), "")


def tell_serving(first: Served, second: Served, observe: Observer) -> ServingStory:
    """Start a server, let its story happen, and end it, however that ends.

    Args:
        first: version 1.
        second: version 2, which takes over.
        observe: gets the steps.

    Raises:
        RunError: the server or the clients did not do their part.
    """
    with TemporaryDirectory(prefix="npuops-demo-serve-") as scratch, ExitStack() as stack:
        folder = Path(scratch)
        _put(first.artifact, folder / "repository", "1")
        # In a worker, as every larger model is: the server would compute one as small as the demo's by itself.
        (folder / "repository" / _MODEL / "model.toml").write_text('inline = "never"\n', encoding="utf-8")
        with _timed(observe, "serve", first.name):
            server = stack.enter_context(_server(folder))
        stages = []
        with _timed(observe, "ask", "with nothing else going on"):
            stages.append(server.stage("alone", lambda: None))
        with _timed(observe, "kill", "the worker, while clients ask"):
            stages.append(server.stage("worker killed", server.kill_worker))
        with _timed(observe, "swap", f"{second.name}, while clients ask"):
            _put(second.artifact, folder / "repository", "2")
            stages.append(server.stage("version 2", server.take_over, same_version=False))
        version = server.version()
        recovery_s, replayed = server.recovery()
        return ServingStory(
            first=first.name,
            second=second.name,
            stages=tuple(stages),
            ready_s=server.ready_s,
            recovery_s=recovery_s,
            replayed=replayed,
            swap_s=server.swap_s,
            version=version,
            ended=server.end(),
        )


class _Server:
    """`npuops serve` as a process, and clients of it as others."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process, self._log = process, log
        self.port = 0
        self.ready_s = self.swap_s = 0.0

    def become_ready(self) -> None:
        begun = time.monotonic()
        listening = self._await(lambda: self._said("Listening"), "does not listen")
        self.port = listening[0]["http"]
        self._await(lambda: self._ask("GET", f"/v2/models/{_MODEL}/ready")[0] == 200, "is not ready")
        self.ready_s = time.monotonic() - begun

    def stage(self, title: str, act: Callable[[], None], *, same_version: bool = True) -> ServedStage:
        """Clients ask; when all are at work, something happens; and then they go on for a while."""
        begun = time.monotonic()
        load = _started(
            "bench",
            f"http://127.0.0.1:{self.port}/v2/models/{_MODEL}",
            *("--concurrency", str(CLIENTS), "--duration", str(LIMIT_S), "--warmup", "0", "--json"),
            *(("--verify",) if same_version else ()),
        )
        try:
            self._answers(UNDER_WAY, load)
            act()
            self._answers(UNDER_WAY, load)
            time.sleep(max(0.0, begun + STAGE_S - time.monotonic()))
            load.send_signal(signal.SIGINT)  # it tells what there was until now
            said, _ = load.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired as error:
            raise RunError(f"the clients did not end within {LIMIT_S:g} s") from error
        finally:
            _end(load)
        return _stage(title, said)

    def kill_worker(self) -> None:
        """With a signal that no process can answer; returns when another one is ready."""
        os.kill(self._worker(), signal.SIGKILL)
        self._await(lambda: self.recovery()[0] is not None, "starts no other worker")

    def take_over(self) -> None:
        """Load what lies in the repository now; returns when that answers, and the old version is gone."""
        begun = time.monotonic()
        status, said = self._ask("POST", f"/v2/repository/models/{_MODEL}/load")
        self.swap_s = time.monotonic() - begun
        if status != 200:
            raise RunError(f"the server does not load version 2: {said}")

    def version(self) -> str:
        """That answers requests which name none."""
        _, said = self._ask("GET", f"/v2/models/{_MODEL}/stats")
        return str(max(said["model_stats"], key=lambda each: int(each["last_inference"]))["version"])

    def recovery(self) -> tuple[float | None, int]:
        """Seconds until the killed worker's successor was ready, and runs that went again."""
        back = [each for each in self._said("WorkerStarted") if each["cause"] == "crash"]
        replayed = sum(each["replayed"] for each in self._said("WorkerEnded") if not each["wanted"])
        return (back[0]["seconds"] if back else None), replayed

    def end(self) -> int:
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(LIMIT_S)

    def _answers(self, count: int, load: subprocess.Popen[bytes]) -> None:
        """Return when the version that answers now has answered so many more."""
        before = self._answered()
        self._await(lambda: self._answered() >= before + count or load.poll() is not None, "gets no requests")

    def _answered(self) -> int:
        _, said = self._ask("GET", f"/v2/models/{_MODEL}/stats")
        return int(max(said["model_stats"], key=lambda each: int(each["version"]))["inference_count"])

    def _worker(self) -> int:
        """The child that shares memory with the server; the spare one does not."""
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                parent = int((folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
                is_ours = parent == self._process.pid and _WORKER in (folder / "cmdline").read_bytes()
                if is_ours and _SHARED in (folder / "maps").read_text(encoding="utf-8"):
                    return int(folder.name)
        raise RunError("the server has no worker")

    def _said(self, event: str) -> list[dict[str, Any]]:
        lines = self._log.read_text(encoding="utf-8").splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
        return [each["detail"] for each in found if each["event"] == event]

    def _ask(self, method: str, path: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT_S)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            body = answer.read()
        except OSError as error:
            raise RunError(f"the server does not answer: {error}") from error
        finally:
            connection.close()
        return answer.status, json.loads(body) if body else None

    def _await(self, holds: Callable[[], Any], complaint: str) -> Any:
        limit = time.monotonic() + LIMIT_S
        while not (found := holds()):
            if self._process.poll() is not None or time.monotonic() > limit:
                raise RunError(f"the server {complaint}: {self._log.read_text(encoding='utf-8')[-500:]}")
            time.sleep(_LOOK_S)
        return found


@contextmanager
def _server(folder: Path) -> Iterator[_Server]:
    log = folder / "log"
    with log.open("wb") as file:
        process = _started(
            "serve", str(folder / "repository"), "--http-port", "0", "--no-grpc", "--no-watch", "--json", stdout=file
        )
    server = _Server(process, log)
    try:
        server.become_ready()
        yield server
    finally:
        _end(process)


def _started(*arguments: str, stdout: Any = subprocess.PIPE) -> subprocess.Popen[bytes]:
    # -P: whatever lies in the folder that we are called in must not be taken for one of our modules.
    argv = [sys.executable, "-P", "-c", _RUN.format(parent=os.getpid()), *arguments]
    return subprocess.Popen(  # noqa: S603 - our own interpreter and module
        argv, stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.DEVNULL, start_new_session=True
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


def _put(artifact: Artifact, repository: Path, version: str) -> None:
    """Copied beside its place and moved into it, so that nobody sees half of it."""
    home = repository / _MODEL
    home.mkdir(parents=True, exist_ok=True)
    shutil.copytree(artifact.root, home / f".{version}")
    (home / f".{version}").rename(home / version)


def _stage(title: str, said: bytes) -> ServedStage:
    try:
        (stage,) = json.loads(said)["stages"]
    except (ValueError, KeyError) as error:
        raise RunError(f"the clients failed: {said.decode(errors='replace')[-500:]}") from error
    latency = stage["latency"]
    if latency is None:
        raise RunError("no client got an answer")
    return ServedStage(
        title=title,
        asked=stage["requests"],
        answered=stage["ok"],
        differing=stage["agreement"] and stage["agreement"]["differing"],
        per_s=stage["throughput"],
        p50_ms=latency["p50_ms"],
        p99_ms=latency["p99_ms"] or latency["max_ms"],
        max_ms=latency["max_ms"],
    )


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the package that it is in
        return False


@contextmanager
def _timed(observe: Observer, step: str, detail: str) -> Iterator[None]:
    begun = time.monotonic()
    observe(StepStarted(step=step, detail=detail))
    yield
    observe(StepFinished(step=step, seconds=time.monotonic() - begun, detail=detail))
