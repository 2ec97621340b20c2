"""`npuops profiles`: the chips that the predictor and the virtual device know, and where every figure comes from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from npuops.cli.profiles_transfer import transfer
from npuops.cli.show import JsonFlag, console, print_json, progress
from npuops.errors import UsageError

if TYPE_CHECKING:
    from npuops.vnpu.figures import Figure
    from npuops.vnpu.profile import Profile

LIST_SCHEMA = "npuops.profiles/1"
SCHEMA = "npuops.chip-profile/1"

app = typer.Typer(
    name="profiles",
    help="Chips that npuops knows, with the source of every figure.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


app.command("transfer")(transfer)


@app.callback(invoke_without_command=True)
def profiles(context: typer.Context, as_json: JsonFlag = False) -> None:
    """List the bundled profiles."""
    if context.invoked_subcommand is None:
        list_profiles(as_json)
    elif as_json:
        raise UsageError(
            "--json belongs behind the sub-command", advice=f"npuops profiles {context.invoked_subcommand} …"
        )


@app.command("list")
def list_profiles(as_json: JsonFlag = False) -> None:
    """List the bundled profiles."""
    from npuops.vnpu.profile import load_profile, profile_names  # noqa: PLC0415 - help must not pay for it

    found = [load_profile(name) for name in profile_names()]
    if as_json:
        print_json({"schema": LIST_SCHEMA, "profiles": [_row(profile) for profile in found]})
        return
    from npuops.cli.profiles_text import table_of  # noqa: PLC0415 - JSON must not pay for it

    console().print(table_of(found))


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="A bundled profile, or the path of one of your own.")],
    as_json: JsonFlag = False,
) -> None:
    """Every figure of a profile with its source; fitted rates beside the nominal peak."""
    from npuops.vnpu.profile import load_profile  # noqa: PLC0415 - help must not pay for it

    profile = load_profile(name)
    if as_json:
        print_json(_plain(profile))
        return
    from npuops.cli.profiles_text import page_of  # noqa: PLC0415 - JSON must not pay for it

    console().print(page_of(profile))


@app.command("fit")
def fit(
    rows: Annotated[Path, typer.Argument(help="CSV with the columns model, latency_ms, and optionally format, group.")],
    profile: Annotated[str, typer.Option("--profile", "-p", help="The chip's profile: a bundled name, or a path.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The calibrated profile, as TOML.")],
    as_json: JsonFlag = False,
) -> None:
    """Calibrate a chip's profile on latencies measured on your own board, with the error it will have."""
    from npuops.report.output_file import refuse_place  # noqa: PLC0415 - help must not pay for it
    from npuops.vnpu.calibrate import calibrate  # noqa: PLC0415 - as above

    refuse_place(output)
    with progress(quiet=as_json) as observe:
        calibrated = calibrate(rows, profile, output, observe=observe)
    if as_json:
        print_json(_plain(calibrated))
        return
    from npuops.cli.profiles_text import page_of  # noqa: PLC0415 - JSON must not pay for it

    console().print(page_of(calibrated))
    console().print(f"wrote {output}")


def _row(profile: Profile) -> dict[str, object]:
    return {
        "name": profile.name,
        "title": profile.title,
        "vendor": profile.vendor,
        "peak_int8_tops": profile.compute.peak_int8_tops.value,
        "sram_kib": profile.memory.sram_kib.value,
        "dram_gbps": profile.memory.dram_gbps.value,
        "formats": profile.formats,
        "effective_error": None if profile.effective is None else profile.effective.error,
    }


def _plain(profile: Profile) -> dict[str, object]:
    effective = profile.effective
    return {
        "schema": SCHEMA,
        "name": profile.name,
        "title": profile.title,
        "vendor": profile.vendor,
        "published_device": profile.published_device,
        "formats": profile.formats,
        "notes": profile.notes,
        "figures": {
            section: {key: _figure(figure) for key, figure in figures.items()}
            for section, figures in profile.figures.items()
        },
        "nominal_rates": profile.nominal_rates,
        "effective": None
        if effective is None
        else {
            "rates": effective.rates,
            "from": effective.source,
            "interval": effective.interval,
            "error": effective.error,
            "folds": sorted(effective.folds),
            "utilisation": profile.utilisation,
        },
    }


def _figure(figure: Figure[object]) -> dict[str, object]:
    return {"value": figure.value, "from": figure.key, "origin": figure.origin, "source": figure.source}
