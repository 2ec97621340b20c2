"""Which failure modes the looks at a device speak for: the signs of `failure_modes.py` in code. Pure.

A suspicion is about the time of the looks it is given. It does not decide health: a device that refuses a program is
well, and one that throttles is F2 and degraded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Final

from npuops.devices.evidence import RISES, STATUS, counted, rise
from npuops.devices.failure_modes import FAILURE_MODES, Mode
from npuops.devices.health import Signal
from npuops.devices.quantities import MEANINGS, Kind, Quantity
from npuops.devices.rates import restarted
from npuops.devices.readings import Readings
from npuops.devices.tenants import Tenant

WINDOW_S: Final = 60.0
"""How long a sign is kept in mind."""

CANARIES_TO_TELL: Final = 3
"""With fewer wrong ones, and none after them, all wrong (F3) and some wrong (F8) cannot be told apart."""

NEIGHBOUR_SHARE: Final = 2 / 3
"""Of all busy time: two that want everything get a half each, which is contention and nobody's fault."""
VICTIM_WAIT: Final = 0.5
"""Of its own busy time: half as long again is what a tail latency shows."""
_LEAST_BUSY_S: Final = 0.01
"""Of a neighbour: less is too little to speak of a share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A moment of a device.

    Attributes:
        taken_us: by the sampler's clock.
        readings: what was read.
        tenants: who used it.
    """

    taken_us: int
    readings: Readings
    tenants: tuple[Tenant, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspicion:
    """A failure mode, and what speaks for it.

    Attributes:
        mode: its number.
        name: its name.
        evidence: at least one sign, in words.
    """

    mode: Mode
    name: str
    evidence: tuple[str, ...]


def suspicions(looks: Sequence[Look]) -> tuple[Suspicion, ...]:
    """What the looks of a window say, oldest first; there is at least one. With a single one, what it shows now."""
    return _found({mode: sign(looks) for mode, sign in _SIGNS.items()})


def history(look: Look) -> tuple[Suspicion, ...]:
    """What the counters of a device have counted since its driver was loaded: when, nobody can tell."""
    counters = {
        quantity: reading
        for quantity, reading in look.readings.values.items()
        if MEANINGS[quantity].kind is Kind.COUNTER
    }
    zeros = {quantity: replace(reading, value=0.0) for quantity, reading in counters.items()}
    began, ended = (
        Look(taken_us=look.taken_us, readings=Readings(values=values, absent={})) for values in (zeros, counters)
    )
    return suspicions((began, ended))


def gone(words: str) -> tuple[Suspicion, ...]:
    """Of a device that is not here any more."""
    return _found({Mode.OFFLINE: [words]})


_DOWN: Final = frozenset({Signal.OFFLINE, Signal.HANG, Signal.RESET})
_UNCORRECTED: Final = (Quantity.UNCORRECTED, Quantity.UNCORRECTED_NONFATAL)
_BREAKS: Final = (Quantity.TRIPS, *_UNCORRECTED)


def _total(looks: Sequence[Look], quantity: Quantity) -> float:
    return sum(rise(before.readings, now.readings, quantity) for before, now in pairwise(looks))


def _risen(looks: Sequence[Look], *quantities: Quantity) -> list[str]:
    """Those counters that rose, in words."""
    totals = {quantity: _total(looks, quantity) for quantity in quantities}
    return [
        counted(amount, RISES[quantity][1] if quantity in RISES else "refusal")
        for quantity, amount in totals.items()
        if amount > 0
    ]


def _offline(looks: Sequence[Look]) -> list[str]:
    now = looks[-1].readings
    if now.dead is not None:
        return [now.dead]
    found = []
    status = STATUS.get((now.status or "").casefold())
    resets, commanded = _total(looks, Quantity.RESETS), _total(looks, Quantity.COMMANDED_RESETS)
    if status in _DOWN and not (status is Signal.RESET and 0 < resets == commanded):
        found.append(f"the driver says {now.status!r}")
    over = {name for one, two in pairwise(looks) for name in restarted(one.readings.values, two.readings.values)}
    if over:
        found.append(f"{', '.join(sorted(over))} started over")
    crashed = now.values.get(Quantity.CHANNELS_CRASHED)
    if crashed is not None and crashed.value > 0:
        found.append(f"the sub-system of {counted(crashed.value, 'workload')} crashed")
    broke = _risen(looks, *_BREAKS)
    if status is Signal.OFFLINE and _version(looks) and not broke:
        return []  # its boot was refused
    if resets > commanded:
        broke.append(counted(resets - commanded, "reset"))
    return [*found, *broke, *_risen(looks, Quantity.SOFT_RESETS)]


def _throttle(looks: Sequence[Look]) -> list[str]:
    if _total(looks, Quantity.TRIPS) > 0:
        return []
    found = _risen(looks, Quantity.THROTTLES)
    values = looks[-1].readings.values
    temperature, limit = values.get(Quantity.TEMPERATURE), values.get(Quantity.TEMPERATURE_THROTTLE)
    if temperature is not None and limit is not None and temperature.value >= limit.value:
        found.append(f"{temperature.value:.1f} °C, throttling temperature is {limit.value:.0f} °C")
    return found


_PATTERNS: Final = (
    (re.compile("R*"), ()),
    (re.compile("R*M?W{2,}M?R+"), ()),  # all wrong for a while, and right again: it was cured
    (re.compile("R*[MW]"), (Mode.ACCURACY, Mode.FIRMWARE)),
    (re.compile("R*M?W+"), (Mode.ACCURACY,)),
)
"""The first that fits the canaries between looks (all Right, all Wrong, Mixed) tells; what fits none is sporadic."""


def _wrong_answers(looks: Sequence[Look], mode: Mode) -> list[str]:
    runs, wrong = _total(looks, Quantity.CANARIES), _total(looks, Quantity.CANARY_FAILURES)
    if any(_total(looks, quantity) > 0 for quantity in _UNCORRECTED):
        return []
    between = [
        tuple(rise(one.readings, two.readings, each) for each in (Quantity.CANARIES, Quantity.CANARY_FAILURES))
        for one, two in pairwise(looks)
    ]
    story = "".join("R" if not bad else "W" if bad >= ran else "M" for ran, bad in between if ran or bad)
    modes = next((modes for pattern, modes in _PATTERNS if pattern.fullmatch(story)), (Mode.FIRMWARE,))
    if story.endswith("W") and len(modes) > 1 and wrong >= CANARIES_TO_TELL:
        modes = (Mode.ACCURACY,)
    if mode not in modes:
        return []
    return [f"{wrong:.0f} of {counted(runs, 'canary answer')} wrong" + (", too few to tell" if len(modes) > 1 else "")]


def _memory(looks: Sequence[Look]) -> list[str]:
    found = _risen(looks, Quantity.REFUSED_MEMORY)
    values = looks[-1].readings.values
    used, total = values.get(Quantity.MEMORY_USED), values.get(Quantity.MEMORY_TOTAL)
    if found and used is not None and total is not None and total.value > 0:
        found.append(f"{used.value / total.value:.0%} of its memory is in use")
    return found


def _operator(looks: Sequence[Look]) -> list[str]:
    return _risen(looks, Quantity.REFUSED_OPERATOR)


def _version(looks: Sequence[Look]) -> list[str]:
    return _risen(looks, Quantity.REFUSED_VERSION)


def _neighbour(looks: Sequence[Look]) -> list[str]:
    if _offline(looks) or _total(looks, Quantity.RESETS) > 0:
        return []  # what stands on a device that hangs keeps it busy, and everybody waits; so they do for a reset
    before = {(tenant.client, tenant.pid): tenant for tenant in looks[0].tenants}
    spent = [_spent(before.get((now.client, now.pid)), now) for now in looks[-1].tenants]
    total_s = sum(each.busy_s for each in spent)
    loudest = max(spent, key=lambda each: each.busy_s, default=None)
    if len(looks) < 2 or loudest is None or loudest.busy_s < max(_LEAST_BUSY_S, NEIGHBOUR_SHARE * total_s):
        return []
    found = [
        f"{_called(each.tenant)} waited {each.wait_s:.2f} s and worked {each.busy_s:.2f} s"
        for each in spent
        if each is not loudest and each.wait_s > max(VICTIM_WAIT * each.busy_s, VICTIM_WAIT * _LEAST_BUSY_S)
    ]
    return [f"{_called(loudest.tenant)} has {loudest.busy_s / total_s:.0%} of the busy time", *found] if found else []


@dataclass(frozen=True, slots=True)
class _Spent:
    tenant: Tenant
    busy_s: float
    wait_s: float


def _spent(before: Tenant | None, now: Tenant) -> _Spent:
    """Of a tenant that was not there before, all that it has counted."""
    busy_s, wait_s = now.busy_seconds or 0.0, now.wait_seconds or 0.0
    if before is not None:
        busy_s, wait_s = busy_s - (before.busy_seconds or 0.0), wait_s - (before.wait_seconds or 0.0)
    return _Spent(now, max(busy_s, 0.0), max(wait_s, 0.0))


def _called(tenant: Tenant) -> str:
    return f"client {tenant.client}" + (f" (process {tenant.pid})" if tenant.pid else "")


_SIGNS: Final[Mapping[Mode, Callable[[Sequence[Look]], list[str]]]] = {
    Mode.OFFLINE: _offline,
    Mode.THROTTLE: _throttle,
    Mode.ACCURACY: partial(_wrong_answers, mode=Mode.ACCURACY),
    Mode.MEMORY: _memory,
    Mode.OPERATOR: _operator,
    Mode.VERSION: _version,
    Mode.NEIGHBOUR: _neighbour,
    Mode.FIRMWARE: partial(_wrong_answers, mode=Mode.FIRMWARE),
}


def _found(signs: Mapping[Mode, list[str]]) -> tuple[Suspicion, ...]:
    return tuple(
        Suspicion(mode=mode, name=FAILURE_MODES[mode].name, evidence=tuple(words))
        for mode, words in signs.items()
        if words
    )
