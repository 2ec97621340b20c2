"""The four-phase mix on this machine's kernel, beside table 7.1 of facts/scheduling.md.

    python benchmarks/hostsched/kernel_table.py [--repeats 3] [--phase-s 2.5] [--save OUTCOMES.jsonl]

Run it as root (nice -10) on an otherwise quiet machine. Settings take turns within each repeat, so that a slow spell
of the machine meets all of them; a play that others disturbed is repeated a few times, and marked if that did not help.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

from npuops.eevdf.mix import Doing, Mix
from npuops.schedlab.comparison import progress_by_part
from npuops.schedlab.load_program import calibrate, load_program
from npuops.schedlab.mixes import four_phase
from npuops.schedlab.outcome import Outcome, judge, write_json
from npuops.schedlab.schedule_file import Calibration
from npuops.schedlab.stage import open_stage

Pids = Mapping[str, int]
Rule = Callable[[Mix, Pids, int], None]
"""Told at the start of each phase."""

SERVING = (0, 1, 3)
FACTS: dict[str, tuple[str, str, str]] = {
    "default": ("11.5 / 11.0 / 1121", "35 / 41 / 0 = 25", "1.00 1.00 1.00 1.00"),
    "nice -5": ("6.0 / 6.2 / 5.9", "67 / 68 / 68 = 68", ".50 .54 .94 .67"),
    "nice -10": ("5.5 / 4.8 / 5.8", "79 / 78 / 89 = 82", ".23 .23 .93 .63"),
    "hogs idle": ("4.0 / 8.5 / 10.1", "87 / 82 / 80 = 83", ".00 .01 .97 .00"),
    "others nice 19": ("2.3 / 1.9 / 3.4", "99 / 99 / 97 = 98.5", ".94 .95 1.0 .65"),
}
"""Section 7.1, one pinned CPU: p99 ms and SLO % in phases 1, 2, 4 and their mean; worst batch in phases 1 to 4."""


def niced(value: int) -> Rule:
    """Both apps, throughout."""

    def rule(_: Mix, pids: Pids, phase: int) -> None:
        if phase == 0:
            for name in ("A", "B"):
                os.setpriority(os.PRIO_PROCESS, pids[name], value)

    return rule


def idle_hogs(_: Mix, pids: Pids, phase: int) -> None:
    if phase == 0:
        for name in (name for name in pids if name.startswith("H")):
            os.sched_setscheduler(pids[name], os.SCHED_IDLE, os.sched_param(0))


def others_19(mix: Mix, pids: Pids, phase: int) -> None:
    """The oracle: it knows who serves in this phase."""
    acts = {player.name: player.acts[phase] for player in mix.players}
    anybody = any(act.doing is Doing.SERVE for act in acts.values())
    for name, act in acts.items():
        os.setpriority(os.PRIO_PROCESS, pids[name], 0 if act.doing is Doing.SERVE or not anybody else 19)


RULES: dict[str, Rule] = {
    "default": lambda *_: None,
    "nice -5": niced(-5),
    "nice -10": niced(-10),
    "hogs idle": idle_hogs,
    "others nice 19": others_19,
}


def play(mix: Mix, seed: int, name: str, program: Path, calibration: Calibration) -> Outcome:
    with open_stage(mix, seed, program=program, calibration=calibration) as stage:
        RULES[name](mix, stage.pids, 0)
        start_ns = stage.go()
        for phase, start_us in enumerate(mix.starts_us()[1:-1], 1):
            time.sleep(max(0.0, (start_ns + start_us * 1000 - time.monotonic_ns()) / 1e9))
            RULES[name](mix, stage.pids, phase)
        return judge(stage.finish(), name)


def row(outcomes: list[Outcome], defaults: list[Outcome]) -> tuple[str, str, str]:
    p99 = [
        median(max(part.p99_us or 0 for part in one.parts if part.phase == phase) / 1000 for one in outcomes)
        for phase in SERVING
    ]
    slo = [median(one.slo_by_phase[phase] * 100 for one in outcomes) for phase in SERVING]
    worst = [
        median(
            min(share for (_, at), share in progress_by_part(one, default).items() if at == phase)
            for one, default in zip(outcomes, defaults, strict=True)
        )
        for phase in range(4)
    ]
    return (
        " / ".join(f"{value:.1f}" if value < 100 else f"{value:.0f}" for value in p99),
        " / ".join(f"{value:.0f}" for value in slo) + f" = {sum(slo) / 3:.1f}",
        " ".join(f"{value:.2f}" for value in worst),
    )


def main() -> None:
    words = argparse.ArgumentParser(description="four phases under static settings, beside the facts' table 7.1")
    words.add_argument("--repeats", type=int, default=3)
    words.add_argument("--phase-s", type=float, default=2.5)
    words.add_argument("--tries", type=int, default=3, help="of a play that others disturb")
    words.add_argument("--save", type=Path, help="outcomes, one JSON document a line")
    options = words.parse_args()
    if os.geteuid() == 0:
        os.setpriority(os.PRIO_PROCESS, 0, -20)  # the oracle must not be late; its players begin at nice 0
    mix = four_phase(phase_s=options.phase_s)
    program = load_program()
    calibration = calibrate(program)
    print(f"# {platform.release()}, {os.cpu_count()} CPUs, {calibration}", file=sys.stderr)
    found: dict[str, list[Outcome]] = {name: [] for name in RULES}
    for repeat in range(options.repeats):
        for name in RULES:
            for _ in range(options.tries):
                outcome = play(mix, repeat, name, program, calibration)
                if outcome.is_clean:
                    break
            found[name].append(outcome)
            print(f"# {repeat} {name}: clean {outcome.clean_share:.1%}", file=sys.stderr)
            if options.save:
                with options.save.open("ab") as file:
                    file.write(write_json(outcome))
    print("| setting | | p99 ms ph1 / ph2 / ph4 | SLO % ph1 / ph2 / ph4 = mean | worst batch ph1 2 3 4 | unclean |")
    print("|---|---|---|---|---|---|")
    for name, outcomes in found.items():
        unclean = sum(not one.is_clean for one in outcomes)
        print(f"| {name} | facts | {' | '.join(FACTS[name])} | |")
        print(f"| | here | {' | '.join(row(outcomes, found['default']))} | {unclean} of {len(outcomes)} |")


if __name__ == "__main__":
    main()
