"""`npuops hostsched run -- CMD`: a command that opts in with all that descends from it."""

from __future__ import annotations

from typing import Annotated

import typer

from npuops.cli.hostsched_flags import (
    AllowFlag,
    ControlFlag,
    FolderFlag,
    LeasesFlag,
    PeriodFlag,
    PlacementFlag,
    PlotFlag,
    PolicyFlag,
    RecordFlag,
    ShareFlag,
    ThresholdsFlag,
    chosen_policy,
)
from npuops.cli.show import JsonFlag
from npuops.errors import OptionError, nearest

MODES = ("act", "advise", "observe")
USUAL = "reactive"


def run(
    command: Annotated[list[str], typer.Argument(metavar="-- CMD…", help="The command and its arguments.")],
    policy: PolicyFlag = USUAL,
    policy_folder: FolderFlag = None,
    placement: PlacementFlag = "auto",
    thresholds: ThresholdsFlag = None,
    mode: Annotated[str, typer.Option("--mode", help="act, advise, or observe.")] = "act",
    allow: AllowFlag = None,
    period: PeriodFlag = 20,
    cpu_share: ShareFlag = 1,
    control_share: ControlFlag = 5,
    record: RecordFlag = None,
    plot: PlotFlag = None,
    leases: LeasesFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Run a command, let a policy set its processes, and end as it ends.

    The terminal and the standard streams are the command's; npuops speaks on standard error, and sums up at the end.
    """
    from npuops.cli.hostsched_session import Session  # noqa: PLC0415 - help must not pay for it

    if mode not in MODES:
        raise OptionError(f"no mode is called {mode!r}", advice=nearest(mode, MODES))
    chosen = chosen_policy(policy, policy_folder, placement, thresholds, period)
    if mode == "observe" and (policy != USUAL or allow or thresholds is not None):
        raise OptionError("--mode observe decides nothing", advice="leave out the policy's options, or --mode advise")
    code = Session(
        policy=None if mode == "observe" else chosen,
        allow=allow,
        acts=mode == "act",
        period_ms=period,
        cpu_percent=cpu_share,
        control_percent=control_share,
        record=record,
        plot=plot,
        leases=leases,
        as_json=as_json,
    ).run(command)
    raise typer.Exit(code)
