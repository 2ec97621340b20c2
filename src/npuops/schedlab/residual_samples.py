"""Of one play on the kernel: what the network said of the plans that held, beside what came of them.

The network is asked again, on the frames of the trace: so it speaks of the plan that the guard let pass, task by task,
in the very numbers that a correction moves. What came of it is counted as the simulator counts it for training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from npuops.eevdf.mix import Doing, Mix
from npuops.hostsched.candidates import row_of
from npuops.hostsched.features import Features
from npuops.hostsched.plan import Policy
from npuops.hostsched.scorer import MOST_PROGRESS, encode, encode_levels
from npuops.hostsched.scorer_network import Weights, forward
from npuops.hostsched.trace_wire import Entry
from npuops.schedlab.comparison import progress_by_part
from npuops.schedlab.consequence import deadlines, late_waiting, miss_share
from npuops.schedlab.correction import Residuals, Seen
from npuops.schedlab.outcome import Outcome, judge
from npuops.schedlab.recording import Recording
from npuops.schedlab.rollouts import FIRST_FRAMES, HORIZON_US, LEAST_RUN, LEAST_US


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """One frame.

    Attributes:
        at_us: since the mix began.
        held: the plan from then on, as of `row_of`, with the tasks that it is for.
        said: by player: logit of the miss share, and progress.
    """

    at_us: int
    held: tuple[object, ...]
    said: Mapping[str, tuple[float, float]]


def residuals_of(
    entries: Sequence[Entry],
    weights: Weights,
    proposer: Policy,
    recording: Recording,
    default: Outcome,
    *,
    pids: Mapping[str, int],
    start_us: int,
    play: int,
) -> Residuals:
    """Samples of a play.

    Args:
        entries: of the agent's trace.
        weights: of the network that decided.
        proposer: the rule that proposed to it, nothing remembered.
        recording: of the play.
        default: of a play of the same arrivals under the default setting.
        pids: process of each player.
        start_us: when the mix began, monotonic.
        play: its number.

    Raises:
        DataError: the two plays are not of one mix.
    """
    names = {pid: name for name, pid in pids.items()}
    looks = [
        look
        for look in _looks(entries, weights, proposer, names, start_us)
        if 0 <= look.at_us < recording.mix.duration_us
    ]
    miss = [
        sample for window in _windows(looks, recording.mix) for sample in _missed(looks[window[0]], window, recording)
    ]
    return Residuals(_seen(miss, play), _seen(list(_progressed(looks, recording, default)), play))


def _looks(
    entries: Sequence[Entry], weights: Weights, proposer: Policy, names: Mapping[int, str], start_us: int
) -> Iterator[_Look]:
    features = Features()
    for entry in entries:
        state = features.update(entry.frame)
        proposal = proposer.decide(state)
        if entry.checked is None or not entry.frame.tasks or (state.seen < FIRST_FRAMES).any():
            continue
        row, scene = row_of(entry.checked.plan, entry.frame), encode(state, proposal)
        levels = encode_levels(scene, row[None])
        faces = forward(weights, scene.tasks, scene.history, scene.host, levels, scene.repeats)[0][0]
        tasks = [entry.frame.tasks[number].id for number in scene.picked]
        said = {
            names[task.tid]: tuple(face.tolist()) for task, face in zip(tasks, faces, strict=False) if task.tid in names
        }
        held = (row.tobytes(), tuple(task.id for task in entry.frame.tasks))
        yield _Look(entry.frame.at_us - start_us, held, said)


_Window = tuple[int, int, int]
"""The look at which it begins, its phase, and its end in us."""


def _windows(looks: Sequence[_Look], mix: Mix) -> Iterator[_Window]:
    """One after the other, without overlap: the plan stays the same, and so does the phase."""
    starts, first = mix.starts_us(), 0
    while first < len(looks):
        begin = looks[first]
        phase = int(np.searchsorted(starts, begin.at_us, side="right")) - 1
        until_us = min(begin.at_us + HORIZON_US, starts[phase + 1])
        following = first + 1
        while following < len(looks) and looks[following].held == begin.held and looks[following].at_us < until_us:
            following += 1
        # The plan of the last look of these holds until the next one.
        end_us = min(looks[following].at_us if following < len(looks) else until_us, until_us)
        if end_us - begin.at_us >= LEAST_US:
            yield first, phase, end_us
        first = following


_Sample = tuple[float, float, float]
"""Forecast, what came, weight."""


def _missed(begin: _Look, window: _Window, recording: Recording) -> Iterator[_Sample]:
    _, phase, end_us = window
    for player, record in zip(recording.mix.players, recording.records, strict=True):
        if player.acts[phase].doing is not Doing.SERVE or player.name not in begin.said:
            continue
        answers = (recording.mix, player, record.arrivals_ns, record.done_ns)
        due, missed = deadlines(*answers, (begin.at_us, end_us))
        before, after = (late_waiting(*answers, phase, at_us) for at_us in (begin.at_us, end_us))
        if due + before:
            share = miss_share(*(np.array(count, np.int64) for count in (due, missed, before, after)))
            yield begin.said[player.name][0], float(share), float(np.sqrt(due + before))


def _progressed(looks: Sequence[_Look], recording: Recording, default: Outcome) -> Iterator[_Sample]:
    mix, ran = recording.mix, {(part.player, part.phase): part.cpu_us for part in default.parts}
    starts = mix.starts_us()
    for (name, phase), share in progress_by_part(judge(recording), default).items():
        length_us = mix.phases_us[phase]
        within = [look for look in looks if starts[phase] <= look.at_us < starts[phase + 1] and name in look.said]
        if ran[name, phase] > LEAST_RUN * length_us and within:
            said = float(np.mean([look.said[name][1] for look in within]))
            yield said, min(share, MOST_PROGRESS), length_us / 1e6


def _seen(samples: Sequence[_Sample], play: int) -> Seen:
    forecast, came, weight = np.array(samples, np.float64).reshape(-1, 3).T
    plays: NDArray[np.int64] = np.full(len(forecast), play, np.int64)
    return Seen(forecast, came, weight, plays)
