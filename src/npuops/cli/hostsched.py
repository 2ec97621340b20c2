"""`npuops hostsched`: CPU scheduling that follows what runs now. One file for each verb."""

from __future__ import annotations

import typer

from npuops.cli.hostsched_act import act, advise, observe
from npuops.cli.hostsched_bench import bench
from npuops.cli.hostsched_correct import correct
from npuops.cli.hostsched_probe import probe
from npuops.cli.hostsched_replay import replay
from npuops.cli.hostsched_restore import restore
from npuops.cli.hostsched_run import run
from npuops.cli.hostsched_train import train
from npuops.cli.hostsched_validate import validate

app = typer.Typer(
    name="hostsched",
    help="CPU scheduling that follows what runs now: observe, advise, act. Every sub-command takes --json.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

app.command("probe")(probe)
app.command("observe")(observe)
app.command("advise")(advise)
app.command("act")(act)
app.command("run", context_settings={"allow_interspersed_args": False})(run)
app.command("restore")(restore)
app.command("replay")(replay)
app.command("train")(train)
app.command("correct")(correct)
app.command("bench")(bench)
app.command("validate")(validate)
