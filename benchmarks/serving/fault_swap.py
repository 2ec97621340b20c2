"""A new version of a model is loaded under load: who notices?"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

from client import Answer, Call, Sample, open_loop, outcomes, percentile_ms
from exchanges import differs
from ours import OURS, artifacts_beside, fp32_artifact, serve
from peers import PEERS, Peer, triton_version
from served_models import ServedModel, second_version
from server_process import Command, ServerProcess, free_port
from subject import Result, Subject, capacity

BEFORE_S = 3.0
AFTER_S = 6.0
SETTLED_S = 0.5
"""After the first new answer, old ones may still be on their way for this long."""
SHARE = 0.3
MOST_PER_S = 1500.0
"""The Python client's part of two cores must stay small."""

# Files are laid by another thread: what held up this one would look like the server's delay.
Change = Callable[[Subject, ServedModel], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """A server that can do it: started from files that may change, and how they are changed."""

    peer: Peer
    change: Change


async def swap(subject: Subject) -> Result:
    """Open loop at 30 % of capacity; both versions' answers are right, but only in their order."""
    second = second_version(subject.model, subject.model.path.parent / "second")
    per_s = min(SHARE * await capacity(subject, 2.0), MOST_PER_S)
    seen: list[tuple[float, int]] = []
    samples: list[Sample] = []

    def judge(answer: Answer) -> str:
        for version, model in ((1, subject.model), (2, second)):
            if not differs(subject.exchange, answer.headers, answer.body, model.answer, int8=subject.peer.int8):
                seen.append((time.monotonic(), version))
                return ""
        return "an answer of neither version"

    call = Call(subject.call().data, judge)
    seconds = BEFORE_S + AFTER_S
    load = asyncio.create_task(open_loop(subject.port, lambda: call, per_s, seconds, samples))
    await asyncio.sleep(BEFORE_S)
    began = time.monotonic()
    await SWAPS[subject.peer.name].change(subject, second)
    told_s = time.monotonic() - began
    await load
    first_new = min((at for at, version in seen if version == 2), default=None)
    end = (first_new or began + AFTER_S) + SETTLED_S
    before = [sample for sample in samples if sample.due_s < began]
    during = [sample for sample in samples if began <= sample.due_s <= end]
    late = sum(first_new is not None and version == 1 and at > first_new + SETTLED_S for at, version in seen)
    p99_before, p99_during = percentile_ms(before, 99), percentile_ms(during, 99)
    return {
        "load /s": round(per_s),
        "failed": outcomes(sample for sample in samples if sample.outcome != "ok") or 0,
        "new version answers after s": round(first_new - began, 2) if first_new else "never",
        "load call took s": round(told_s, 2),
        "old answers afterwards": late,
        "p99 before ms": p99_before,
        "p99 during ms": p99_during,
        "p99 ratio": round(p99_during / p99_before, 2) if p99_before and p99_during else None,
        "worst during ms": percentile_ms(during, 100),
    }


async def load(server: ServerProcess, model: ServedModel) -> None:
    """The repository extension's load call."""
    status = await asyncio.to_thread(server.get, f"/v2/repository/models/{model.name}/load", "POST", b"{}")
    if status != 200:
        print(f"load answered {status}: {server.last_words(300)}")


async def change_npuops(subject: Subject, second: ServedModel) -> None:
    artifact = fp32_artifact(second, artifacts_beside(second))
    folder = subject.scratch / "repository" / second.name
    await asyncio.to_thread(shutil.copytree, artifact, folder / ".2")
    (folder / ".2").rename(folder / "2")
    await load(subject.server, second)


async def change_triton(subject: Subject, second: ServedModel) -> None:
    await asyncio.to_thread(triton_version, subject.scratch / "repository", second, 1, 0, version="2")
    await load(subject.server, second)


async def change_mlserver(subject: Subject, second: ServedModel) -> None:
    await asyncio.to_thread(shutil.copy, second.path, subject.scratch / "model.onnx")
    await load(subject.server, second)


def npuops_repository(model: ServedModel, scratch: Path, threads: int) -> Command:
    """A repository of one model with one version. The second artifact is built before anything is measured."""
    second = second_version(model, model.path.parent / "second")
    fp32_artifact(second, artifacts_beside(second), threads)
    artifact = fp32_artifact(model, artifacts_beside(model), threads)
    shutil.copytree(artifact, scratch / "repository" / model.name / "1")
    return serve(scratch / "repository", free_port(), free_port())


def mlserver_copy(model: ServedModel, scratch: Path, threads: int) -> Command:
    """MLServer on a copy of the model file, which is overwritten before it is loaded again."""
    shutil.copy(model.path, scratch / "model.onnx")
    return PEERS["mlserver"].start(replace(model, path=scratch / "model.onnx"), scratch, threads)


SWAPS = {
    "npuops": Swap(peer=replace(OURS["npuops"], start=npuops_repository), change=change_npuops),
    "triton-py": Swap(peer=PEERS["triton-py"], change=change_triton),
    "triton-py-d0": Swap(peer=PEERS["triton-py-d0"], change=change_triton),
    "mlserver": Swap(peer=replace(PEERS["mlserver"], start=mlserver_copy), change=change_mlserver),
    "mlserver-pw0": Swap(peer=replace(PEERS["mlserver-pw0"], start=mlserver_copy), change=change_mlserver),
}
"""The servers with a load call."""
