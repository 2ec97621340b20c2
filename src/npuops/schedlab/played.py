"""One play of an experiment as it is kept, of a mix or of real programs, and the head of the log that holds them."""

from __future__ import annotations

from typing import Annotated, Final, Generic, TypeVar

import msgspec
import numpy as np
from msgspec import Meta

from npuops.eevdf.mix import Mix
from npuops.eevdf.rules import Scheduler
from npuops.hostsched.energy_meter import Energy
from npuops.schedlab.outcome import Outcome
from npuops.schedlab.program_outcome import ProgramOutcome
from npuops.schedlab.recording import UNSERVED, Origin, Recording
from npuops.schedlab.rivals import StaticRule
from npuops.schedlab.schedule_file import Calibration

SCHEMA: Final = "npuops.hostsched.experiment/1"
FILM_BIN_US: Final = 100_000

Figures = TypeVar("Figures")
Count = Annotated[int, Meta(ge=0)]
Key = tuple[str, str, int]
"""Mix or load of real programs, rival with what it hears, and repeat."""


class Head(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What holds for all plays of a log.

    Attributes:
        schema: of the log.
        on: kernel or simulator.
        seed: of arrivals and order.
        quick: phases were cut short.
        scheduler: whose rules the simulator follows; on the kernel it says nothing.
        kernel: release, as in `uname -r`.
        cpus: of the machine.
        version: of npuops.
        began_unix_us: when the log was opened.
        calibration: of the loads; None in the simulator.
        statics: static rules that were searched, by rival.
        statics_here: likewise, by rival and mix.
        control_share: of the agent's time in which forecasts are not followed, for comparison.
        cpu_share: of one core that the agent may take.
        contents: what each agent decides by (`rival_content`); None in logs that do not tell.
    """

    schema: str
    on: Origin
    seed: int
    quick: bool
    kernel: str
    cpus: int
    version: str
    began_unix_us: int
    calibration: Calibration | None
    statics: dict[str, StaticRule]
    statics_here: dict[str, dict[str, StaticRule]]
    control_share: float
    cpu_share: float = 0.01
    contents: dict[str, str] | None = None
    scheduler: Scheduler = "eevdf"


class AgentCost(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the agent did and took during one play on the kernel.

    Attributes:
        cpu_share: of one core, agent and reaper, while the mix played; by the kernel's account.
        own_share: the same as the agent tells of itself, without its reaper; None if it does not.
        looks: taken.
        changed: things that the kernel took.
        stuck: of these, those that could not be put back.
        slowed: times that it made its period longer.
        refused: by the guard, by rule.
        denied: by the kernel, by rule.
    """

    cpu_share: float
    own_share: float | None
    looks: Count
    changed: Count
    stuck: Count
    slowed: Count
    refused: dict[str, int]
    denied: dict[str, int]


class Action(msgspec.Struct, frozen=True, array_like=True):
    """A task's level changed.

    Attributes:
        at_us: since the mix began; what was set before is at 0.
        player: whose.
        level: its name.
    """

    at_us: int
    player: str
    level: str


class Film(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A play over time, for plots.

    Attributes:
        bin_us: width of a column.
        arrivals: requests that came in each column.
        in_slo: of these, answered in time.
        actions: changes of levels.
    """

    bin_us: int
    arrivals: tuple[int, ...]
    in_slo: tuple[int, ...]
    actions: tuple[Action, ...]


class Play(msgspec.Struct, Generic[Figures], frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One play, of whatever: `outcome`, or the words why there is none.

    Attributes:
        label: of the rival, with what it hears.
        repeat: from 0.
        tries: plays until it was clean, or until the last.
        outcome: its figures.
        skipped: why it cannot be played here, in the kernel's or our words.
        failed: what went wrong.
        agent: what it took; None where no agent ran, and in the simulator.
        energy: of the whole machine over the play; None in the simulator, and in logs that do not tell.
    """

    label: str
    repeat: Count
    tries: Count
    outcome: Figures | None = None
    skipped: str = ""
    failed: str = ""
    agent: AgentCost | None = None
    energy: Energy | None = None


class Played(Play[Outcome], frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One play of a mix.

    Attributes:
        mix: its name.
        film: of the first repeat.
    """

    mix: str
    film: Film | None = None

    @property
    def key(self) -> Key:
        """Of all plays of an experiment only this one has it."""
        return self.mix, self.label, self.repeat


class ProgramPlayed(Play[ProgramOutcome], frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One play of real programs.

    Attributes:
        load: its name.
    """

    load: str

    @property
    def key(self) -> Key:
        """Likewise: no mix is called like a load of programs."""
        return self.load, self.label, self.repeat


AnyPlayed = Played | ProgramPlayed


def film_of(recording: Recording, actions: tuple[Action, ...]) -> Film:
    """The share of requests in time, column by column, beside what was done."""
    mix: Mix = recording.mix
    edges = np.arange(0, mix.duration_us + FILM_BIN_US, FILM_BIN_US)
    arrived = np.zeros(len(edges) - 1, np.int64)
    kept = arrived.copy()
    starts = np.array(mix.starts_us()[1:-1], np.int64) * 1000
    for player, record in zip(mix.players, recording.records, strict=True):
        slo_ns = np.array([act.slo_us for act in player.acts], np.int64) * 1000
        phases = np.searchsorted(starts, record.arrivals_ns, side="right")
        took = record.done_ns - record.arrivals_ns
        in_time = (record.done_ns != UNSERVED) & (took <= slo_ns[phases])
        arrived += np.histogram(record.arrivals_ns / 1000, edges)[0]
        kept += np.histogram(record.arrivals_ns[in_time] / 1000, edges)[0]
    return Film(bin_us=FILM_BIN_US, arrivals=tuple(arrived.tolist()), in_slo=tuple(kept.tolist()), actions=actions)
