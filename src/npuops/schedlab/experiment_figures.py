"""What an experiment came to: each rival on each mix, the table of no harm, and the goals, met or missed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Final

import msgspec
import numpy as np

from npuops.schedlab.comparison import Comparison, Estimate, compare, estimate, progress_by_task
from npuops.schedlab.outcome import Outcome
from npuops.schedlab.played import Played
from npuops.schedlab.rival_names import AGAIN, DEFAULT

LEAST_HARM: Final = 0.01
"""A difference to the default that counts, where the noise is even less: a point of requests, or of progress."""


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


class Harm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One rival beside the default on one mix: whether it is worse there, beyond noise.

    Attributes:
        mix: its name, or that of a load of real programs.
        label: of the rival.
        measure: what is compared: the share of requests in time, or of batch progress where nobody serves.
        difference: to the default, play by play with the same arrivals; below 0 is worse.
        noise: the same of the default's second play; None in the simulator, where there is none.
        harmed: the difference's median is below the noise and below one point, and its interval below 0.
    """

    mix: str
    label: str
    measure: str
    difference: Estimate
    noise: Estimate | None
    harmed: bool


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


def harms(plays: Sequence[Played]) -> list[Harm]:
    """Of every rival but the default, on every mix where both were played."""
    pairs = paired(plays)
    found = []
    for (mix, label), these in pairs.items():
        if label in (DEFAULT, AGAIN):
            continue
        measure, differences = _differences(these)
        difference = estimate(differences)
        noise = None if (mix, AGAIN) not in pairs else estimate(_differences(pairs[mix, AGAIN])[1])
        if difference is not None:
            harmed = is_harm(difference, noise)
            found.append(Harm(mix=mix, label=label, measure=measure, difference=difference, noise=noise, harmed=harmed))
    return found


def is_harm(difference: Estimate, noise: Estimate | None) -> bool:
    """Worse than the default: beyond the noise of its second play, beyond a point, and in the whole interval."""
    floor = min(-LEAST_HARM, noise.low if noise is not None else 0.0)
    return difference.median < floor and difference.high < 0


def _differences(these: Paired) -> tuple[str, list[float | None]]:
    if these.defaults[0].slo_share is not None:
        return "requests in time", [
            None if one.slo_share is None or beside.slo_share is None else one.slo_share - beside.slo_share
            for one, beside in zip(these.ours, these.defaults, strict=True)
        ]
    return "batch progress", [
        float(np.mean(list(shares.values()))) - 1.0 if (shares := progress_by_task(one, beside)) else None
        for one, beside in zip(these.ours, these.defaults, strict=True)
    ]
