"""Measures on this machine's kernel how far a policy's forecasts are off, and builds the one that knows it."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Final

from npuops.artifacts.disk import storage_errors
from npuops.clock import Clock, SystemClock
from npuops.eevdf.mix import Doing, Mix
from npuops.errors import AccuracyError, OptionError
from npuops.events import Observer, StepFinished, StepProgressed, StepStarted, ignore
from npuops.hostsched.knobs import NotPermittedError
from npuops.hostsched.learned_policy import thresholds_of
from npuops.hostsched.policy_card import RULE_NAME, Correction, PolicyFolder
from npuops.hostsched.reactive import Reactive
from npuops.hostsched.rights import find_rights
from npuops.hostsched.trace_file import read_trace
from npuops.schedlab.build_policy import SHIPPED, Built, build_policy
from npuops.schedlab.correction import LEAST_PLAYS, Residuals, corrected, correction, joined
from npuops.schedlab.experiment import cleanest
from npuops.schedlab.kernel_theatre import KernelTheatre, perform
from npuops.schedlab.lessons import lesson
from npuops.schedlab.load_program import calibrate, load_program
from npuops.schedlab.outcome import BATCH, CLEAN, judge
from npuops.schedlab.residual_samples import residuals_of
from npuops.schedlab.rivals import ByAgent, Scripted, left_alone
from npuops.schedlab.rollouts import RolloutOptions
from npuops.schedlab.samples import Samples, join
from npuops.schedlab.schedule_file import Calibration
from npuops.schedlab.stage import open_stage
from npuops.schedlab.training import gather_lesson

_MEASURING_LESSONS: Final = 800_000
"""Lessons from here on are played on the kernel; no fit, tuner or trust saw them;"""
_CALIBRATING_LESSONS: Final = 900_000
"""and in those from here on states are gathered for the ranges of INT8, and to judge it."""
_LEAST_STATES: Final = 48
_MOST_GATHERED: Final = 40
_PLAY_US: Final = 5_000_000
_LEAST_PHASE_US: Final = 300_000


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureOptions:
    """How much, and under what.

    Attributes:
        plays: lessons that are played, each once under the policy and once under the default setting.
        tries: of a play that others disturb.
        unclean: a play that stayed disturbed counts all the same; otherwise it is left out.
    """

    plays: int = 16
    tries: int = 2
    unclean: bool = False

    def __post_init__(self) -> None:
        """Refuse what measures nothing.

        Raises:
            OptionError: too few plays for one to be left out, or no try.
        """
        if self.plays < LEAST_PLAYS or self.tries < 1:
            raise OptionError(
                f"{self.plays} plays, {self.tries} tries: a correction is proved on plays that were left out of it",
                advice=f"{LEAST_PLAYS} plays or more, each tried once at least",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What plays gave.

    Attributes:
        residuals: of all that count.
        unclean: plays among them that others disturbed.
        left_out: plays that were disturbed and do not count.
    """

    residuals: Residuals
    unclean: int
    left_out: int


def measuring_mixes(plays: int, cpus: int) -> list[tuple[int, Mix]]:
    """The first lessons that such a machine can play, with somebody who waits and somebody who computes.

    Args:
        plays: so many.
        cpus: of the machine.

    Returns:
        Number of the lesson, which is also the seed of its arrivals, and its mix, some five seconds at most.
    """
    drawn = ((number, lesson(number).mix) for number in count(_MEASURING_LESSONS))
    return list(islice(((number, shortened(mix)) for number, mix in drawn if _tells(mix, cpus)), plays))


def _tells(mix: Mix, cpus: int) -> bool:
    doings = {act.doing for player in mix.players for act in player.acts}
    return mix.cpus <= cpus and Doing.SERVE in doings and bool(doings & BATCH)


def shortened(mix: Mix) -> Mix:
    """The same with shorter phases, so that all last five seconds at most; a phase keeps a third of a second."""
    part = min(_PLAY_US / mix.duration_us, 1.0)
    phases = tuple(max(int(length * part), min(length, _LEAST_PHASE_US)) for length in mix.phases_us)
    return replace(mix, phases_us=phases)


def measure(
    policy: PolicyFolder,
    lessons: Sequence[tuple[int, Mix]],
    options: MeasureOptions,
    *,
    observe: Observer = ignore,
    clock: Clock | None = None,
) -> Measured:
    """Play lessons on the kernel under the policy and under the default, and put forecasts beside what came.

    Args:
        policy: that decides, with hints, by the real agent.
        lessons: as of `measuring_mixes`.
        options: how.
        observe: hears of each play.
        clock: measures the step.

    Raises:
        NotPermittedError: this process may not take back what the agent would set.
        MissingToolchainError, CompileError: of the load program.
        AccuracyError: others disturbed so many plays that nothing can be said.
        NpuopsError: a play broke off.
    """
    clock = clock or SystemClock()
    if not find_rights().may_raise:
        raise NotPermittedError(
            "what the agent lowers could not be raised again: nothing can be measured here",
            advice="run as root, or with CAP_SYS_NICE",
        )
    began_us = clock.now_us()
    program = load_program()
    calibration = calibrate(program)
    seconds = 2 * sum(mix.duration_us for _, mix in lessons) / 1e6
    observe(StepStarted(step="measure", detail=f"{2 * len(lessons)} plays on this kernel, {seconds / 60:.1f} min"))
    found: list[Residuals] = []
    unclean = 0
    for done, (number, mix) in enumerate(lessons):
        observe(StepProgressed(step="measure", done=done, total=len(lessons), detail=mix.name))
        play = partial(_pair, policy, calibration, program, number, mix)
        (residuals, share), _ = cleanest(play, lambda pair: pair[1], options.tries)
        if share >= CLEAN or options.unclean:
            found.append(residuals)
            unclean += share < CLEAN
    if len(found) < LEAST_PLAYS:
        raise AccuracyError(
            f"others disturbed {len(lessons) - len(found)} of {len(lessons)} plays: what is left proves nothing",
            advice="measure on a quiet machine; --unclean counts disturbed plays in",
        )
    all_of_them, took_s = joined(found), (clock.now_us() - began_us) / 1e6
    words = f"{len(all_of_them.miss.play)} windows, {len(all_of_them.progress.play)} phases of batch work"
    observe(StepFinished(step="measure", seconds=took_s, detail=words))
    return Measured(residuals=all_of_them, unclean=unclean, left_out=len(lessons) - len(found))


def _pair(
    policy: PolicyFolder, calibration: Calibration, program: Path, number: int, mix: Mix
) -> tuple[Residuals, float]:
    """One lesson under the default and under the policy; and the share of the CPUs that others left, the worse one."""
    rule = Scripted(name="default", levels=left_alone, note="")
    rival = ByAgent(name="learned", policy="learned", note="", folder=policy.root.absolute())
    take = KernelTheatre(calibration, program=program).play(mix, rule, number, hints=False, filmed=False)
    default = judge(take.recording)
    with (
        tempfile.TemporaryDirectory(prefix="hs-correct-") as folder,
        open_stage(mix, number, calibration=calibration, program=program) as stage,
    ):
        path = Path(folder) / "agent.trace"
        # By the weights themselves: it is these that are corrected.
        arguments = ("--placement", "numpy")
        recording = perform(stage, rival, Path(folder), hints=True, record=path, arguments=arguments).recording
        residuals = residuals_of(
            read_trace(path).entries,
            policy.weights,
            Reactive(thresholds_of(policy)),
            recording,
            default,
            pids=stage.pids,
            start_us=(stage.start_ns or 0) // 1000,
            play=number,
        )
    return residuals, min(share for share in (default.clean_share, recording.clean_share, 1.0) if share is not None)


def correct(
    policy: PolicyFolder,
    out: Path,
    options: MeasureOptions | None = None,
    *,
    observe: Observer = ignore,
    clock: Clock | None = None,
) -> tuple[PolicyFolder, Measured, tuple[Built, ...]]:
    """Measure a policy on this kernel, and build it again with what that says folded into its weights.

    Metrics, data, seed, ranges, thresholds and trust stay those of its training.

    Args:
        policy: not yet corrected; its folder stays as it is.
        out: another folder; made if absent, its policy replaced.
        options: how much.
        observe: hears of each step.
        clock: measures the steps.

    Raises:
        OptionError: the same folder, or a policy that holds a correction already.
        NpuopsError: as `measure` and `build_policy`.
    """
    options = options or MeasureOptions()
    if out.resolve() == policy.root.resolve():
        raise OptionError(
            f"{out} is the policy that is measured, and stays as it is: so both can be compared",
            advice="name another folder with --out",
        )
    if policy.card.correction is not None and not policy.card.correction.is_identity:
        raise OptionError(
            f"{policy.root} is corrected already, on kernel {policy.card.correction.kernel}",
            advice="correct the policy that it was made of",
        )
    with storage_errors("write", out):  # not after minutes of plays
        out.mkdir(parents=True, exist_ok=True)
    lessons = measuring_mixes(options.plays, os.cpu_count() or 1)
    measured = measure(policy, lessons, options, observe=observe, clock=clock)
    found = correction(measured.residuals, platform.release(), measured.unclean)
    corrected_policy, built = rebuilt(policy, found, out, observe=observe)
    return corrected_policy, measured, built


def rebuilt(
    policy: PolicyFolder, found: Correction, out: Path, *, observe: Observer = ignore
) -> tuple[PolicyFolder, tuple[Built, ...]]:
    """The same policy with a correction in its weights, built for the targets that it has.

    Args:
        policy: as it was trained.
        found: what to correct.
        out: its folder.
        observe: hears of each step.

    Raises:
        NpuopsError: as `build_policy`.
    """
    card = policy.card
    weights = corrected(policy.weights, found)
    samples = _gathered(policy, observe)
    words = None if policy.rule is None else policy.rule.read_bytes()
    with storage_errors("write", out):
        out.mkdir(parents=True, exist_ok=True)
        if words is None:
            (out / RULE_NAME).unlink(missing_ok=True)
        else:
            (out / RULE_NAME).write_bytes(words)
    return build_policy(
        out,
        weights,
        card.shape,
        samples,
        card.trained,
        name=card.name,
        targets={target: SHIPPED.get(target, {}) for target in card.artifacts},
        candidates=card.candidates,
        trust=(card.trust, card.trust_told),
        correction=found,
        observe=observe,
    )


def _gathered(policy: PolicyFolder, observe: Observer) -> Samples:
    """States for the ranges of INT8, as the training gathers them in its last round."""
    parts: list[Samples] = []
    observe(StepStarted(step="gather", detail=f"{_LEAST_STATES} states"))
    for number in range(_CALIBRATING_LESSONS, _CALIBRATING_LESSONS + _MOST_GATHERED):
        part = gather_lesson(RolloutOptions(), thresholds_of(policy), policy.weights, number)
        parts += [part] if part is not None else []
        states = sum(map(len, parts))
        observe(StepProgressed(step="gather", done=min(states, _LEAST_STATES), total=_LEAST_STATES))
        if states >= _LEAST_STATES:
            break
    return join(parts)
