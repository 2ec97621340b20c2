"""Where the simulator's frames differ from the kernel's: what policies look at, column by column, for the same mixes.

    python benchmarks/hostsched/frame_gap.py [--mixes four-phase,sessions,cycles] [--seeds 1,2,3] [--all]

Each mix is played on the kernel, looked at by `Signals` every 20 ms as the agent does, and in the simulator with the
same arrivals, looked at by `SimulatedHost`; both go through the same `Features`. For each role (what a task does in a
phase) and column: quantiles on either side, their mean distance, and for comparison the distance between simulated
plays of these and of other seeds. A distance well beyond that one is marked: a policy that learned from the one meets
something else in the other. A distance is in units of the column; of `rates`, in parts of its larger 95 % quantile.

Run it as root on a quiet machine with a CPU more than the mix has: the agent's place is there. A play that others
disturbed is repeated a few times; what share of the time the mix had its CPUs for itself is told.
With `--shield` a loud machine takes less from it; what the columns of the host say then is of others, too.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np

from npuops.clock import SystemClock
from npuops.eevdf.mix import Doing, Mix
from npuops.eevdf.rules import Rules
from npuops.eevdf.setting import DEFAULT, SchedPolicy, Setting
from npuops.hostsched.features import HOST_FEATURES, RATES, TASK_FEATURES, Features, State
from npuops.hostsched.frame import Frame
from npuops.hostsched.hint import Hint
from npuops.hostsched.knobs import write_setting
from npuops.hostsched.levels import LEVELS
from npuops.hostsched.membership import Membership
from npuops.hostsched.plan import Orders
from npuops.hostsched.selection import Selection
from npuops.hostsched.signals import Signals
from npuops.schedlab.load_program import calibrate, load_program
from npuops.schedlab.mixes import by_name
from npuops.schedlab.schedule_file import Calibration
from npuops.schedlab.simulated_host import SimulatedHost
from npuops.schedlab.stage import Stage, choose_cpus, open_stage
from npuops.schedlab.stage_hints import hint_of

PERIOD_US = 20_000
SHARES = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
FINE = np.linspace(0.025, 0.975, 39)
MARK = 0.04
"""A mean distance of quantiles below that is no matter for a network whose inputs are within -1 to 1."""
TURN_US = 200_000
CLEAN = 0.97
BEYOND = 2.0
"""Nor is one below so many times the distance between other seeds."""

Samples = dict[tuple[str, str, str], list[float]]
"""Role, kind of column, column → all values."""
Turns = Mapping[int, list[Setting]]
"""Moment in us → what every player is set to from then on."""


@dataclass(frozen=True, slots=True)
class Play:
    """Frames of one play, and what part of its time the mix had its CPUs for itself."""

    states: list[State]
    since_us: list[int]
    clean: float = 1.0
    latest_us: int = 0


def turns(mix: Mix, seed: int) -> Turns:
    """Drawn from the levels that do not need a whole host."""
    random = np.random.default_rng([seed, 77])
    open_to_all = [level.setting or DEFAULT for level in LEVELS if level.setting is None or not level.setting.share]
    moments = range(0, mix.duration_us, TURN_US)
    return {
        moment: [open_to_all[number] for number in random.integers(0, len(open_to_all), len(mix.players))]
        for moment in moments
    }


def on_kernel(mix: Mix, seed: int, calibration: Calibration, cpus: Sequence[int], *, shield: bool, acts: bool) -> Play:
    """As the agent sees it, with hints as the applications would send them."""
    due = turns(mix, seed) if acts else {}
    clock, features = SystemClock(), Features()
    states, since_us, latest_us = [], [], 0
    allowed = os.sched_getaffinity(0)
    with ExitStack() as stack:
        stack.callback(os.sched_setaffinity, 0, allowed)
        stage = stack.enter_context(open_stage(mix, seed, calibration=calibration, cpus=cpus))
        pids = tuple(stage.pids[player.name] for player in mix.players)
        with Signals(Membership(Selection(pids=pids)), clock) as signals:
            for _ in range(3):
                signals.look({})
            os.sched_setaffinity(0, allowed - set(cpus) or allowed)  # the players started with the right to all
            if shield:
                lift(pids)
            start_us = stage.go() // 1000
            for moment_us in range(0, mix.duration_us, PERIOD_US):
                clock.sleep_until(start_us + moment_us)
                latest_us = max(latest_us, clock.now_us() - start_us - moment_us)
                frame = signals.look(hints_on(stage, start_us))
                for pid, setting in zip(pids, due.get(moment_us, ()), strict=False):
                    write_setting(pid, setting)
                if moment_us in due:
                    signals.recheck(task.id for task in frame.tasks)
                states.append(features.update(in_order(frame, pids)))
                since_us.append(moment_us)
        clean = stage.finish().clean_share
    return Play(states, since_us, clean or 0.0, latest_us)


def lift(pids: Iterable[int]) -> None:
    """Give the autogroups of these the most weight, all the same: against each other it changes nothing."""
    for pid in pids:
        with open(f"/proc/{pid}/autogroup", "w", encoding="ascii") as file:  # noqa: PTH123 - from its beginning, once
            file.write("-20")


def hints_on(stage: Stage, start_us: int) -> Mapping[int, Hint]:
    """Of all players, now."""
    at_us = SystemClock().now_us()
    found = {
        stage.pids[player.name]: hint_of(stage.mix, player, *stage.answers(player.name), at_us - start_us, at_us)
        for player in stage.mix.players
    }
    return {tid: hint for tid, hint in found.items() if hint is not None}


def in_order(frame: Frame, pids: Sequence[int]) -> Frame:
    """With its tasks as the mix has its players."""
    rows = [next(row for row, task in enumerate(frame.tasks) if task.pid == pid) for pid in pids]
    tasks = tuple(frame.tasks[row] for row in rows)
    settings = tuple(frame.settings[row] for row in rows)
    hints = tuple(frame.hints[row] for row in rows)
    nices = dict.fromkeys(frame.group_nices, 0)  # whatever `lift` made of them
    return replace(frame, tasks=tasks, counters=frame.counters[rows], settings=settings, hints=hints, group_nices=nices)


def simulated(mix: Mix, seed: int, rules: Rules, due: Turns, *, pinned: bool) -> Play:
    """The same in the simulator."""
    names = [player.name for player in mix.players]
    host, features = SimulatedHost(mix, seed, rules, telling=names, pinned=pinned), Features()
    states, moments = [], range(0, mix.duration_us, PERIOD_US)
    for moment_us in moments:
        host.run_until(moment_us)
        states.append(features.update(host.frame()))
        if moment_us in due:
            tasks = {task.id: setting for task, setting in zip(host.tasks, due[moment_us], strict=True)}
            host.apply(Orders(tasks, {}))
    return Play(states, list(moments))


def samples(mix: Mix, plays: Iterable[Play]) -> Samples:
    """By role and column. The first frame of a phase belongs to the one before, which it tells of."""
    found: Samples = {}
    starts = np.array(mix.starts_us()[1:-1])
    for play in plays:
        before = play.states[0].frame.settings
        for state, since_us in zip(play.states[1:], play.since_us[1:], strict=True):
            held, before = before, state.frame.settings
            phase = int(np.searchsorted(starts, since_us, side="left"))
            for name, value in zip(HOST_FEATURES, state.host.tolist(), strict=True):
                found.setdefault(("host", "host", name), []).append(value)
            for row, player in enumerate(mix.players):
                act = player.acts[phase]
                role = f"serve {act.work_us}/{act.gap_us}" if act.doing is Doing.SERVE else act.doing.value
                if state.frame.settings[row] != held[row]:
                    continue  # it was set in the middle
                if held[row] != DEFAULT:
                    role += " idle" if held[row].policy is SchedPolicy.IDLE else f" {held[row].nice}"
                for kind, names, values in (
                    ("rates", RATES, state.rates[row]),
                    ("tasks", TASK_FEATURES, state.tasks[row]),
                ):
                    for name, value in zip(names, values.tolist(), strict=True):
                        found.setdefault((role, kind, name), []).append(value)
    return found


def distance(one: Sequence[float], other: Sequence[float], kind: str) -> float:
    """Mean distance of their quantiles."""
    a, b = np.quantile(one, FINE), np.quantile(other, FINE)
    unit = 1.0 if kind != "rates" else max(abs(a[-2]), abs(b[-2]), 1e-9)
    return float(np.abs(a - b).mean() / unit)


def text(values: Sequence[float]) -> str:
    return " ".join(f"{value:8.3g}" for value in np.quantile(values, SHARES))


def compare(name: str, real: Samples, model: Samples, other: Samples, *, everything: bool) -> list[str]:
    """Print the columns that differ, or all; the names of the former."""
    marked = []
    width = len(text([0.0]))
    print(f"\n## {name}")
    print(f"{'role':20}{'column':18}{'kernel 5 25 50 75 95 %':>{width}} |{'simulator':>{width}} |  gap  noise")
    for key in sorted(real, key=lambda each: (each[1], each[0])):
        role, kind, column = key
        gap, noise = distance(real[key], model[key], kind), distance(other[key], model[key], kind)
        differs = gap > max(MARK, BEYOND * noise)
        if differs and kind != "rates":
            marked.append(f"{role}: {column} ({gap:.2f})")
        if differs or everything:
            mark = " <<" if differs else ""
            print(f"{role:20}{column:18}{text(real[key])} |{text(model[key])} | {gap:.3f} {noise:.3f}{mark}")
    return marked


def scaled(mix: Mix, by: float) -> Mix:
    """Each phase so many times as long."""
    return replace(mix, phases_us=tuple(round(length * by / PERIOD_US) * PERIOD_US for length in mix.phases_us))


def undisturbed(
    mix: Mix, seed: int, calibration: Calibration, cpus: Sequence[int], tries: int, *, shield: bool, acts: bool
) -> Play:
    """The cleanest of a few plays, or the first that is clean."""
    best = on_kernel(mix, seed, calibration, cpus, shield=shield, acts=acts)
    for _ in range(tries - 1):
        if best.clean >= CLEAN:
            break
        best = max(best, on_kernel(mix, seed, calibration, cpus, shield=shield, acts=acts), key=lambda play: play.clean)
    print(f"# {mix.name}, seed {seed}: clean {best.clean:.1%}, latest look {best.latest_us} us", file=sys.stderr)
    return best


def of_mix(
    mix: Mix, seeds: Sequence[int], calibration: Calibration, tries: int, *, shield: bool, acts: bool
) -> tuple[Samples, Samples, Samples]:
    """Kernel, simulator, simulator with other seeds."""
    cpus = choose_cpus(mix, None)
    real = [undisturbed(mix, seed, calibration, cpus, tries, shield=shield, acts=acts) for seed in seeds]
    rules, pinned = Rules(), len(cpus) < (os.cpu_count() or 1)
    dues = {seed: turns(mix, seed) if acts else {} for seed in seeds}
    model = [simulated(mix, seed, rules, due, pinned=pinned) for seed, due in dues.items()]
    other = [simulated(mix, seed + 1000, rules, due, pinned=pinned) for seed, due in dues.items()]
    return samples(mix, real), samples(mix, model), samples(mix, other)


def main() -> None:
    words = argparse.ArgumentParser(description="simulated frames beside the kernel's, column by column")
    words.add_argument("--mixes", default="four-phase,sessions,cycles")
    words.add_argument("--seeds", default="1,2,3")
    words.add_argument("--scale", type=float, default=1.0, help="of the length of phases")
    words.add_argument("--tries", type=int, default=3, help="of a play that others disturb")
    words.add_argument("--shield", action="store_true", help="autogroups of the mix at nice -20: for a loud machine")
    words.add_argument("--acts", action="store_true", help="levels by chance every 200 ms, the same on both sides")
    words.add_argument("--all", action="store_true", help="print the columns that agree, too")
    options = words.parse_args()
    if os.geteuid() == 0:
        os.setpriority(os.PRIO_PROCESS, 0, -20)  # looks must not be late; the players begin at nice 0
    if options.shield:
        os.setsid()
        lift([os.getpid()])
    program = load_program()
    calibration = calibrate(program)
    seeds = [int(word) for word in options.seeds.split(",")]
    marked: dict[str, list[str]] = {}
    for name in options.mixes.split(","):
        mix = scaled(by_name(name), options.scale)
        real, model, other = of_mix(mix, seeds, calibration, options.tries, shield=options.shield, acts=options.acts)
        marked[name] = compare(name, real, model, other, everything=options.all)
    print("\nWhat a network would see differently:")
    for name, found in marked.items():
        print(f"- {name}: {', '.join(found) or 'nothing'}")


if __name__ == "__main__":
    main()
