"""`npuops hostsched train`: a policy of one's own, from the simulator to artifacts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from npuops.cli.show import JsonFlag, console, print_json, progress
from npuops.errors import MissingToolchainError

if TYPE_CHECKING:
    from npuops.hostsched.policy_card import PolicyFolder
    from npuops.schedlab.build_policy import Built

SCHEMA = "npuops.hostsched.train/1"

OutFlag = Annotated[Path, typer.Option("--out", "-o", help="The policy's folder; made if absent, replaced if there.")]
SeedFlag = Annotated[int, typer.Option("--seed", help="Of the tuner and the network.")]
LessonsFlag = Annotated[
    int, typer.Option("--lessons", min=2, help="Simulated mixes to learn from before the first fit.")
]
RoundsFlag = Annotated[
    int, typer.Option("--rounds", min=0, help="Times that the network acts itself, and learns from what came of it.")
]
RoundLessonsFlag = Annotated[int, typer.Option("--round-lessons", min=1, help="Simulated mixes in each of these.")]
ThresholdsFlag = Annotated[
    Path | None, typer.Option("--thresholds", help="Figures of the reactive rule that the search begins with: TOML.")
]
GenerationsFlag = Annotated[
    int, typer.Option("--generations", min=0, help="Of the search for the reactive rule's figures; 0: no search.")
]
TrustLessonsFlag = Annotated[
    int, typer.Option("--trust-lessons", min=1, help="Mixes on which is found how far to trust the network.")
]
EpochsFlag = Annotated[int, typer.Option("--epochs", min=1, help="Of the first fit, at most.")]


def train(
    out: OutFlag,
    seed: SeedFlag = 0,
    thresholds: ThresholdsFlag = None,
    generations: GenerationsFlag = 10,
    lessons: LessonsFlag = 1800,
    rounds: RoundsFlag = 2,
    round_lessons: RoundLessonsFlag = 600,
    epochs: EpochsFlag = 24,
    trust_lessons: TrustLessonsFlag = 32,
    as_json: JsonFlag = False,
) -> None:
    """Tune the reactive rule, train the scorer, and build it for every target; under an hour on two cores."""
    try:
        from npuops.hostsched.reactive_options import load_reactive  # noqa: PLC0415 - help must not pay for it
        from npuops.schedlab.fit import FitOptions  # noqa: PLC0415 - as above
        from npuops.schedlab.training import TrainingOptions  # noqa: PLC0415 - as above
        from npuops.schedlab.training import train as go  # noqa: PLC0415 - as above
    except ImportError as error:
        raise MissingToolchainError(
            f"training needs {error.name}, which is not installed", advice='pip install "npuops[hostsched]"'
        ) from error
    options = TrainingOptions(
        seed=seed,
        thresholds=None if thresholds is None else load_reactive(thresholds),
        lessons=lessons,
        rounds=rounds,
        round_lessons=round_lessons,
        generations=generations,
        trust_lessons=trust_lessons,
        fit=FitOptions(seed=seed, epochs=epochs),
    )
    with progress(quiet=as_json) as observe:
        policy, built = go(out, options, observe=observe)
    if as_json:
        print_json(_document(out, policy, built))
        return
    for one in built:
        alike = one.choices.get("alike")
        words = f", decides like float32 in {alike:.0%} of states" if alike is not None else ", nothing runs it here"
        console().print(f"{one.target}: {one.bytes / 1024:.0f} KiB{words}", soft_wrap=True)
    console().print(
        f"policy in {out}; try it: npuops hostsched advise --policy learned --policy-folder {out}", soft_wrap=True
    )


def _document(out: Path, policy: PolicyFolder, built: tuple[Built, ...]) -> dict[str, object]:
    return {
        "schema": SCHEMA,
        "folder": str(out),
        "metrics": dict(policy.card.trained.metrics),
        "artifacts": [{"target": one.target, "bytes": one.bytes, "choices": dict(one.choices)} for one in built],
    }
