"""Heat: a two-node RC network with exact steps, and the trip points as a table. Pure.

::

    power → junction ──junction_r──→ case ──case_r──→ ambient
            (junction_c)             (case_c)

With constant power the network is linear with constant coefficients, so a step of any length is one matrix
exponential: exact and stable whether it is a microsecond or a day. The 2x2 exponential is written with its two
eigenvalues, which are real, negative and different for every such network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from npuops.vnpu.spec import ThermalSpec


class Heat(StrEnum):
    """What the trip points say."""

    COOL = "cool"
    THROTTLED = "throttled"
    CRITICAL = "critical"
    """The machine must be off."""


class Trip(StrEnum):
    """What the junction's temperature did."""

    HOT = "hot"
    """Reached `throttle_c`."""
    COOLED = "cooled"
    """Fell to `resume_c`."""
    TOO_HOT = "too hot"
    """Reached `critical_c`."""


NEXT: Final[Mapping[tuple[Heat, Trip], Heat]] = MappingProxyType(
    {
        (Heat.COOL, Trip.HOT): Heat.THROTTLED,
        (Heat.COOL, Trip.TOO_HOT): Heat.CRITICAL,
        (Heat.THROTTLED, Trip.TOO_HOT): Heat.CRITICAL,
        (Heat.THROTTLED, Trip.COOLED): Heat.COOL,
        (Heat.CRITICAL, Trip.COOLED): Heat.COOL,
    }
)
"""Hysteresis: between `resume_c` and `throttle_c` nothing changes."""


@dataclass(frozen=True, slots=True)
class Temperatures:
    """Of the two nodes, °C."""

    junction_c: float
    case_c: float


class Network:
    """The cooling of one device."""

    def __init__(self, spec: ThermalSpec) -> None:
        self._spec = spec
        # x' = A x for x = temperatures above their final values; the rows of A, in 1/s
        self._jj = -1 / (spec.junction_r_c_per_w * spec.junction_c_j_per_c)
        self._jc = -self._jj
        self._cj = 1 / (spec.junction_r_c_per_w * spec.case_c_j_per_c)
        self._cc = -self._cj - 1 / (spec.case_r_c_per_w * spec.case_c_j_per_c)
        middle = (self._jj + self._cc) / 2
        half_gap = math.hypot((self._jj - self._cc) / 2, math.sqrt(self._jc * self._cj))
        self._fast = middle - half_gap
        # the slow eigenvalue from the determinant: middle + half_gap would cancel where the two are far apart
        self._slow = (self._jj * self._cc - self._jc * self._cj) / self._fast

    @property
    def at_rest(self) -> Temperatures:
        """Without power for a long time."""
        return Temperatures(self._spec.ambient_c, self._spec.ambient_c)

    def final(self, watts: float) -> Temperatures:
        """Where constant power leads to in the end."""
        case_c = self._spec.ambient_c + watts * self._spec.case_r_c_per_w
        return Temperatures(case_c + watts * self._spec.junction_r_c_per_w, case_c)

    def after(self, now: Temperatures, watts: float, seconds: float) -> Temperatures:
        """After any time at constant power, exactly."""
        final = self.final(watts)
        junction, case = now.junction_c - final.junction_c, now.case_c - final.case_c
        fast, slow = math.exp(self._fast * seconds), math.exp(self._slow * seconds)
        gap = self._slow - self._fast
        own, other = (slow - fast) / gap, (self._slow * fast - self._fast * slow) / gap  # e^At = own·A + other·I
        return Temperatures(
            final.junction_c + own * (self._jj * junction + self._jc * case) + other * junction,
            final.case_c + own * (self._cj * junction + self._cc * case) + other * case,
        )

    def seconds_before(self, now: Temperatures, watts: float, junction_c: float) -> float:
        """A time in which the junction surely doesn't reach a temperature: cheap, and never too long.

        No junction warms faster than by all the power and the heat of warmer surroundings, with nothing flowing off.
        """
        if now.junction_c >= junction_c:
            return 0.0
        around_c = max(now.case_c, self._spec.ambient_c)
        inflow_w = watts + max(around_c - now.junction_c, 0.0) / self._spec.junction_r_c_per_w
        heat_j = (junction_c - now.junction_c) * self._spec.junction_c_j_per_c
        return heat_j / inflow_w if inflow_w else math.inf

    def seconds_until(self, now: Temperatures, watts: float, junction_c: float) -> float | None:
        """When the junction first reaches a temperature from below at constant power; None if it never does.

        The junction follows a sum of two exponentials, which turns at most once: before and after the turn it can be
        halved until the moment is found.
        """
        if now.junction_c >= junction_c:
            return 0.0
        final_c = self.final(watts).junction_c
        fast, slow = self._parts(now, watts)
        if final_c + max(fast, 0.0) + max(slow, 0.0) < junction_c:
            return None  # the common case, without an exponential
        turn = self._turn_s(fast, slow)
        if turn is not None and self.after(now, watts, turn).junction_c >= junction_c:
            return self._halved(now, watts, junction_c, turn)
        if final_c <= junction_c:
            return None
        return self._halved(now, watts, junction_c, -1 / self._slow)

    def _parts(self, now: Temperatures, watts: float) -> tuple[float, float]:
        """The junction above its final value as fast part + slow part."""
        final = self.final(watts)
        junction, case = now.junction_c - final.junction_c, now.case_c - final.case_c
        slow = ((self._jj - self._fast) * junction + self._jc * case) / (self._slow - self._fast)
        return junction - slow, slow

    def _turn_s(self, fast: float, slow: float) -> float | None:
        """Where fast·e^(fast t) + slow·e^(slow t) has its extremum, if that lies ahead."""
        if fast == 0 or slow == 0 or (fast > 0) == (slow > 0):
            return None
        turn = math.log(-slow * self._slow / (fast * self._fast)) / (self._fast - self._slow)
        return turn if turn > 0 else None

    def _halved(self, now: Temperatures, watts: float, junction_c: float, late: float) -> float | None:
        while self.after(now, watts, late).junction_c < junction_c:
            late *= 2
            if late > 1e9:  # thirty years: closer to the final temperature than numbers tell apart
                return None
        early = 0.0
        while late - early > 1e-9 + 1e-12 * late:
            middle = (early + late) / 2
            early, late = (early, middle) if self.after(now, watts, middle).junction_c >= junction_c else (middle, late)
        return late
