"""The command `npuops`. A verb's module is imported only when that verb is called, so help stays fast."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from typing import Annotated, Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

from npuops import __version__
from npuops.cli.ending import ending_errors

ASK_AGAIN_S: Final = 0.05

VERBS: Final[dict[str, str]] = {
    "targets": "What is here, what it can do, and why not.",
    "devices": "What is plugged in: health and why, load, memory, clock, temperature, power.",
    "device": "A virtual NPU: up, down, status, faults, reset, firmware.",
    "profiles": "The chips that the predictor and the virtual NPU know, with the source of every figure.",
    "inspect": "A model's layers with shapes, MACs and bytes.",
    "check": "Will it run there: placement, fit, latency, energy, and what to change.",
    "prune": "Remove weights or channels before quantization, with the accuracy it costs.",
    "build": "Check, quantize, compile, prove and gate a model: one verified artifact.",
    "run": "Run an artifact on an input.",
    "serve": "Serve artifacts over HTTP and gRPC, as KServe and Triton do.",
    "profile": "Where an artifact's time goes, per operator; HTML report.",
    "gate": "Judge an artifact by a policy, for CI/CD.",
    "compare": "Two artifacts side by side.",
    "sign": "Sign an artifact (DSSE, in-toto statement).",
    "verify": "Verify an artifact's digests and signature.",
    "cache": "What the compile cache holds; make room.",
    "bench": "Load a server: latency percentiles against load.",
    "hostsched": "CPU scheduling that follows what runs now: observe, advise, act, put back.",
    "demo": "The whole story on the bundled model, no argument.",
}
"""Verb → one line of help. The verb's module is `npuops.cli.<verb>`; its function is `command`, or `app` its group."""


class LazyVerb(TyperCommand):
    """Stands in a group's list for a verb that is not imported yet."""

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **extra: Any) -> Any:
        """Import the verb and let it make its own context."""
        return _load(str(self.name)).make_context(info_name, args, *rest, **extra)


class Verbs(TyperGroup):
    """A group that knows its verbs by name and imports one when it is called."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb. Its errors end here, before typer would word an interrupt and a closed pipe by itself."""
        with ending_errors(_own_words(sys.argv)):
            return super().invoke(ctx)

    def list_commands(self, ctx: Any) -> list[str]:
        """All verbs, in the order of a day's work."""
        del ctx
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> LazyVerb | None:
        """The stand-in, or None for a word that is no verb."""
        del ctx
        if cmd_name not in VERBS:
            return None
        return LazyVerb(cmd_name, help=VERBS[cmd_name], rich_markup_mode=None)


app = typer.Typer(
    cls=Verbs,
    name="npuops",
    help="Takes a neural network to an NPU and keeps it healthy there.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"npuops {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and end.", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    del version


def _own_words(arguments: list[str]) -> list[str]:
    """Up to `--`: what stands behind it is a command's, also its `--json`."""
    return arguments[: arguments.index("--")] if "--" in arguments else arguments


def _load(verb: str) -> Any:
    module = importlib.import_module(f"npuops.cli.{verb.replace('-', '_')}")
    if isinstance(getattr(module, "app", None), typer.Typer):  # some verbs import npuops.app
        return typer.main.get_command(module.app)
    single = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    single.command(verb, help=VERBS[verb])(module.command)
    return typer.main.get_command(single)


def main() -> None:
    """Entry point: an error of ours ends in its message, its advice and its exit code."""
    _prepare_streams()
    signal.signal(signal.SIGTERM, _stop)
    sys.unraisablehook = _unraisable
    app()


def _prepare_streams() -> None:
    """A closed stream would make the next file that is opened the output; a name must not fail in any locale."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 - open until the end
    output: Any = sys.stdout
    output.reconfigure(errors="backslashreplace")


def _stop(number: int, frame: object) -> None:
    """End as the shell counts a signal, but clean up on the way: a cancelled CI job sends SIGTERM."""
    del frame
    raise SystemExit(128 + number)


def _unraisable(told: Any) -> None:
    """A signal that arrives in a destructor, or while an extension module sets itself up, would be lost: ask again."""
    asked = {KeyboardInterrupt: signal.SIGINT, SystemExit: signal.SIGTERM}.get(told.exc_type)
    if asked is None:
        sys.__unraisablehook__(told)
    else:
        # Not at once: it would be lost in here.
        again = threading.Timer(ASK_AGAIN_S, os.kill, (os.getpid(), asked))
        again.daemon = True
        again.start()


if __name__ == "__main__":
    main()
