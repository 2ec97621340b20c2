"""From a state and candidates to the network's inputs, and from its outputs to forecasts. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from npuops.errors import DataError
from npuops.hostsched.features import FRAMES, HISTORY, HOST_FEATURES, TASK_FEATURES, State, pick_tasks
from npuops.hostsched.hint import Hint, Kind
from npuops.hostsched.levels import BOOST, DEMOTE, IDLE, LEVELS
from npuops.hostsched.plan import NORMAL, Forecast, Plan
from npuops.hostsched.scorer_network import ABSENT, NetworkShape, rows_of

SHAPE: Final = NetworkShape(
    features=1 + len(TASK_FEATURES) + 1,
    frames=FRAMES,
    history=len(HISTORY),
    host=len(HOST_FEATURES),
    levels=len(LEVELS),
)
"""The house's network: the first column of a task is the mask, the last what the rule would do with it."""
STATE_COLUMNS: Final = slice(1, 1 + len(TASK_FEATURES))
"""Columns of a task that come from `State.tasks`."""

_PROPOSED: Final = {DEMOTE: -0.5, IDLE: -1.0, BOOST: 1.0}
"""Levels that the rule gives, as a number."""

LOGIT_LIMIT: Final = 30.0
MOST_PROGRESS: Final = 4.0
"""A forecast beyond this is the network's nonsense on a state unlike its training."""

Floats = NDArray[np.float32]
Levels = NDArray[np.int8]
"""(candidates, tasks): indices into `LEVELS`."""


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A state as the network takes it.

    Attributes:
        picked: which tasks of the frame have a row, in the order of the rows; the network has `slots` at most.
        tasks: float32 (rows, features); a last row of zeros stands for all empty slots, if there are any.
        history: float32 (rows, frames, columns).
        host: float32 (columns).
        repeats: float32 (rows): slots that each row stands for.
        known: float32 (picked): 1 if somebody waits for this task's answers, 0 if nobody does, NaN if we were not told.
    """

    picked: NDArray[np.intp]
    tasks: Floats
    history: Floats
    host: Floats
    repeats: Floats
    known: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Outlook:
    """What the network expects of each candidate.

    Attributes:
        miss: float32 (candidates, picked): share of late answers, 0 to 1, if somebody waits for this task's.
        progress: float32 (candidates, picked): relative to the default setting.
        waits: float32 (picked): probability that somebody waits for this task's answers.
        switches: float32 (candidates): log2 of context switches relative to the default setting.
    """

    miss: Floats
    progress: Floats
    waits: Floats
    switches: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Forecasts:
    """`Forecast`, for many candidates at once: float64 arrays of shape (candidates)."""

    miss_share: NDArray[np.float64]
    progress: NDArray[np.float64]

    def of(self, number: int) -> Forecast:
        """Of one candidate."""
        return Forecast(miss_share=float(self.miss_share[number]), progress=float(self.progress[number]))


def encode(state: State, proposal: Plan | None = None, slots: int = SHAPE.slots) -> Scene:
    """A state as the network takes it.

    Where there are more tasks than slots, it sees those of `features.pick_tasks`.

    Args:
        state: of any number of tasks.
        proposal: of a rule that sees the same states; what it remembers and tries out, the network need not.
        slots: of the network.
    """
    picked = pick_tasks(state, slots)
    repeats = rows_of(len(picked), slots)
    rows = len(repeats)
    tasks = np.zeros((rows, 1 + state.tasks.shape[1] + 1), np.float32)
    history = np.zeros((rows, *state.history.shape[1:]), np.float32)
    tasks[: len(picked), 0] = 1.0
    tasks[: len(picked), 1:-1] = state.tasks[picked]
    if proposal is not None:
        tasks[: len(picked), -1] = [_proposed(proposal, state, task) for task in picked]
    history[: len(picked)] = state.history[picked]
    known = np.array([_waits(state.frame.hints[task]) for task in picked], np.float32)
    return Scene(picked, tasks, history, state.host, repeats, known)


def _proposed(proposal: Plan, state: State, task: int) -> float:
    return _PROPOSED.get(proposal.levels.get(state.frame.tasks[task].id, NORMAL), 0.0)


def _waits(hint: Hint | None) -> float:
    if hint is None or (hint.kind is None and hint.slo_us is None):
        return float("nan")
    return float(hint.kind is Kind.LATENCY if hint.kind is not None else True)


def encode_levels(scene: Scene, candidates: Levels) -> NDArray[np.intp]:
    """Levels of the rows: (candidates, rows), `ABSENT` for the row of the empty slots.

    Args:
        scene: of the state that the candidates are for.
        candidates: (candidates, tasks of the frame).

    Raises:
        DataError: an index that is no level.
    """
    if candidates.size and not 0 <= candidates.min() <= candidates.max() < len(LEVELS):
        raise DataError(f"a candidate holds levels {candidates.min()} to {candidates.max()}, of {len(LEVELS)}")
    levels = np.full((len(candidates), len(scene.repeats)), ABSENT, np.intp)
    levels[:, : len(scene.picked)] = candidates[:, scene.picked]
    return levels


def feeds(scene: Scene, levels: NDArray[np.intp], shape: NetworkShape, candidates: int) -> dict[str, Floats]:
    """Inputs of the ONNX file for `candidates`; missing candidates are filled up with the first one.

    Args:
        scene: at most as many tasks as the network has slots.
        levels: as from `encode_levels`, at most `candidates` of them.
        shape: of the network.
        candidates: that the file was made for.
    """
    count, rows = len(scene.picked), shape.slots
    tasks = np.zeros((1, shape.features, 1, rows), np.float32)
    tasks[0, :, 0, :count] = scene.tasks[:count].T
    history = np.zeros((1, shape.history, shape.frames, rows), np.float32)
    history[0, :, :, :count] = scene.history[:count].transpose(2, 1, 0)
    chosen = np.zeros((shape.levels, candidates, rows), np.float32)
    wide = np.broadcast_to(levels[:1], (candidates, levels.shape[1])).copy()
    wide[: len(levels)] = levels
    chosen[:, :, :count] = wide[None, :, :count] == np.arange(shape.levels)[:, None, None]
    host = scene.host.astype(np.float32, copy=False).reshape(1, -1, 1, 1)
    return {"tasks": tasks, "history": history, "host": host, "levels": chosen[None]}


def outlook(scene: Scene, faces: Floats, waits: Floats, switches: Floats) -> Outlook:
    """The network's numbers as people mean them.

    Args:
        scene: what it looked at.
        faces: (candidates, rows or more, 2): logit of the miss share, progress.
        waits: (rows or more): logits.
        switches: (candidates).

    Raises:
        DataError: a number is not finite: such a network must not decide anything.
    """
    count = len(scene.picked)
    if not (np.isfinite(faces).all() and np.isfinite(waits).all() and np.isfinite(switches).all()):
        raise DataError("the policy's network answered with a number that is not finite")
    waiting = np.where(np.isnan(scene.known), sigmoid(waits[:count]), scene.known).astype(np.float32)
    progress = np.clip(faces[:, :count, 1], 0.0, MOST_PROGRESS).astype(np.float32)
    return Outlook(sigmoid(faces[:, :count, 0]), progress, waiting, switches)


def forecasts(seen: Outlook) -> Forecasts:
    """What the candidates are worth to people: misses of those whom somebody waits for, progress of the slowest other.

    Nobody waits: no misses; where it is not sure that anybody does, they count in proportion. Everybody is waited for:
    progress is 1.
    """
    waiting = seen.waits.astype(np.float64)
    miss = seen.miss @ waiting / max(waiting.sum(), 1.0)
    others = seen.progress[:, seen.waits < 0.5]
    progress = others.min(axis=1).astype(np.float64) if others.shape[1] else np.ones(len(seen.miss))
    return Forecasts(miss_share=miss, progress=progress)


def sigmoid(logits: Floats) -> Floats:
    """Of logits as far as float32 tells them apart."""
    found: Floats = 1.0 / (1.0 + np.exp(-np.clip(logits, -LOGIT_LIMIT, LOGIT_LIMIT)))
    return found
