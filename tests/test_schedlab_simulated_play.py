"""The simulator's plays are written down as the kernel's are."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from npuops.eevdf.mix import Doing
from npuops.eevdf.setting import Setting
from npuops.eevdf.simulation import Simulation
from npuops.schedlab.comparison import worst_progress
from npuops.schedlab.mixes import four_phase
from npuops.schedlab.outcome import Outcome, judge, write_json
from npuops.schedlab.recording import Origin
from npuops.schedlab.simulated_play import PhaseBook, play_simulated

MIX = four_phase(phase_s=0.3)


def test_a_simulated_play_has_all_requests_and_shares_the_cpu_out() -> None:
    recording = play_simulated(MIX, 3)
    outcome = judge(recording)
    assert recording.origin is Origin.SIMULATOR
    assert outcome.clean_share is None
    assert sum(part.arrivals for part in outcome.parts) == sum(len(one.arrivals_ns) for one in recording.records)
    assert outcome.cpu_us == pytest.approx(MIX.duration_us, rel=0.05)
    assert msgspec.json.decode(write_json(outcome), type=Outcome) == outcome


def test_who_rests_makes_no_progress_and_a_pipe_counts_turns() -> None:
    recording = play_simulated(MIX, 3)
    pipe = recording.of("P0")
    assert pipe.progress[:3].sum() == 0
    assert 1 <= pipe.progress[3] <= 300_000 / 60
    assert recording.of("H0").progress.sum() > recording.of("H0").progress[0] > 0


def test_what_is_set_at_a_phase_shows_in_that_phase() -> None:
    def others_19(simulation: Simulation, phase: int) -> None:
        for number, player in enumerate(MIX.players):
            busy = player.acts[phase].doing is not Doing.SERVE and phase != 2
            simulation.set(number, Setting(nice=19 if busy else 0))

    default = judge(play_simulated(MIX, 3))
    oracle = judge(play_simulated(MIX, 3, on_phase=others_19), "oracle")
    assert default.slo_share is not None
    assert oracle.slo_share is not None
    assert oracle.slo_share > default.slo_share + 0.2
    worst = worst_progress(oracle, default)
    assert worst is not None
    assert worst > 0.3


def test_it_does_not_matter_in_which_steps_it_is_played() -> None:
    simulation, book = Simulation(MIX, 3), PhaseBook(MIX, 3)
    for moment_us in range(0, 1_000_000, 17_000):
        book.run_until(simulation, moment_us * 1000)
    stepped, straight = book.recording(simulation), play_simulated(MIX, 3)
    for one, other in zip(stepped.records, straight.records, strict=True):
        assert (one.done_ns == other.done_ns).all()
        assert np.allclose(one.progress, other.progress)
