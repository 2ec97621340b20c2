"""A mix on a simulated kernel: run it, set its tasks, look at its counters, copy it at any instant.

It follows the rules of kernel 6.18 in what decides latency: who is picked, at which moments, and with which lag. Not
modelled: caches beyond one refill cost, interrupts' own time, NUMA, cgroup quotas, frequency.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from npuops.eevdf import rules as rule
from npuops.eevdf import world as at
from npuops.eevdf.activity import DRAWS
from npuops.eevdf.attributes import set_session, set_task
from npuops.eevdf.clockwork import next_event, reschedule, run_until
from npuops.eevdf.compiled import compile_all
from npuops.eevdf.mix import REST, Doing, Mix, Player, arrivals_ns
from npuops.eevdf.parts import Parts
from npuops.eevdf.rules import Rules
from npuops.eevdf.setting import DEFAULT, FAIR, LEAST_NICE, MOST_NICE, SchedPolicy, Setting
from npuops.eevdf.weights import NICE_0, of, of_nice
from npuops.eevdf.world import Script, Table, World
from npuops.errors import OptionError

ADMITTED_PERCENT: Final = 95
"""Of all CPUs, for reservations (sched_rt_runtime_us of 950 ms in a second)."""

_COUNTERS: Final = (at.RUN, at.WAIT, at.TURNS, at.VOLUNTARY, at.INVOLUNTARY)
_DOING: Final = tuple(Doing)
_CUT: Final = 4.0


class Simulation:
    """One mix, from its beginning."""

    def __init__(self, mix: Mix, seed: int, rules: Rules | None = None, parts: Parts | None = None) -> None:
        """Everybody asleep, at the default setting; the first phase begins with the first `run_until`.

        Args:
            mix: who does what.
            seed: of arrivals, of sleeps, and of where between two ticks the mix begins.
            rules: of the kernel.
            parts: what the tasks do instead of their acts.

        Raises:
            OptionError: nobody could follow these parts.
        """
        self.mix = mix
        self.rules = rules or Rules()
        self._settings = [DEFAULT] * len(mix.players)
        sessions = sorted({player.session for player in mix.players})
        self._sessions = {session: number for number, session in enumerate(sessions)}
        self._grouped = self.rules.autogroup and len(sessions) > 1
        self._world = _world(mix, seed, self.rules, self._sessions if self._grouped else {})
        self._script = _script(mix, seed)
        self._world.e[: len(mix.players), at.NEXT] = self._script.first[:-1]
        if parts is not None:
            self._follow(parts)
        _prepare()

    @property
    def now_ns(self) -> int:
        """Since the mix began."""
        return int(self._world.g[at.NOW])

    def run_until(self, moment_ns: int) -> None:
        """Let it run to this moment; events at the moment itself included. The past is no error: nothing happens."""
        if moment_ns >= self.now_ns:
            run_until(self._world, self._script, moment_ns)

    @property
    def tables(self) -> World:
        """The machine itself, for who drives it by hand."""
        return self._world

    def next_ns(self) -> int:
        """When something happens next: until then everybody goes on as now."""
        return int(next_event(self._world, self._script))

    def running(self) -> NDArray[np.int64]:
        """Shape (CPUs): the player that each runs now; -1 for none."""
        found: NDArray[np.int64] = self._world.c[:, at.TASK].copy()
        return found

    def place(self, player: int) -> int:
        """The CPU that this player runs or waits on, or was on last."""
        self._check(player)
        return int(self._world.e[player, at.CPU])

    def awake(self) -> NDArray[np.bool_]:
        """Shape (players): who runs or wants to, now."""
        found: NDArray[np.bool_] = self._world.e[: len(self.mix.players), at.AWAKE].astype(bool)
        return found

    def set(self, player: int, setting: Setting) -> None:
        """Tell the kernel this of one task, now.

        Raises:
            OptionError: no such player, a policy that is not modelled, or reservations beyond 95 % of the CPUs.
        """
        self._check(player)
        others = sum(each.share for number, each in enumerate(self._settings) if number != player)
        if setting.policy is SchedPolicy.DEADLINE and (others + setting.share) * 100 > ADMITTED_PERCENT * self.mix.cpus:
            raise OptionError(
                f"reservations of {others + setting.share:.2f} CPUs do not fit {self.mix.cpus}: the kernel admits"
                f" {ADMITTED_PERCENT} %",
                advice="reserve less, or for fewer tasks",
            )
        if setting.policy is SchedPolicy.EXT:
            raise OptionError("tasks of SCHED_EXT are not simulated")
        weight = of(setting) if setting.policy in FAIR else NICE_0
        figures = (setting.runtime_us * 1000, setting.period_us * 1000, setting.rt_priority)
        wanted = np.array([setting.policy, weight, (setting.slice_us or 0) * 1000, *figures], np.int64)
        set_task(self._world, player, wanted)
        reschedule(self._world)
        self._settings[player] = setting

    def set_group(self, session: int, nice: int) -> None:
        """Give a session's autogroup this nice value, now. Without groups it is remembered by nobody, as in a kernel.

        Raises:
            OptionError: no such session, or a nice value out of bounds.
        """
        if session not in self._sessions:
            raise OptionError(f"mix {self.mix.name} has no session {session}")
        if not LEAST_NICE <= nice <= MOST_NICE:
            raise OptionError(f"nice is {nice}, which is not within {LEAST_NICE} to {MOST_NICE}")
        if self._grouped:
            set_session(self._world, self._sessions[session], of_nice(nice))
            reschedule(self._world)

    def counters(self) -> NDArray[np.int64]:
        """Shape (players, 5): run_ns, wait_ns, turns, voluntary, involuntary, as /proc tells them.

        Run time is booked at ticks and changes of task, a wait when the task runs next.
        """
        found: NDArray[np.int64] = self._world.e[: len(self.mix.players), _COUNTERS]
        return found

    def waiting(self) -> NDArray[np.bool_]:
        """Shape (players): who wants to run and does not, now."""
        tasks = self._world.e[: len(self.mix.players)]
        found: NDArray[np.bool_] = tasks[:, at.AWAKE].astype(bool)
        found[self._world.c[self._world.c[:, at.TASK] >= 0, at.TASK]] = False
        return found

    def pressure_ns(self) -> int:
        """Time in which some task waited for a CPU (PSI `some`), averaged over the CPUs that were busy."""
        return int(self._world.g[at.PRESSURE]) // at.FRACTION

    def runnable(self) -> int:
        """Tasks that run or want to, now."""
        return int(self._world.e[: len(self.mix.players), at.AWAKE].sum())

    def answers(self, player: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """When this player's requests arrived so far, and when each was answered; -1 if it is not. Both in ns."""
        self._check(player)
        first, last = self._script.first[player : player + 2]
        arrivals = self._script.arrivals[first:last]
        number = int(np.searchsorted(arrivals, self.now_ns, side="right"))
        return arrivals[:number].copy(), self._script.done[first : first + number].copy()

    def progress(self, player: int) -> int:
        """Useful CPU time in ns; turns while it hands bytes to its peer."""
        self._check(player)
        return int(self._world.e[player, at.PROGRESS])

    def switches(self) -> int:
        """Changes of task, of all CPUs."""
        return int(self._world.c[:, at.SWITCHES].sum())

    def copy(self) -> Simulation:
        """Another one in the same state, with the same future; the two know nothing of each other."""
        other = object.__new__(Simulation)
        other.mix, other.rules, other._sessions, other._grouped = self.mix, self.rules, self._sessions, self._grouped
        other._settings = list(self._settings)
        w, s = self._world, self._script
        other._world = World(w.e.copy(), w.q.copy(), w.c.copy(), w.g.copy(), w.rules)
        other._script = Script(s.acts, s.starts, s.arrivals, s.first, s.done.copy(), s.gaps, s.parts)
        return other

    def _follow(self, parts: Parts) -> None:
        """Everybody waits for the first line of its part."""
        w, players = self._world, len(self.mix.players)
        parts.check(self.mix, int(w.rules[rule.TICK_NS]))
        self._script.acts[:-1] = (at.ACT, 0, 0, 0)
        self._script = self._script._replace(parts=np.concatenate(parts.lines))
        w.e[:players, at.NEXT] = np.cumsum([0, *map(len, parts.lines[:-1])])
        for player, cpu in parts.pinned.items():
            w.e[player, [at.PINNED, at.CPU]] = cpu
        if parts.first_tick_ns is not None:
            w.g[at.FIRST_TICK] = w.g[at.TICK_AT] = parts.first_tick_ns

    def _check(self, player: int) -> None:
        if not 0 <= player < len(self.mix.players):
            raise OptionError(f"mix {self.mix.name} has no player {player}")


@cache
def _prepare() -> None:
    """Compile what a simulation calls, once a process, before anything is simulated."""
    lone = Mix("nobody", (1,), (Player("nobody", (REST,)),))
    w, s = _world(lone, 0, Rules(), {}), _script(lone, 0)
    wanted: Table = np.zeros(6, np.int64)
    compile_all(
        [
            (run_until, (w, s, 0)),
            (next_event, (w, s)),
            (set_task, (w, 0, wanted)),
            (set_session, (w, 0, 0)),
            (reschedule, (w,)),
        ]
    )


def _world(mix: Mix, seed: int, rules: Rules, sessions: dict[int, int]) -> World:
    tasks, cpus = len(mix.players), mix.cpus
    table = rules.table(cpus)
    random = np.random.default_rng([seed, tasks, cpus])
    e = np.zeros((tasks + len(sessions) * cpus, at.PINNED + 1), np.int64)
    q = np.zeros((cpus * (1 + len(sessions)), at.MEMBERS + max(tasks, len(sessions)) + 1), np.int64)
    c = np.zeros((cpus, at.TAKEN + 1), np.int64)
    g = np.zeros(at.FIRST_TICK + 1, np.int64)
    e[:, at.WEIGHT], e[:, at.SLICE], e[:, at.BELOW] = NICE_0, rules.slice_ns(cpus), -1
    e[:, [at.TIMER, at.REPLENISH_AT]] = at.NEVER
    e[:tasks, at.CPU] = np.arange(tasks) % cpus
    e[:, at.PINNED] = -1
    e[:tasks, at.CHANCE] = random.integers(1, 2_147_483_647, tasks)
    e[:tasks, at.RAN_AT] = -(10**9)
    names = [player.name for player in mix.players]
    e[:tasks, at.PEER] = [names.index(player.peer) if player.peer in names else -1 for player in mix.players]
    q[:, [at.CURRENT, at.BUDDY, at.GROUP]] = -1
    q[:cpus, at.HOST] = np.arange(cpus)
    e[:tasks, at.QUEUE] = e[:tasks, at.CPU]
    if sessions:
        e[:tasks, at.SESSION] = [sessions[player.session] for player in mix.players]
        e[:tasks, at.QUEUE] += cpus * (1 + e[:tasks, at.SESSION])
        groups = np.arange(len(sessions) * cpus)
        e[tasks:, at.SESSION], e[tasks:, at.QUEUE], e[tasks:, at.BELOW] = groups // cpus, groups % cpus, cpus + groups
        e[tasks:, at.PRIORITY] = NICE_0
        q[cpus:, at.GROUP], q[cpus:, at.HOST] = tasks + groups, groups % cpus
    c[:, [at.TASK, at.LAST_TASK]] = -1
    c[:, at.BALANCE_AT] = random.integers(0, 8 * table[0], cpus)
    g[at.TASKS], g[at.CPUS], g[at.SESSIONS], g[at.PHASE] = tasks, cpus, len(sessions), -1
    g[at.FIRST_TICK] = g[at.TICK_AT] = random.integers(0, table[0])
    g[at.CHANCE_OF_TICK] = random.integers(1, 2_147_483_647)
    return World(e, q, c, g, table)


def _script(mix: Mix, seed: int) -> Script:
    acts = np.zeros((len(mix.phases_us) + 1, len(mix.players), 4), np.int64)  # after the last phase all rest
    for number, player in enumerate(mix.players):
        for phase, act in enumerate(player.acts):
            acts[phase, number] = (_DOING.index(act.doing), act.work_us * 1000, act.gap_us * 1000, act.periodic)
    each = [arrivals_ns(mix, player, seed) for player in mix.players]
    arrivals = np.concatenate(each)
    middles = (np.arange(DRAWS) + 0.5) / DRAWS
    gaps = np.rint(np.minimum(-np.log(middles), _CUT) * 65536).astype(np.int64)
    starts: Table = np.array([*(start * 1000 for start in mix.starts_us()), at.NEVER], np.int64)
    first = np.cumsum([0, *(len(found) for found in each)]).astype(np.int64)
    nothing: Table = np.zeros((0, 3), np.int64)
    return Script(acts, starts, arrivals, first, np.full(len(arrivals), -1, np.int64), gaps, nothing)
