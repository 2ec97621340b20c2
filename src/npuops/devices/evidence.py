"""From readings to signals of health: presence, resets, errors, heat, the driver's word, a canary inference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from npuops.devices.health import HYSTERESIS_C, Observed, Signal, State
from npuops.devices.quantities import Quantity
from npuops.devices.rates import change, restarted
from npuops.devices.readings import Readings


class Verdict(StrEnum):
    """How the canary inference ended."""

    PASSED = "passed"
    WRONG = "answered wrong"
    TIMED_OUT = "timed out"


@dataclass(frozen=True, slots=True)
class Canary:
    """A small inference with a known answer, run by whoever can run one on the device."""

    verdict: Verdict
    words: str = ""


_CANARY: Final[Mapping[Verdict, Signal]] = {
    Verdict.PASSED: Signal.PASSED,
    Verdict.WRONG: Signal.WRONG,
    Verdict.TIMED_OUT: Signal.HANG,
}

RISES: Final[Mapping[Quantity, tuple[Signal, str]]] = {
    Quantity.RESETS: (Signal.RESET, "reset"),
    Quantity.SOFT_RESETS: (Signal.RESET, "soft reset"),
    Quantity.THROTTLES: (Signal.THROTTLING, "throttle event"),
    Quantity.TRIPS: (Signal.TRIPPED, "thermal trip"),
    Quantity.CORRECTED: (Signal.CORRECTED, "corrected error"),
    Quantity.UNCORRECTED: (Signal.UNCORRECTED, "uncorrected error"),
    Quantity.UNCORRECTED_NONFATAL: (Signal.UNCORRECTED, "uncorrected non-fatal error"),
    Quantity.CANARY_FAILURES: (Signal.WRONG, "wrong canary answer"),
}
"""Counters whose rise is a signal. What they counted before the first look is history, not health."""

STATUS: Final[Mapping[str, Signal]] = {
    "online": Signal.QUIET,
    "operational": Signal.QUIET,
    "alive": Signal.QUIET,
    "resetting": Signal.RESET,
    "in reset": Signal.RESET,
    "in reset after device release": Signal.RESET,
    "in device creation": Signal.RESET,
    "hung": Signal.HANG,
    "needs reset": Signal.HANG,
    "lamed": Signal.HANG,
    "offline": Signal.OFFLINE,
    "disabled": Signal.OFFLINE,
    "malfunction": Signal.OFFLINE,
    "dead": Signal.OFFLINE,
    "driver_exiting": Signal.OFFLINE,
}
"""The words of habanalabs (both ABIs), apex and vnpu, in lower case."""

_LIMITS: Final = (
    (Quantity.TEMPERATURE_CRITICAL, Signal.TRIPPED, State.OVERHEATED, "critical temperature"),
    (Quantity.TEMPERATURE_THROTTLE, Signal.THROTTLING, State.THROTTLED, "throttling temperature"),
)


def evidence(
    state: State, before: Readings | None, now: Readings, *, canary: Canary | None = None
) -> tuple[Observed, ...]:
    """The signals of one look at a device whose files are there.

    Args:
        state: where the device is; a limit of heat has hysteresis.
        before: the look before, None for the first.
        now: this look.
        canary: the result of an inference since the last look, if one was run.
    """
    if now.dead is not None:
        return (Observed(Signal.ABSENT, now.dead),)
    found = [*_rises(before, now), *_channels(now), *_heat(state, now), *_status(now), *_canaries(before, now, canary)]
    if any(each.signal is not Signal.QUIET for each in found):
        return tuple(found)
    sources = _sources(now)
    if sources:
        return (Observed(Signal.QUIET, f"nothing wrong in {', '.join(sources)}"),)
    return (Observed(Signal.BLIND, _why_blind(now)),)


def rise(before: Readings | None, now: Readings, quantity: Quantity) -> float:
    """How much a counter rose between two looks; 0 where either lacks it, or it started over."""
    if before is None or quantity not in before.values or quantity not in now.values:
        return 0.0
    found = change(before.values[quantity], now.values[quantity])
    return 0.0 if found.restarted else found.amount


def counted(amount: float, word: str) -> str:
    """`1 reset`, `2 resets`."""
    return f"{amount:.0f} {word}" + ("" if amount == 1 else "s")


ABSENCE: Final = (Observed(Signal.ABSENT, "the device was here and is not any more"),)


def _rises(before: Readings | None, now: Readings) -> list[Observed]:
    if before is None:
        return []
    found = []
    commanded = rise(before, now, Quantity.COMMANDED_RESETS)
    for quantity, (signal, word) in RISES.items():
        amount = rise(before, now, quantity)
        if amount > 0:
            by = ", by command" if quantity is Quantity.RESETS and amount == commanded else ""
            found.append(Observed(signal, f"{counted(amount, word)} since the last look{by}"))
    over = restarted(before.values, now.values)
    if over:
        found.append(Observed(Signal.RESET, f"{', '.join(over)} started over: the driver or the device was restarted"))
    return found


def _channels(now: Readings) -> list[Observed]:
    crashed = now.values.get(Quantity.CHANNELS_CRASHED)
    if crashed is None or crashed.value == 0:
        return []
    words = f"the sub-system of {counted(crashed.value, 'workload')} crashed ({crashed.source})"
    return [Observed(Signal.RESET, words)]


def _heat(state: State, now: Readings) -> list[Observed]:
    temperature = now.values.get(Quantity.TEMPERATURE)
    if temperature is None:
        return []
    found = []
    for quantity, signal, while_in, name in _LIMITS:
        limit = now.values.get(quantity)
        if limit is None:
            continue
        is_cooling = state is while_in and temperature.value > limit.value - HYSTERESIS_C
        if is_cooling or temperature.value >= limit.value:
            found.append(Observed(signal, f"{temperature.value:.1f} °C, {name} is {limit.value:.0f} °C"))
    return found


def _status(now: Readings) -> list[Observed]:
    if now.status is None:
        return []
    signal = STATUS.get(now.status.casefold())
    return [] if signal is None else [Observed(signal, f"the driver says {now.status!r}")]


def _canaries(before: Readings | None, now: Readings, canary: Canary | None) -> list[Observed]:
    """Those that the driver counts (wrong ones are a counter that rises), and the one that was handed in."""
    passed = rise(before, now, Quantity.CANARIES) - rise(before, now, Quantity.CANARY_FAILURES)
    found = [Observed(Signal.PASSED, f"{counted(passed, 'canary inference')} answered right")] if passed > 0 else []
    if canary is None:
        return found
    words = f"the canary inference {canary.verdict}" + (f": {canary.words}" if canary.words else "")
    return [*found, Observed(_CANARY[canary.verdict], words)]


def _sources(now: Readings) -> list[str]:
    """What of this look can tell health at all."""
    found = [quantity.value for quantity in RISES if quantity in now.values]
    limited = any(quantity in now.values for quantity, *_ in _LIMITS)
    if limited and Quantity.TEMPERATURE in now.values:
        found.append(Quantity.TEMPERATURE.value)
    if now.status is not None and now.status.casefold() in STATUS:
        found.append("status")
    return found


def _why_blind(now: Readings) -> str:
    refused = [now.absent[quantity] for quantity in RISES if quantity in now.absent]
    reason = refused[0] if refused else "this driver reports no resets, errors or limits of heat"
    return f"present; {reason}; only a canary inference can tell"
