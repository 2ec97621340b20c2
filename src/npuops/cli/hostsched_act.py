"""`npuops hostsched observe`, `advise` and `act`: one loop, three ways to go about it."""

from __future__ import annotations

from npuops.cli.hostsched_flags import (
    AllowFlag,
    CgroupFlag,
    ChildFlag,
    ControlFlag,
    FolderFlag,
    ForFlag,
    IntervalFlag,
    LeasesFlag,
    MatchFlag,
    PeriodFlag,
    PidFlag,
    PlacementFlag,
    PlotFlag,
    PolicyFlag,
    RecordFlag,
    ShareFlag,
    ThresholdsFlag,
    chosen_policy,
    opted_in,
)
from npuops.cli.show import JsonFlag
from npuops.errors import UsageError


def observe(
    pid: PidFlag = None,
    children_of: ChildFlag = None,
    cgroup: CgroupFlag = None,
    match: MatchFlag = None,
    period: PeriodFlag = 20,
    cpu_share: ShareFlag = 1,
    interval: IntervalFlag = 1,
    seconds: ForFlag = None,
    record: RecordFlag = None,
    plot: PlotFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Look, and change nothing: who runs, who waits, what each is set to. Without a choice, everybody."""
    from npuops.cli.hostsched_session import Session  # noqa: PLC0415 - help must not pay for it

    Session(
        policy=None,
        period_ms=period,
        cpu_percent=cpu_share,
        interval_s=interval,
        seconds=seconds,
        record=record,
        plot=plot,
        as_json=as_json,
    ).watch(opted_in(pid, children_of, cgroup, match))


def advise(
    policy: PolicyFlag = "reactive",
    policy_folder: FolderFlag = None,
    placement: PlacementFlag = "auto",
    thresholds: ThresholdsFlag = None,
    pid: PidFlag = None,
    children_of: ChildFlag = None,
    cgroup: CgroupFlag = None,
    match: MatchFlag = None,
    allow: AllowFlag = None,
    period: PeriodFlag = 20,
    cpu_share: ShareFlag = 1,
    control_share: ControlFlag = 5,
    seconds: ForFlag = None,
    record: RecordFlag = None,
    plot: PlotFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Tell what a policy would do and why, and change nothing."""
    from npuops.cli.hostsched_session import Session  # noqa: PLC0415 - help must not pay for it

    Session(
        policy=chosen_policy(policy, policy_folder, placement, thresholds, period),
        allow=allow,
        period_ms=period,
        cpu_percent=cpu_share,
        control_percent=control_share,
        seconds=seconds,
        record=record,
        plot=plot,
        as_json=as_json,
    ).watch(opted_in(pid, children_of, cgroup, match))


def act(
    policy: PolicyFlag = "reactive",
    policy_folder: FolderFlag = None,
    placement: PlacementFlag = "auto",
    thresholds: ThresholdsFlag = None,
    pid: PidFlag = None,
    children_of: ChildFlag = None,
    cgroup: CgroupFlag = None,
    match: MatchFlag = None,
    allow: AllowFlag = None,
    period: PeriodFlag = 20,
    cpu_share: ShareFlag = 1,
    control_share: ControlFlag = 5,
    seconds: ForFlag = None,
    record: RecordFlag = None,
    plot: PlotFlag = None,
    leases: LeasesFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Let a policy set the tasks that opted in, and put all of them back at the end, whatever the end is."""
    from npuops.cli.hostsched_session import Session  # noqa: PLC0415 - help must not pay for it

    whom = opted_in(pid, children_of, cgroup, match)
    if not whom:
        raise UsageError(
            "nobody opted in: npuops changes only tasks that somebody named",
            advice="give --pid, --children-of, --cgroup or --match; or npuops hostsched run -- CMD",
        )
    Session(
        policy=chosen_policy(policy, policy_folder, placement, thresholds, period),
        allow=allow,
        acts=True,
        period_ms=period,
        cpu_percent=cpu_share,
        control_percent=control_share,
        seconds=seconds,
        record=record,
        plot=plot,
        leases=leases,
        as_json=as_json,
    ).watch(whom)
