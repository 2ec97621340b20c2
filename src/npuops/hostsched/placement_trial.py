"""Measures what the places cost on this machine; `--placement auto` follows it.

Those in this process once; virtual NPUs that are up each time, for others may use them: a few decisions in their
`idle` class. A virtual NPU's own process takes CPU time that a real one would not; it is not counted.
"""

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
from npuops.errors import NpuopsError, RunError, StorageError
from npuops.events import Observer, Warned, ignore
from npuops.hostsched.placement import Choice, Cost, PlaceCosts, choose
from npuops.hostsched.policy_card import CARD_NAME, PolicyFolder
from npuops.hostsched.scorer import Scene
from npuops.hostsched.scorer_network import NetworkShape, rows_of
from npuops.hostsched.scorer_session import NPU, NUMPY, ORT_CPU, Scorer, open_scorer
from npuops.targets.ort_cpu import processor
from npuops.units import Basis
from npuops.vnpu.device_folder import all_folders
from npuops.vnpu.pacing import Pacing

COUNTS: Final = (1, 64, 256)
REPEATS: Final = 9
TASKS: Final = 8
"""In the state that is measured with; NumPy's cost grows with them, an artifact's does not."""
WARM_UP: Final = 2
_DEVICE_LIMIT_S: Final = 2.0


def auto_placement(
    policy: PolicyFolder, candidates: int, limit_us: float, *, cache: Path | None = None, observe: Observer = ignore
) -> Choice:
    """NumPy, ONNX Runtime, or a virtual NPU that is up, whichever takes the least CPU time here.

    Emulators are never asked: their time says nothing of the part. Nor are devices whose time is not this machine's
    (`Pacing`), and those that do not answer, or for whose chip the policy was not built; the words tell which, and why.

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
    devices, passed = _devices(policy)
    if policy.artifact(ORT_CPU) is None:
        passed.append("the policy was not built for ort-cpu")
    places = [*_in_process(policy, cache or default_root(), observe), *devices]
    found = choose(candidates, places, limit_us)
    return Choice(found.place, "; ".join([found.why, *passed]))


def _in_process(policy: PolicyFolder, cache: Path, observe: Observer) -> tuple[PlaceCosts, ...]:
    path = cache / "hostsched" / f"placement-{_key(policy)}.json"
    places = _remembered(path)
    if places is None:
        names = (NUMPY, ORT_CPU) if policy.artifact(ORT_CPU) is not None else (NUMPY,)
        places = tuple(measured(policy, place, COUNTS) for place in names)
        try:
            _remember(path, places)
        except StorageError as error:
            observe(Warned(step="placement", message=error.message, advice=error.advice))
    return places


def _devices(policy: PolicyFolder) -> tuple[list[PlaceCosts], list[str]]:
    """Costs of those that can be chosen, and words on the others."""
    try:
        folders = all_folders()
    except NpuopsError as error:
        return [], [f"virtual NPUs passed over: {error.message}"]
    found, passed = [], []
    for folder in folders:
        place, record = f"{NPU}{folder.name}", folder.record()
        try:
            if folder.holder() is None or record is None:
                continue  # it was killed, and left its files
            if record.pacing != Pacing.REALTIME:
                passed.append(f"{place} passed over: its time is not this machine's ({record.pacing})")
                continue
            found.append(measured(policy, place, COUNTS, basis=Basis.MODELLED, limit_s=_DEVICE_LIMIT_S))
        except NpuopsError as error:
            passed.append(f"{place} passed over: {error.message}")
    return found, passed


def measured(
    policy: PolicyFolder,
    place: str,
    counts: Iterable[int],
    *,
    basis: Basis = Basis.MEASURED,
    limit_s: float = float("inf"),
) -> PlaceCosts:
    """Open a place, measure it, close it.

    Args:
        policy: verified.
        place: as on the command line.
        counts: of candidates.
        basis: of its time.
        limit_s: for all decisions together.

    Raises:
        NpuopsError: it cannot be opened, or takes longer.
    """
    until_s = time.monotonic() + limit_s
    scorer = open_scorer(policy, place)
    try:
        costs = tuple(cost_of(scorer, policy.card.shape, count, until_s=until_s) for count in counts)
    finally:
        scorer.close()
    return PlaceCosts(place=place, basis=basis, costs=costs)


def cost_of(
    scorer: Scorer, shape: NetworkShape, candidates: int, repeats: int = REPEATS, *, until_s: float = float("inf")
) -> Cost:
    """Medians of a few decisions; CPU time is that of all threads of this process.

    Raises:
        RunError: they were not through at that moment of `time.monotonic`.
    """
    walls, cpus = [], []
    for number, decide in enumerate([decision(scorer, shape, candidates)] * (WARM_UP + repeats)):
        if time.monotonic() > until_s:
            raise RunError(f"{scorer.placement} is too slow, or too busy", advice=f"--placement {NUMPY}")
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
