"""What real programs are played under: nothing, static settings of what answers or works in bulk, or the agent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path

from npuops.eevdf.setting import SchedPolicy, Setting
from npuops.hostsched.group_knobs import autogroup_of, write_native
from npuops.hostsched.knobs import AdmissionError, KnobError, NotPermittedError, TaskGoneError, write_setting
from npuops.private_folder import private_folder
from npuops.schedlab.agent_process import AgentProcess, running_agent
from npuops.schedlab.process_family import run_ns
from npuops.schedlab.program_play import Rival
from npuops.schedlab.program_roles import ProgramRole, Roles
from npuops.schedlab.rivals import ByAgent
from npuops.schedlab.theatre import CannotPlayError


def left_alone(roles: Roles) -> AbstractContextManager[None]:  # noqa: ARG001 - whoever they are
    """The default setting."""
    return nullcontext()


def niced(nice: int) -> Rival:
    """Each thread that answers, at this nice value: it counts only against tasks of the same session."""
    return _set_once(lambda roles: _each_thread(roles.latency, Setting(nice=nice)))


def sliced(slice_us: int) -> Rival:
    """Each thread that answers, with this slice: it comes sooner than others of its session."""
    return _set_once(lambda roles: _each_thread(roles.latency, Setting(slice_us=slice_us)))


def policed(policy: SchedPolicy) -> Rival:
    """Each thread that works in bulk, and what it starts later, under SCHED_BATCH or SCHED_IDLE."""
    return _set_once(lambda roles: _each_thread(roles.batch, Setting(policy)))


def weighted(nice: int) -> Rival:
    """Each session that answers, as an autogroup, at this nice value: it counts against other sessions."""
    return _set_once(lambda roles: _each_session(roles.latency, nice))


def batch_weighted(nice: int) -> Rival:
    """Each session that works in bulk, likewise."""
    return _set_once(lambda roles: _each_session(roles.batch, nice))


def reserved(runtime_us: int, period_us: int) -> Rival:
    """A reservation for each thread that answers, those with most CPU time first, as many as the kernel admits.

    A thread that its program pinned gets none: the kernel refuses. If no thread gets one, entering it raises that.
    """
    wanted = Setting(SchedPolicy.DEADLINE, runtime_us=runtime_us, period_us=period_us, reset_on_fork=True)
    return _set_once(lambda roles: _as_many_as_fit(roles, wanted))


def under_agent(
    rival: ByAgent, *, hints: bool = True, record: Path | None = None, arguments: Sequence[str] = ()
) -> Rival:
    """The real agent, told the first process of each program, as a user would start it.

    Args:
        rival: which policy.
        hints: it hears what programs tell; otherwise it listens where nobody speaks.
        record: file of its trace; None: it keeps none.
        arguments: more of them, for its command line.
    """

    @contextmanager
    def run(roles: Roles) -> Iterator[AgentProcess]:
        whom = [word for pid in roles.roots for word in ("--children-of", str(pid))]
        with ExitStack() as stack:
            folder = roles.folder if hints else stack.enter_context(private_folder())
            yield stack.enter_context(running_agent(rival, (), folder, arguments=[*whom, *arguments], record=record))

    return run


def _set_once(change: Callable[[Roles], None]) -> Rival:
    """Nothing is put back: the programs end with the play."""

    @contextmanager
    def setting(roles: Roles) -> Iterator[None]:
        change(roles)
        yield None

    return setting


def _each_thread(roles: Sequence[ProgramRole], setting: Setting) -> None:
    for tid in (tid for role in roles for tid in role.tids()):
        with suppress(TaskGoneError):
            write_setting(tid, setting)


def _each_session(roles: Sequence[ProgramRole], nice: int) -> None:
    found = {}
    for pid in (pid for role in roles for pid in role.pids()):
        if (seen := autogroup_of(pid)) is not None:
            found[seen[0]] = pid
    if not found:
        raise CannotPlayError("this kernel makes no autogroups", advice="see /proc/sys/kernel/sched_autogroup_enabled")
    for group, pid in found.items():
        with suppress(TaskGoneError):
            write_native(group, nice, pid)


def _as_many_as_fit(roles: Roles, setting: Setting) -> None:
    given = 0
    refusal: KnobError | None = None
    for tid in _busiest_first(roles):
        try:
            write_setting(tid, setting)
            given += 1
        except TaskGoneError:
            continue
        except NotPermittedError as error:  # a thread that its program pinned; others may not be
            refusal = error
        except AdmissionError as error:
            refusal = error
            break
    if not given and refusal is not None:
        raise refusal


def _busiest_first(roles: Roles) -> list[int]:
    tids = [tid for role in roles.latency for tid in role.tids()]
    return sorted(tids, key=run_ns, reverse=True)
