"""Plays of an experiment as they are kept, made by hand."""

from __future__ import annotations

from npuops.eevdf.mix import Doing
from npuops.schedlab.outcome import Outcome, Part
from npuops.schedlab.played import SCHEMA, AgentCost, Head, Played, ProgramPlayed
from npuops.schedlab.program_outcome import ProgramOutcome
from npuops.schedlab.recording import Origin

MIXES = ("four-phase", "crowd")


def made_head(**changes: object) -> Head:
    found = {
        "schema": SCHEMA,
        "on": Origin.KERNEL,
        "seed": 1,
        "quick": False,
        "kernel": "6.18",
        "cpus": 2,
        "version": "0",
        "began_unix_us": 1,
        "calibration": None,
        "statics": {},
        "statics_here": {},
        "control_share": 0.0,
    }
    return Head(**{**found, **changes})  # type: ignore[arg-type]


def made_outcome(
    label: str,
    *,
    mix: str = "four-phase",
    repeat: int = 0,
    kept: int = 50,
    progress: float = 100.0,
    p99_us: float = 10.0,
) -> Outcome:
    """A hundred requests of A, of which so many were answered in time, and B's progress."""
    blank = {"phase": 0, "cpu_us": 10, "voluntary": 3, "involuntary": 4}
    app = Part(
        player="A",
        doing=Doing.SERVE,
        arrivals=100,
        served=100,
        in_slo=kept,
        p50_us=1.0,
        p99_us=p99_us,
        max_us=p99_us,
        progress=0,
        **blank,
    )
    batch = Part(
        player="B",
        doing=Doing.COMPUTE,
        arrivals=0,
        served=0,
        in_slo=0,
        p50_us=None,
        p99_us=None,
        max_us=None,
        progress=progress,
        **blank,
    )
    return Outcome(
        mix=mix,
        seed=1000 + repeat,
        setting=label,
        origin=Origin.KERNEL,
        duration_us=1_000_000,
        clean_share=1.0,
        p50_us=1.0,
        p99_us=p99_us,
        parts=(app, batch),
    )


def made_cost(share: float = 0.005, stuck: int = 0) -> AgentCost:
    return AgentCost(cpu_share=share, own_share=share, looks=9, changed=9, stuck=stuck, slowed=0, refused={}, denied={})


def made_plays(label: str, repeats: int = 3, *, share: float | None = None, **figures: float) -> list[Played]:
    """On both mixes."""
    return [
        Played(
            mix=mix,
            label=label,
            repeat=repeat,
            tries=1,
            outcome=made_outcome(label, mix=mix, repeat=repeat, **figures),  # type: ignore[arg-type]
            agent=None if share is None else made_cost(share),
        )
        for mix in MIXES
        for repeat in range(repeats)
    ]


def made_program_plays(
    label: str,
    repeats: int = 3,
    *,
    load: str = "redis-build",
    kept: int = 50,
    batch: float = 100.0,
    share: float | None = None,
) -> list[ProgramPlayed]:
    """A hundred requests of redis, of which so many were answered in time, and what was built beside it."""
    return [
        ProgramPlayed(
            load=load,
            label=label,
            repeat=repeat,
            tries=1,
            outcome=ProgramOutcome(
                load=load,
                setting=label,
                seed=1000 + repeat,
                seconds=2.0,
                slo_us=2000,
                arrivals=100,
                served=100,
                in_slo=kept,
                p50_us=1.0,
                p99_us=10.0,
                max_us=20.0,
                batch_per_s=batch,
                batch_unit="objects",
                clean_share=1.0,
                client_ahead=True,
            ),
            agent=None if share is None else made_cost(share),
        )
        for repeat in range(repeats)
    ]
