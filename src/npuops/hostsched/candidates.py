"""Joint choices worth scoring: for every task a level, many times over.

Deterministic: the same look, plans and seed give the same list. The first rows are the ones that people would think
of; then come single edits, pairs, and bounded random edits of the good ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from npuops.errors import OptionError
from npuops.hostsched.bounds import MOST_RESERVED
from npuops.hostsched.features import State
from npuops.hostsched.frame import Frame, TaskId
from npuops.hostsched.levels import BOOST, DEMOTE, IDLE, LEVELS, RESERVE_50
from npuops.hostsched.plan import NORMAL, Level, Plan

MOST: Final = 4096
_EDITS: Final = 3
"""A random candidate differs from a known one in at most so many tasks."""
_TRIES: Final = 8
"""Random rows drawn for each one that is still missing, before the list stays shorter."""

_FEW_TASKS: Final = 4
"""Up to so many, all single edits are tried: chance would find them only after long."""
_ROUNDING: Final = 1e-9

Row = NDArray[np.int8]
Rows = NDArray[np.int8]


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateOptions:
    """How to search.

    Attributes:
        count: rows wanted, 1 to 4096. There are fewer where fewer are possible.
        seed: of the random edits.
        levels: names of the levels that may be chosen; `normal` always may.
        reserved_share: of all CPUs, for all reservations together.
    """

    count: int = 64
    seed: int = 0
    levels: tuple[str, ...] = tuple(level.name for level in LEVELS)
    reserved_share: float = MOST_RESERVED

    def __post_init__(self) -> None:
        """Refuse what cannot be searched.

        Raises:
            OptionError: a count or share out of bounds, or an unknown level.
        """
        if not 1 <= self.count <= MOST:
            raise OptionError(f"{self.count} candidates were asked for: it takes 1 to {MOST}")
        if not 0 <= self.reserved_share <= 0.95:
            raise OptionError(f"reservations may take {self.reserved_share} of the CPUs: it takes 0 to 0.95")
        known = [level.name for level in LEVELS]
        for name in self.levels:
            if name not in known:
                raise OptionError(f"no level is called {name!r}", advice=f"known: {', '.join(known)}")


def candidates(
    state: State,
    current: Plan,
    *,
    last_good: Plan | None = None,
    proposal: Plan | None = None,
    outgrown: Mapping[TaskId, float] = MappingProxyType({}),
    options: CandidateOptions | None = None,
) -> NDArray[np.int8]:
    """The list: all normal, then `current`, `last_good`, `proposal`, then edits of them.

    Args:
        state: the look.
        current: what holds.
        last_good: what held when all was well.
        proposal: of another policy.
        outgrown: for some tasks a share of a CPU; no reservation up to that is any good for them.
        options: how to search.

    Returns:
        int8 of shape (rows, tasks): indices into `LEVELS`, tasks in the order of the frame; no row twice, every row
        legal. Where one of the plans was illegal, its reservations went back to normal. Levels that are no part of
        `LEVELS` (of a static policy) count as normal.
    """
    chosen = options or CandidateOptions()
    frame = state.frame
    legal = _Legal(frame, chosen, outgrown)
    plans = [Plan(), current, *(plan for plan in (last_good, proposal) if plan is not None)]
    found: dict[bytes, Row] = {}
    bases = np.array([legal.repaired(row_of(plan, frame)) for plan in plans], np.int8)
    for rows in _proposals(legal, bases, chosen):
        before = len(found)
        for row in legal.only(rows):
            found.setdefault(row.tobytes(), row)
            if len(found) == chosen.count:
                break
        if len(found) == chosen.count or (len(found) == before and len(rows) == chosen.count):
            break
    return np.array(list(found.values()), np.int8).reshape(len(found), len(frame.tasks))


def row_of(plan: Plan, frame: Frame) -> Row:
    """A plan as indices into `LEVELS`, int8 of shape (tasks); a level that is no part of it counts as normal."""
    wanted = (plan.levels.get(task.id, NORMAL) for task in frame.tasks)
    return np.array([_INDEX.get(level, 0) for level in wanted], np.int8)


def plan_levels(row: Sequence[int] | Row, frame: Frame) -> dict[TaskId, Level]:
    """The other way round: levels by task id, for `Plan.levels`; tasks at normal are left out."""
    pairs = zip(frame.tasks, row, strict=True)
    return {task.id: LEVELS[int(index)] for task, index in pairs if int(index)}


_INDEX: Final = {level: index for index, level in enumerate(LEVELS)}
_SHARES: Final = np.array([level.setting.share if level.setting else 0.0 for level in LEVELS])


class _Legal:
    """What may be chosen for whom."""

    def __init__(self, frame: Frame, options: CandidateOptions, outgrown: Mapping[TaskId, float]) -> None:
        self.cpus = options.reserved_share * frame.host.cpus
        named = np.array([level.name in options.levels or level is NORMAL for level in LEVELS])
        everywhere = np.array([task.cpus >= frame.host.cpus for task in frame.tasks], bool).reshape(-1, 1)
        least = np.array([outgrown.get(task.id, 0.0) for task in frame.tasks]).reshape(-1, 1)
        serves = (_SHARES == 0.0)[None, :] | (everywhere & (_SHARES[None, :] > least + _ROUNDING))
        self.choices: NDArray[np.bool_] = named[None, :] & serves
        self.counts = self.choices.sum(axis=1)
        self.table = np.argsort(~self.choices, axis=1, kind="stable").astype(np.int8)
        """For each task, its levels first; so many of them count."""

    def only(self, rows: Rows) -> Rows:
        """Those in which every level may be chosen and the reservations fit together."""
        single = self.choices[np.arange(rows.shape[1]), rows].all(axis=1)
        found: Rows = rows[single & (_SHARES[rows].sum(axis=1) <= self.cpus + _ROUNDING)]
        return found

    def repaired(self, row: Row) -> Row:
        """The same without what may not be: first what is not allowed, then reservations from the last on."""
        found = np.where(self.choices[np.arange(len(row)), row], row, 0).astype(np.int8)
        for task in reversed(np.flatnonzero(_SHARES[found])):
            if _SHARES[found].sum() <= self.cpus + _ROUNDING:
                break
            found[task] = 0
        return found


def _proposals(legal: _Legal, bases: Rows, options: CandidateOptions) -> Iterator[Rows]:
    """In the order of worth; some may be illegal or there before. The random ones come last, `count` at a time."""
    yield bases
    count, tasks = options.count, bases.shape[1]
    if tasks == 0:
        return
    yield _focused(tasks)[: max(count // 4, 1)]
    singles = [_singles(legal, base) for base in (bases[-1], *bases[:-1])]
    in_turn = np.stack(singles, axis=1).reshape(-1, tasks)
    yield in_turn[: max(count // 2, 1)]
    generator = np.random.default_rng([options.seed, tasks])
    yield _edited(legal, bases[-1:], np.full(count // 8 + 1, 2), generator)
    yield in_turn[max(count // 2, 1) :] if tasks <= _FEW_TASKS else in_turn[:0]
    for _ in range(_TRIES):
        yield _edited(legal, bases, generator.integers(1, _EDITS + 1, count), generator)


def _focused(tasks: int) -> Rows:
    """Everybody but one is lowered: what the oracle of the facts does, and far away from any single edit."""
    low, idle, boost, reserve = (_INDEX[level] for level in (DEMOTE, IDLE, BOOST, RESERVE_50))
    own = np.eye(tasks, dtype=bool)
    kinds = ((low, 0), (low, boost), (low, reserve), (idle, 0))
    return np.concatenate([np.where(own, one, rest).astype(np.int8) for rest, one in kinds])


def _singles(legal: _Legal, base: Row) -> Rows:
    """One task at another level, or at its own; first one level of all tasks, then the next."""
    tasks = len(base)
    rows = np.tile(base, (legal.choices.shape[1] * tasks, 1))
    each = np.arange(len(rows))
    rows[each, each % tasks] = (each // tasks).astype(np.int8)
    return rows


def _edited(legal: _Legal, bases: Rows, edits: NDArray[np.int64], generator: np.random.Generator) -> Rows:
    """A row for each number of edits, from bases by chance, edited by chance; all drawn at once, for it is many."""
    count, tasks = len(edits), bases.shape[1]
    rows = bases[generator.integers(len(bases), size=count)]
    each = np.arange(count)
    for place in range(_EDITS):
        task = generator.integers(tasks, size=count)
        pick = (generator.random(count) * legal.counts[task]).astype(np.intp)
        rows[each, task] = np.where(place < edits, legal.table[task, pick], rows[each, task])
    return rows


def changes(rows: NDArray[np.int8], current: Row) -> NDArray[np.int64]:
    """How many tasks each row would change, int64 of shape (rows)."""
    found: NDArray[np.int64] = (rows != current[None, :]).sum(axis=1)
    return found
