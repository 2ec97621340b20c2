"""What an experiment came to: each rival on each mix, the table of no harm, and the goals, met or missed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

import msgspec

from npuops.schedlab.comparison import Comparison, Estimate, compare, estimate
from npuops.schedlab.harms import Harm, harms, mix_measures
from npuops.schedlab.outcome import Outcome
from npuops.schedlab.played import Played
from npuops.schedlab.rival_names import DEFAULT


class Standing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One rival on one mix. Figures are None where no play has them.

    Attributes:
        mix: its name.
        label: of the rival.
        compared: beside the default, with the same arrivals; None if it was not played, or the default was not.
        p50_us: of all response times.
        max_us: likewise.
        agent_share: of one core, agent and reaper.
        plays: that have an outcome.
        skipped: why it was not played.
        failed: words of plays that broke off.
        stuck: things that an agent could not put back.
    """

    mix: str
    label: str
    compared: Comparison | None
    p50_us: Estimate | None
    max_us: Estimate | None
    agent_share: Estimate | None
    plays: int
    skipped: str
    failed: tuple[str, ...]
    stuck: int


class Paired(msgspec.Struct, frozen=True):
    """The outcomes of a rival on a mix, each with the default's of the same repeat."""

    ours: tuple[Outcome, ...]
    defaults: tuple[Outcome, ...]
    repeats: tuple[int, ...]


def paired(plays: Iterable[Played]) -> dict[tuple[str, str], Paired]:
    """By mix and label; plays whose default is missing are left out."""
    done = [played for played in plays if played.outcome is not None]
    defaults = {(one.mix, one.repeat): one.outcome for one in done if one.label == DEFAULT}
    found: dict[tuple[str, str], Paired] = {}
    ordered = sorted(done, key=lambda one: one.key)
    for key, group in groupby(ordered, key=lambda one: (one.mix, one.label)):
        these = [
            (one.outcome, beside, one.repeat)
            for one in group
            if (beside := defaults.get((one.mix, one.repeat))) is not None and one.outcome is not None
        ]
        if these:
            ours, theirs, repeats = zip(*these, strict=True)
            found[key] = Paired(ours, theirs, repeats)
    return found


def standings(plays: Sequence[Played]) -> list[Standing]:
    """Of each rival on each mix, in the order in which they first come."""
    pairs = paired(plays)
    keys = dict.fromkeys((one.mix, one.label) for one in plays)
    return [
        _standing(mix, label, [one for one in plays if (one.mix, one.label) == (mix, label)], pairs)
        for mix, label in keys
    ]


def _standing(mix: str, label: str, plays: Sequence[Played], pairs: dict[tuple[str, str], Paired]) -> Standing:
    outcomes = [one.outcome for one in plays if one.outcome is not None]
    beside = pairs.get((mix, label))
    return Standing(
        mix=mix,
        label=label,
        compared=None if beside is None else compare(beside.ours, beside.defaults),
        p50_us=estimate([one.p50_us for one in outcomes]),
        max_us=estimate([_longest(one) for one in outcomes]),
        agent_share=estimate([one.agent.cpu_share for one in plays if one.agent is not None]),
        plays=len(outcomes),
        skipped=next((one.skipped for one in plays if one.skipped), ""),
        failed=tuple(one.failed for one in plays if one.failed),
        stuck=sum(one.agent.stuck for one in plays if one.agent is not None),
    )


def _longest(outcome: Outcome) -> float | None:
    return max((part.max_us for part in outcome.parts if part.max_us is not None), default=None)


def mix_harms(plays: Sequence[Played]) -> list[Harm]:
    """Of every rival but the default, on every mix where both were played."""
    return harms(
        {key: list(zip(one.ours, one.defaults, strict=True)) for key, one in paired(plays).items()}, mix_measures
    )
