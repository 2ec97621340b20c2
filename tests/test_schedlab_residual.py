"""Lessons on the kernel are the same for everybody, short, and tell of both: who waits and who computes."""

from __future__ import annotations

from pathlib import Path

import pytest

from made_policy import made_policy
from npuops.eevdf.mix import Doing
from npuops.errors import OptionError
from npuops.hostsched.policy_card import Correction, Line, open_policy
from npuops.schedlab.lessons import lesson
from npuops.schedlab.outcome import BATCH
from npuops.schedlab.residual import MeasureOptions, measuring_mixes, rebuilt, shortened


@pytest.mark.parametrize("cpus", [1, 2])
def test_lessons_are_always_the_same_fit_the_machine_and_have_both_kinds_of_work(cpus: int) -> None:
    found = measuring_mixes(20, cpus)
    assert found == measuring_mixes(20, cpus)
    assert len({number for number, _ in found}) == 20
    for number, mix in found:
        assert number >= 800_000
        assert mix.cpus <= cpus
        assert mix.duration_us <= 5_100_000
        doings = {act.doing for player in mix.players for act in player.acts}
        assert Doing.SERVE in doings
        assert doings & BATCH


def test_a_short_mix_stays_as_it_is_and_no_phase_becomes_too_short_to_tell_anything() -> None:
    for number in range(200):
        mix = lesson(number).mix
        cut = shortened(mix)
        assert min(cut.phases_us) >= 300_000
        assert (cut == mix) == (mix.duration_us <= 5_000_000)


def test_too_few_plays_to_leave_one_out_are_refused() -> None:
    for wrong in ({"plays": 3}, {"tries": 0}):
        with pytest.raises(OptionError):
            MeasureOptions(**wrong)


@pytest.mark.slow
def test_a_correction_is_in_the_weights_and_in_the_card_and_thresholds_come_along(tmp_path: Path) -> None:
    policy = made_policy(tmp_path / "plain")
    line = Line(scale=0.8, shift=0.25, samples=9, before=0.5, after=0.4)
    found = Correction(miss=line, progress=Line(), plays=8, unclean=0, kernel="6.18")
    out = tmp_path / "out"
    out.mkdir()
    (out / "reactive.toml").write_text("of another policy")
    made, built = rebuilt(policy, found, out)
    assert built == ()
    assert made.card.correction == open_policy(out).card.correction == found
    assert made.rule is None
    assert made.weights["faces.b"][0] == pytest.approx(policy.weights["faces.b"][0] * 0.8 + 0.25)
    assert made.weights["faces.b"][1] == policy.weights["faces.b"][1]
