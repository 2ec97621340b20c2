"""`npuops hostsched correct`: what this kernel says of a policy's forecasts, folded into its weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from npuops.cli.show import JsonFlag, console, print_json, progress
from npuops.errors import MissingToolchainError

if TYPE_CHECKING:
    from npuops.hostsched.policy_card import Line, PolicyFolder
    from npuops.schedlab.build_policy import Built
    from npuops.schedlab.residual import Measured

SCHEMA = "npuops.hostsched.correct/1"

FolderArgument = Annotated[Path, typer.Argument(metavar="FOLDER", help="A learned policy; it stays as it is.")]
OutFlag = Annotated[Path, typer.Option("--out", "-o", help="Folder of the corrected one; made if absent.")]
PlaysFlag = Annotated[
    int, typer.Option("--plays", min=4, max=1000, help="Loads that are played under it and under the default.")
]
TriesFlag = Annotated[int, typer.Option("--tries", min=1, max=20, help="Of a play that others disturbed.")]
UncleanFlag = Annotated[
    bool, typer.Option("--unclean", help="Count plays in that others disturbed; they are told in the card.")
]


def correct(
    folder: FolderArgument,
    out: OutFlag,
    plays: PlaysFlag = 16,
    tries: TriesFlag = 2,
    unclean: UncleanFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Measure a learned policy's forecasts on this kernel, and build it again with what that says; some minutes."""
    from npuops.hostsched.policy_card import open_policy  # noqa: PLC0415 - help must not pay for it

    try:
        from npuops.schedlab.residual import MeasureOptions  # noqa: PLC0415 - as above
        from npuops.schedlab.residual import correct as go  # noqa: PLC0415 - as above
    except ImportError as error:
        raise MissingToolchainError(
            f"correcting needs {error.name}, which is not installed", advice='pip install "npuops[hostsched]"'
        ) from error
    options = MeasureOptions(plays=plays, tries=tries, unclean=unclean)
    with progress(quiet=as_json) as observe:
        policy, measured, built = go(open_policy(folder), out, options, observe=observe)
    if as_json:
        print_json(_document(out, policy, measured, built))
        return
    found = policy.card.correction
    if found is not None:
        _tell("late answers", "windows", found.miss)
        _tell("progress", "phases of batch work", found.progress)
    if measured.left_out or measured.unclean:
        words = f"{measured.left_out} plays left out, {measured.unclean} counted in, that others disturbed"
        console().print(words, soft_wrap=True)
    console().print(f"policy in {out}; compare both: npuops hostsched bench --policy-folder {out}", soft_wrap=True)


def _tell(what: str, samples: str, line: Line) -> None:
    if line.before is None or line.after is None:
        console().print(f"{what}: left as it is, {line.samples} {samples} are too few", soft_wrap=True)
        return
    loss = f"loss of plays left out {line.before:.4f} → {line.after:.4f}, {line.samples} {samples}"
    done = "left as it is" if line.is_identity else f"times {line.scale:.3f}, plus {line.shift:+.3f}"
    console().print(f"{what}: {done} ({loss})", soft_wrap=True)


def _document(out: Path, policy: PolicyFolder, measured: Measured, built: tuple[Built, ...]) -> dict[str, object]:
    return {
        "schema": SCHEMA,
        "folder": str(out),
        "correction": policy.card.correction,
        "left_out": measured.left_out,
        "artifacts": [{"target": one.target, "bytes": one.bytes, "choices": dict(one.choices)} for one in built],
    }
