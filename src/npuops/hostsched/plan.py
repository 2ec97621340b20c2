"""What a policy wants: a level for each task, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from npuops.eevdf.setting import Setting
from npuops.hostsched.features import State
from npuops.hostsched.frame import GroupId, TaskId


@dataclass(frozen=True, slots=True)
class Level:
    """One choice for one task, the same for whoever decides; `orders.py` turns it into what the kernel is told.

    Attributes:
        name: for people, and in traces.
        setting: for the task; None leaves what it had before npuops came.
        group_nice: for its autogroup or cgroup, if that has tasks of this level only; None leaves it.
    """

    name: str
    setting: Setting | None
    group_nice: int | None = None


NORMAL: Final = Level("normal", None)


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a policy expects of a plan, until the next decision.

    Attributes:
        miss_share: of the requests of tasks with an SLO, 0 to 1.
        progress: of the slowest task without an SLO, relative to the default setting.
    """

    miss_share: float
    progress: float


@dataclass(frozen=True, slots=True)
class Plan:
    """A level for each task that should not be `NORMAL`.

    Attributes:
        levels: by task.
        why: a few words for each of these, for people.
        expected: of this plan, and of leaving everything normal; None from a policy that does not forecast.
        expected_default: as above.
        fallback: what a policy without forecasts would do, for when these are not to be relied upon; None leaves
            everything normal then. Traces do not keep it.
    """

    levels: Mapping[TaskId, Level] = field(default_factory=dict)
    why: Mapping[TaskId, str] = field(default_factory=dict)
    expected: Forecast | None = None
    expected_default: Forecast | None = None
    fallback: Plan | None = None


@dataclass(frozen=True, slots=True)
class Orders:
    """What the kernel shall be told: of every managed task and group, also of those to be put back.

    Attributes:
        tasks: None puts back what the task had before.
        groups: nice of a group; None puts back.
    """

    tasks: Mapping[TaskId, Setting | None]
    groups: Mapping[GroupId, int | None]


class Policy(Protocol):
    """Decides, once for each frame. It may keep what it remembers, but no clock, no file, no socket."""

    @property
    def name(self) -> str:
        """As on the command line."""
        ...

    def decide(self, state: State) -> Plan:
        """What should hold until the next frame."""
        ...
