"""Measures what the places cost on this machine, once; `--placement auto` follows it."""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from npuops import __version__
from npuops.artifacts.disk import storage_errors, write_durably
from npuops.artifacts.store import default_root
from npuops.errors import StorageError
from npuops.events import Observer, Warned, ignore
from npuops.hostsched.placement import Choice, Cost, PlaceCosts, choose
from npuops.hostsched.policy_card import CARD_NAME, PolicyFolder
from npuops.hostsched.scorer import Scene
from npuops.hostsched.scorer_network import NetworkShape, rows_of
from npuops.hostsched.scorer_session import NUMPY, ORT_CPU, Scorer, open_scorer
from npuops.targets.ort_cpu import processor
from npuops.units import Basis

COUNTS: Final = (1, 64, 256)
REPEATS: Final = 9
TASKS: Final = 8
"""In the state that is measured with; NumPy's cost grows with them, an artifact's does not."""
WARM_UP: Final = 2


def auto_placement(
    policy: PolicyFolder, candidates: int, limit_us: float, *, cache: Path | None = None, observe: Observer = ignore
) -> Choice:
    """NumPy or ONNX Runtime, whichever takes less CPU time here; virtual devices are used only when named.

    Args:
        policy: verified.
        candidates: in each decision.
        limit_us: within which an answer is of use.
        cache: folder of what was measured; `default_root()` if left out. One that cannot be used costs a
            measurement each time, and a warning.
        observe: gets that warning.

    Raises:
        ToolchainError: ONNX Runtime cannot load the artifact.
    """
    if policy.artifact(ORT_CPU) is None:
        return Choice(NUMPY, "the policy was not built for ort-cpu")
    path = (cache or default_root()) / "hostsched" / f"placement-{_key(policy)}.json"
    places = _remembered(path)
    if places is None:
        places = tuple(measured(policy, place, COUNTS) for place in (NUMPY, ORT_CPU))
        try:
            _remember(path, places)
        except StorageError as error:
            observe(Warned(step="placement", message=error.message, advice=error.advice))
    return choose(candidates, places, limit_us)


def measured(policy: PolicyFolder, place: str, counts: Iterable[int]) -> PlaceCosts:
    """Open a place in this process, measure it, close it.

    Raises:
        NpuopsError: it cannot be opened.
    """
    scorer = open_scorer(policy, place)
    try:
        costs = tuple(cost_of(scorer, policy.card.shape, count) for count in counts)
    finally:
        scorer.close()
    return PlaceCosts(place=place, basis=Basis.MEASURED, costs=costs)


def cost_of(scorer: Scorer, shape: NetworkShape, candidates: int, repeats: int = REPEATS) -> Cost:
    """Medians of a few decisions; CPU time is that of all threads of this process."""
    walls, cpus = [], []
    for number, decide in enumerate([decision(scorer, shape, candidates)] * (WARM_UP + repeats)):
        began, began_cpu = time.perf_counter_ns(), time.process_time_ns()
        decide()
        spent, spent_cpu = time.perf_counter_ns() - began, time.process_time_ns() - began_cpu
        if number >= WARM_UP:
            walls.append(spent / 1000)
            cpus.append(spent_cpu / 1000)
    return Cost(candidates=candidates, latency_us=statistics.median(walls), cpu_us=statistics.median(cpus))


def decision(scorer: Scorer, shape: NetworkShape, candidates: int, tasks: int = TASKS) -> Callable[[], object]:
    """Something to measure: made-up features, random candidates; the time does not depend on their values."""
    random = np.random.default_rng(0)
    repeats = rows_of(tasks, shape.slots)
    features = random.uniform(-1, 1, (len(repeats), shape.features)).astype(np.float32)
    history = random.uniform(-1, 1, (len(repeats), shape.frames, shape.history)).astype(np.float32)
    features[tasks:], history[tasks:] = 0, 0
    host = random.uniform(0, 1, shape.host).astype(np.float32)
    scene = Scene(np.arange(tasks), features, history, host, repeats, np.full(tasks, np.nan, np.float32))
    levels = random.integers(0, shape.levels, (candidates, len(repeats)))
    levels[:, tasks:] = -1
    return lambda: scorer.score(scene, levels)


def _key(policy: PolicyFolder) -> str:
    """Of this machine, this code and this policy."""
    with storage_errors("read", policy.root / CARD_NAME):
        card = (policy.root / CARD_NAME).read_bytes()
    words = f"{__version__}\0{processor()}\0{np.__version__}\0{COUNTS}\0".encode() + card
    return hashlib.sha256(words).hexdigest()[:16]


def _remembered(path: Path) -> tuple[PlaceCosts, ...] | None:
    """None where nothing (or nothing sensible) is remembered: measuring again costs milliseconds."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=tuple[PlaceCosts, ...])
    except (OSError, msgspec.DecodeError):
        return None
    return found or None


def _remember(path: Path, places: tuple[PlaceCosts, ...]) -> None:
    with storage_errors("write", path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, msgspec.json.encode(places), scratch=path.with_suffix(".new"))
