"""The options of `npuops hostsched`, as its verbs share them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from npuops.errors import OptionError

if TYPE_CHECKING:
    from npuops.cli.hostsched_policy import PolicyChoice
    from npuops.hostsched.selection import Selection

POLICIES = ("default", "reactive", "tuned-reactive", "learned", "static:")
LEARNED = "learned"
AUTO = "auto"
RULED = ("reactive", LEARNED)
"""Policies in which the reactive rule has a say."""
YEAR_S = 31_536_000


def complete_policy(incomplete: str) -> list[str]:
    """Names of policies, and how a static one begins."""
    return [name for name in POLICIES if name.startswith(incomplete)]


PidFlag = Annotated[list[int] | None, typer.Option("--pid", help="This process, all its threads. Can be repeated.")]
ChildFlag = Annotated[
    list[int] | None,
    typer.Option("--children-of", metavar="PID", help="This process and what descends from it. Can be repeated."),
]
CgroupFlag = Annotated[
    list[str] | None, typer.Option("--cgroup", help="All in this cgroup and below it, as /a/b. Can be repeated.")
]
MatchFlag = Annotated[
    list[str] | None, typer.Option("--match", help="Commands of this pattern, as redis-*. Can be repeated.")
]
PeriodFlag = Annotated[float, typer.Option("--period", metavar="MS", min=10, max=100, help="Between looks.")]
ShareFlag = Annotated[
    float,
    typer.Option(
        "--cpu-share",
        metavar="PERCENT",
        help="Of one core that the agent may take on average: it looks less often instead. 0.1 to 100.",
    ),
]
ControlFlag = Annotated[
    float,
    typer.Option(
        "--control-share",
        metavar="PERCENT",
        min=0,
        max=50,
        help="Of the time of a policy that forecasts, in which they are not followed (rule, or default): "
        "do they still help?",
    ),
]
ForFlag = Annotated[
    float | None, typer.Option("--for", metavar="SECONDS", min=0.01, max=YEAR_S, help="End after so long.")
]
PolicyFlag = Annotated[
    str,
    typer.Option(
        "--policy",
        "-p",
        autocompletion=complete_policy,
        help="default, reactive, tuned-reactive, learned, or static:SETTING@PATTERN,… (docs/hostsched.md).",
    ),
]
RecordFlag = Annotated[
    Path | None, typer.Option("--record", help="Keep every look and decision in this file, for `replay`.")
]
PlotFlag = Annotated[
    Path | None, typer.Option("--plot", help="At the end, what happened over time into this .svg or .png file.")
]
IntervalFlag = Annotated[
    float,
    typer.Option(
        "--interval", metavar="SECONDS", min=0.1, max=YEAR_S, help="Between views; looks are taken more often."
    ),
]
AllowFlag = Annotated[
    list[str] | None,
    typer.Option("--allow", help="What may be done: demote, idle, boost, slice, reserve. Default: all. Repeatable."),
]
LeasesFlag = Annotated[
    Path | None,
    typer.Option("--leases", envvar="NPUOPS_LEASES", help="Folder for notes of what to put back. Default: the user's."),
]
FolderFlag = Annotated[Path | None, typer.Option("--policy-folder", help="Of a learned policy, as `train` made it.")]
PlacementFlag = Annotated[
    str, typer.Option("--placement", help="Where its network runs: auto, numpy, ort-cpu, or npu:DEVICE.")
]
ThresholdsFlag = Annotated[
    Path | None, typer.Option("--thresholds", help="Figures of the reactive rule, as `train` tuned them: TOML.")
]


def opted_in(
    pids: list[int] | None, children_of: list[int] | None, cgroups: list[str] | None, commands: list[str] | None
) -> Selection:
    """What the command line says of whom it is about.

    Raises:
        OptionError: it can select nobody, or everybody by mistake.
    """
    from npuops.hostsched.selection import Selection  # noqa: PLC0415 - help must not pay for it

    return Selection(
        pids=tuple(pids or ()),
        children_of=tuple(children_of or ()),
        cgroups=tuple(cgroups or ()),
        commands=tuple(commands or ()),
    )


def chosen_policy(
    name: str, folder: Path | None, placement: str, thresholds: Path | None, period_ms: float
) -> PolicyChoice:
    """What the command line says of who decides.

    Raises:
        OptionError: an option is of a policy that does not decide here: it would do nothing.
    """
    given = {"--policy-folder": folder is not None, "--placement": placement != AUTO}
    if name != LEARNED and (flag := next((flag for flag, is_given in given.items() if is_given), "")):
        raise OptionError(f"{flag} is of a learned policy, and {name} is to decide", advice="add --policy learned")
    if name not in RULED and thresholds is not None:
        raise OptionError(
            f"--thresholds are of the reactive rule, and {name} is to decide",
            advice="leave them out, or add --policy reactive",
        )
    from npuops.cli.hostsched_policy import PolicyChoice  # noqa: PLC0415 - help must not pay for it

    return PolicyChoice(
        name=name,
        folder=folder,
        placement=placement,
        thresholds=thresholds,
        period_us=round(period_ms * 1000),
    )
