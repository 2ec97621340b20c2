"""Temperature, energy and clock of a running device: heat, power and governor moved through time together. Pure.

Between two changes of load or clock the power is constant, so nothing is computed there: a look at any moment is the
exact step from the last change, and looking changes nothing. That is what makes a run the same however often it is
looked at, and a quiet hour as cheap as a quiet second.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache, partial

from npuops.vnpu.power import GOVERNOR_PERIOD_NS, core_power_w, next_point, power_w
from npuops.vnpu.spec import MachineSpec
from npuops.vnpu.thermal import NEXT, Heat, Network, Temperatures, Trip


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """What a look at a moment gives.

    Attributes:
        energy_mj: the integral of the power.
        idle_energy_mj: the part that an idle device would have needed too.
        temperatures: of junction and case.
    """

    energy_mj: float
    idle_energy_mj: float
    temperatures: Temperatures


class Climate:
    """Heat, power and clock of one device.

    Attributes:
        heat: what the trip points say.
        point: index of the clock point.
        power_w: since the last change.
        throttles: how often heat has lowered the clock.
    """

    def __init__(self, spec: MachineSpec, now_ns: int) -> None:
        self._spec = spec
        self._network = Network(spec.thermal)
        self._top = len(spec.clock_points_mhz) - 1
        self.heat, self.point, self.throttles = Heat.COOL, self._top, 0
        self._since_ns = now_ns
        self.power_w = 0.0
        self._weather = Weather(energy_mj=0.0, idle_energy_mj=0.0, temperatures=self._network.at_rest)
        self._busy_cores: int | None = None
        self._core_power_w = cache(partial(core_power_w, spec))
        self._power_w = cache(partial(power_w, spec))
        self._levels = {
            Heat.COOL: (spec.thermal.throttle_c, Trip.HOT),
            Heat.THROTTLED: (spec.thermal.critical_c, Trip.TOO_HOT),
        }
        self._level: tuple[float, Trip] | None = None  # what to look for, once it can matter
        self._quiet_until_ns = 0.0
        self._crossing: tuple[int, Trip] | None = None
        self._tick_ns: int | None = None

    @property
    def mhz(self) -> float:
        """The clock, which a busy core runs at."""
        return self._spec.clock_points_mhz[self.point]

    @property
    def core_w(self) -> float:
        """What one busy core adds to the power now."""
        return self._core_power_w(self.point)

    def look(self, now_ns: int) -> Weather:
        """At a moment not before the last change; changes nothing."""
        seconds = (now_ns - self._since_ns) * 1e-9
        if not seconds:
            return self._weather
        before = self._weather
        idle_w = 0.0 if self._busy_cores is None else self._spec.idle_w
        return Weather(
            energy_mj=before.energy_mj + self.power_w * seconds * 1e3,
            idle_energy_mj=before.idle_energy_mj + idle_w * seconds * 1e3,
            temperatures=self._network.after(before.temperatures, self.power_w, seconds),
        )

    def load(self, busy_cores: int | None, now_ns: int) -> None:
        """From now on so many cores are busy; None: switched off."""
        if busy_cores != self._busy_cores:
            weather = self.look(now_ns)
            self._busy_cores = busy_cores
            self._change(weather, now_ns)

    def heat_up(self, junction_c: float, now_ns: int) -> None:
        """A fault: something else has heated the junction to this temperature, if it was below."""
        weather = self.look(now_ns)
        hotter = replace(weather.temperatures, junction_c=max(junction_c, weather.temperatures.junction_c))
        self._change(replace(weather, temperatures=hotter), now_ns)

    def next_ns(self, horizon_ns: float = math.inf) -> int | None:
        """When `act` must be called, if nothing else changes before.

        A crossing after the horizon need not be found: most loads change again long before the heat can matter.
        """
        if self._level is not None and self._quiet_until_ns <= horizon_ns:
            level_c, found = self._level
            seconds = self._network.seconds_until(self._weather.temperatures, self.power_w, level_c)
            self._crossing = None if seconds is None else (self._since_ns + math.ceil(seconds * 1e9), found)
            self._level = None
        crossing_ns = None if self._crossing is None else self._crossing[0]
        return min((moment for moment in (crossing_ns, self._tick_ns) if moment is not None), default=None)

    def act(self, now_ns: int) -> Trip | None:
        """A trip point is reached, or the governor looks: returns the trip, and changes the clock where needed."""
        thermal = self._spec.thermal
        weather = self.look(now_ns)
        junction_c = weather.temperatures.junction_c
        found = None
        if self._crossing is not None and self._crossing[0] == now_ns:
            found = self._crossing[1]
            junction_c = max(junction_c, thermal.throttle_c)  # the moment is rounded, and so may be a hair below
        elif self.heat is not Heat.COOL and junction_c <= thermal.resume_c:
            found = Trip.COOLED
        if found is not None:
            self.heat = NEXT[self.heat, found]
        point = next_point(thermal, self.heat, junction_c, self.point, self._top)
        self.throttles += point < self.point
        self.point = point
        watched = self.heat is not Heat.COOL or point < self._top
        self._tick_ns = now_ns + GOVERNOR_PERIOD_NS if watched else None
        self._change(weather, now_ns)
        return found

    def _change(self, weather: Weather, now_ns: int) -> None:
        self._weather, self._since_ns = weather, now_ns
        self.power_w = 0.0 if self._busy_cores is None else self._power_w(self.point, self._busy_cores)
        self._crossing, self._level = None, self._levels.get(self.heat)
        if self._level is not None:
            quiet_s = self._network.seconds_before(weather.temperatures, self.power_w, self._level[0])
            self._quiet_until_ns = now_ns + quiet_s * 1e9
