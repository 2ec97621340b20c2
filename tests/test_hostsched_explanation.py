from __future__ import annotations

import numpy as np

from npuops.eevdf.setting import DEFAULT, Setting
from npuops.hostsched.agent_facts import AgentEnded, NetworkClosed, NotPutBack, Stepped
from npuops.hostsched.applied import Applied, Change, Denial
from npuops.hostsched.energy_meter import Energy
from npuops.hostsched.explanation import Decision, decision_lines, decisions
from npuops.hostsched.features import Features
from npuops.hostsched.frame import Frame, Host, Task, TaskId
from npuops.hostsched.guard import Checked, Refusal, Rule
from npuops.hostsched.hint import Hint, Kind
from npuops.hostsched.levels import BOOST, DEMOTE
from npuops.hostsched.plan import Forecast, Plan
from npuops.hostsched.run_summary import Summing
from npuops.hostsched.trace_wire import Entry

A, B = TaskId(11, 5), TaskId(12, 6)
NAMES = {A: "app 11", B: "hog 12"}
NICE = Change(B, DEFAULT, Setting(nice=19), back=False)
FORBIDDEN = Denial(A, "no way back", "nice 0 cannot be given back", "run it as root")


def frame(at_ms: int, served: int = 0, missed: int = 0) -> Frame:
    counters = np.array([[at_ms * 100_000, 0, 0, at_ms, 0], [at_ms * 900_000, 0, 0, 0, 0]], np.int64)
    return Frame(
        at_us=at_ms * 1000,
        tasks=(Task(A, 11, "app", None, 2), Task(B, 12, "hog", None, 2)),
        counters=counters,
        settings=(DEFAULT, DEFAULT),
        hints=(Hint(at_ms * 1000, Kind.LATENCY, slo_us=2000, served=served, missed=missed), None),
        group_nices={},
        host=Host(2, 2, 0, 0, None),
    )


def entry(at_ms: int, proposed: Plan, checked: Checked, applied: Applied | None = None) -> Entry:
    return Entry(frame=frame(at_ms), proposed=proposed, checked=checked, applied=applied)


LOWER = Plan({B: DEMOTE}, {B: "a hog while app waits"}, Forecast(0.02, 0.9), Forecast(0.4, 1.0))
REFUSED = Checked(Plan(), (Refusal(Rule.DWELL, B, "it entered demote 10 ms ago"),))


def words(found: list[Decision]) -> str:
    return "\n".join(line for decision in found for line in decision_lines(decision, NAMES))


def test_each_decision_says_what_was_seen_proposed_refused_and_done() -> None:
    entries = [
        entry(0, Plan(), Checked(Plan())),
        entry(200, LOWER, REFUSED),
        entry(220, LOWER, REFUSED),
        entry(240, LOWER, Checked(LOWER), Applied(changed=(NICE,), denied=(FORBIDDEN,))),
        entry(260, LOWER, Checked(LOWER), Applied(denied=(FORBIDDEN,))),
    ]
    found = list(decisions(entries))
    assert [decision.number for decision in found] == [2, 4], "what goes on unchanged is told once"
    assert words(found).splitlines() == [
        "    0.200 s  look 2: expects 2.0% late, slowest other at 90% (by default 40.0%, 100%)",
        "    seen      hog 12: runs 90 %, waits 0.0 %, 0 switches/s, nice 0",
        "    proposed  hog 12: normal → demote (nice 19): a hog while app waits",
        "    refused   hog 12: dwell: it entered demote 10 ms ago",
        "    0.240 s  look 4: expects 2.0% late, slowest other at 90% (by default 40.0%, 100%)",
        "    seen      hog 12: runs 90 %, waits 0.0 %, 0 switches/s, nice 0",
        "    holds     hog 12: normal → demote (nice 19): a hog while app waits",
        "    changed   task 12: nice 0 → nice 19",
        "    not done  task 11: no way back: nice 0 cannot be given back (run it as root)",
    ]


def test_every_look_can_be_shown_and_tasks_can_be_picked() -> None:
    entries = [
        entry(0, Plan(), Checked(Plan())),
        entry(20, Plan({A: BOOST, B: DEMOTE}), Checked(Plan()), Applied(gone=(B,))),
    ]
    assert len(list(decisions(entries, every=True))) == 2
    (decision,) = decisions(entries, lambda task: task.command == "app")
    assert [change.task for change in decision.wanted] == [A]
    assert decision.gone == ()


def test_what_concerns_everything_is_always_shown() -> None:
    whole = Checked(Plan(), (Refusal(Rule.STARVED, None, "hog got nothing"),), control=True)
    (decision,) = decisions([entry(0, LOWER, whole, Applied(revoked="late"))], lambda task: task.command == "nobody")
    text = words([decision])
    assert "everything: starved: hog got nothing" in text
    assert "for comparison" in text
    assert "all back  late" in text


def test_an_observed_trace_has_no_decisions() -> None:
    assert list(decisions([Entry(frame=frame(0)), Entry(frame=frame(20))])) == []


def test_the_summary_adds_up_what_happened_and_what_could_not_be_put_back() -> None:
    summing, features = Summing(), Features()
    steps = [
        (frame(0, served=100, missed=50), REFUSED, Applied()),
        (frame(500, served=150, missed=51), Checked(LOWER), Applied(changed=(NICE,), denied=(FORBIDDEN,))),
        (frame(1000, served=200, missed=52), Checked(LOWER), Applied(denied=(FORBIDDEN,))),
    ]
    for seen, checked, applied in steps:
        summing(
            Stepped(
                state=features.update(seen), proposed=LOWER, checked=checked, orders=None, applied=applied, late_us=0
            )
        )
    summing(NotPutBack(denials=(FORBIDDEN,)))
    summing(AgentEnded(steps=3, seconds=1.0, cpu_share=0.005, overruns=0))
    summing(NetworkClosed(inferences=3, modelled_mj=1.5))
    assert list(summing.summary(Energy(joules=12.34, words="RAPL: package-0")).lines()) == [
        "3 looks in 1.0 s at 2 tasks, which took 1.0 s of CPU",
        "levels: hog: demote 1×",
        "changed 1 things, 1 of them could NOT be put back",
        "refused by the guard: dwell 1×",
        "not done: no way back 1×",
        "app 11: 98 % of 100 answers within 2 ms",
        "the agent itself: 0.50 % of one core, 0 steps too long",
        "its NPU: 1.5 mJ for the policy's inferences (modelled)",
        "the machine: 12.3 J (RAPL: package-0)",
    ]
