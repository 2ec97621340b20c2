"""One run of the agent from the command line: whom it is about, who is told, and how it ends."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from npuops.cli.hostsched_plot import Looks, refuse_plot, write_plot
from npuops.cli.hostsched_policy import PolicyChoice, open_choice
from npuops.cli.hostsched_show import Narrator
from npuops.cli.lossy_output import say_at_once
from npuops.clock import SystemClock
from npuops.errors import NpuopsError, OptionError
from npuops.events import Event, Observer
from npuops.hostsched.agent import Agent
from npuops.hostsched.agent_facts import AgentEnded, Mode
from npuops.hostsched.assembly import AgentOptions, assembled
from npuops.hostsched.command import FORWARDED, Command
from npuops.hostsched.energy_meter import Energy, EnergyMeter
from npuops.hostsched.pace import Pace
from npuops.hostsched.run_summary import Summing
from npuops.hostsched.selection import Selection
from npuops.hostsched.service_notice import ServiceNotice
from npuops.hostsched.timeline import text_timeline
from npuops.hostsched.wakeup import ENDING, Wakeup

EVERYBODY: Final = Selection(commands=("?*",))
"""To look at, never to change: `act` refuses to begin without a choice."""
IsOver = Callable[[tuple[int, ...]], bool]


@dataclass(kw_only=True)
class Session:
    """As the verb's options say.

    Attributes:
        policy: None: observe.
        allow: what may be done; None: everything.
        acts: the kernel is told.
        period_ms: between looks.
        cpu_percent: of one core that the agent may take on average.
        control_percent: of the time of a policy that forecasts, in which they are not followed, for comparison.
        interval_s: between views.
        seconds: after which it ends by itself.
        record: file of the trace.
        plot: file of the plot.
        leases: folder for notes of what to put back; None: this user's.
        as_json: for programs.
    """

    policy: PolicyChoice | None
    allow: list[str] | None = None
    acts: bool = False
    period_ms: float = 20
    cpu_percent: float = 1
    control_percent: float = 5
    interval_s: float = 1
    seconds: float | None = None
    record: Path | None = None
    plot: Path | None = None
    leases: Path | None = None
    as_json: bool = False
    _clock: SystemClock = field(default_factory=SystemClock)

    @property
    def mode(self) -> Mode:
        """How far it goes."""
        if self.policy is None:
            return Mode.OBSERVE
        return Mode.ACT if self.acts else Mode.ADVISE

    def watch(self, whom: Selection) -> None:
        """Until a signal, or until the time is over.

        Raises:
            NpuopsError: an option is wrong, something is missing, or the kernel does not answer; all is put back.
        """
        end_us: int | None = None

        def is_over(caught: tuple[int, ...]) -> bool:
            nonlocal end_us
            if self.seconds is not None and end_us is None:  # asked for the first time: everything is ready
                end_us = self._clock.now_us() + round(self.seconds * 1e6)
            return bool(caught) or (end_us is not None and self._clock.now_us() >= end_us)

        with Wakeup(self._clock.now_us, ENDING) as wakeup:
            self._run(wakeup, is_over, lambda: whom or EVERYBODY, quiet=False)

    def run(self, words: Sequence[str]) -> int:
        """Until the command ends; its exit code.

        Raises:
            NpuopsError: as `watch`, before the command was started.
        """
        started: list[Command] = []

        def start() -> Selection:
            started.append(Command(words))
            started[0].hand_on(wakeup.caught())
            return Selection(children_of=(os.getpid(),))

        def is_over(caught: tuple[int, ...]) -> bool:
            return started[0].is_over(caught)

        with Wakeup(self._clock.now_us, FORWARDED) as wakeup:
            try:
                self._run(wakeup, is_over, start, quiet=True)
            except Exception as error:  # whatever it is, the command goes on as if we had never been there
                if not started:
                    raise
                _tell_failure(error, goes_on=not started[0].is_over(()))
                while not started[0].is_over(wakeup.caught()):
                    wakeup.sleep_until(self._clock.now_us() + 1_000_000)
            return started[0].exit_code()

    def _run(self, wakeup: Wakeup, is_over: IsOver, whom: Callable[[], Selection], *, quiet: bool) -> None:
        pace = Pace(round(self.period_ms * 1000), self.cpu_percent / 100)
        if self.plot is not None:
            refuse_plot(self.plot)
        if self.acts and self.leases is not None and not self.leases.is_dir():
            raise OptionError(f"--leases: there is no folder {self.leases}", advice=f"mkdir -m 700 {self.leases}")
        summing, looks = Summing(), Looks() if self.plot is not None or self.record is not None else None
        narrator = Narrator(self.mode, as_json=self.as_json, interval_us=round(self.interval_s * 1e6), quiet=quiet)
        observers: list[Observer] = [summing, narrator, *([looks] if looks is not None else [])]
        meter = EnergyMeter(self._clock)

        def tell(event: Event) -> None:
            meter.look()
            for observer in observers:
                observer(event)

        with narrator:
            ended = self._stepped(wakeup, is_over, whom, pace, narrator, tell)
            self._tell_end(ended, narrator, summing, looks, meter.energy())

    def _stepped(
        self,
        wakeup: Wakeup,
        is_over: IsOver,
        whom: Callable[[], Selection],
        pace: Pace,
        narrator: Narrator,
        tell: Observer,
    ) -> AgentEnded:
        """From the first step to the last; everything is put back when it returns."""
        notice = ServiceNotice()
        with ExitStack() as stack:
            stack.callback(notice.close)
            stack.enter_context(narrator.table)
            chosen = None if self.policy is None else stack.enter_context(open_choice(self.policy, tell))
            options = AgentOptions(
                policy=None if chosen is None else chosen.policy,
                ranges=None if chosen is None else chosen.ranges,
                acts=self.acts,
                allow=tuple(self.allow or ()),
                control_share=self.control_percent / 100,
                period_us=pace.wanted_us,
                record=self.record,
                leases=self.leases,
            )
            assembly = stack.enter_context(assembled(options, whom, tell))
            agent = Agent(assembly.parts, pace, self._clock, observe=assembly.observe, notice=notice)
            return agent.run(wakeup, is_over)

    def _tell_end(
        self, ended: AgentEnded, narrator: Narrator, summing: Summing, looks: Looks | None, energy: Energy
    ) -> None:
        summing(ended)
        line = None if looks is None else looks.timeline()
        if line is not None and not self.as_json:
            narrator.plain(text_timeline(line))
        narrator.ended(summing.summary(energy))
        if line is not None and self.plot is not None:
            write_plot(self.plot, line)  # behind the last word, which is told also if there is no room for it


def _tell_failure(error: Exception, *, goes_on: bool) -> None:
    """After everything was put back."""
    ours = isinstance(error, NpuopsError)
    words = error.message if isinstance(error, NpuopsError) else f"a defect in npuops: {error!r}"
    goes_on_words = "; the command goes on by itself" if goes_on else ""
    trace = "" if ours else "".join(traceback.format_exception(error))
    say_at_once(f"{trace}npuops: error: {words}{goes_on_words}\n")
