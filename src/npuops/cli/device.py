"""`npuops device`: virtual NPUs, each a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from npuops.cli.device_words import complete_device
from npuops.cli.show import JsonFlag, console, print_json
from npuops.errors import UsageError

if TYPE_CHECKING:
    from npuops.vnpu.control_client import DeviceControl
    from npuops.vnpu.device_folder import DeviceFolder

SCHEMA = "npuops.device/1"
_PLAN_LIMIT_BYTES = 1 << 20

app = typer.Typer(
    name="device",
    help="Virtual NPUs: processes that behave like a chip. Every sub-command takes --json.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Name = Annotated[str, typer.Argument(autocompletion=complete_device, help="As given to `up --name`.")]


@app.command("up")
def up(
    target: Annotated[str | None, typer.Argument(help="The chip: vnpu:PROFILE.")] = None,
    name: Annotated[str, typer.Option("--name", help="What to call the device.")] = "npu0",
    spec: Annotated[Path | None, typer.Option("--spec", help="A chip of your own: TOML.")] = None,
    pacing: Annotated[
        str,
        typer.Option("--pacing", help="realtime (sleeps as long as the chip would work), fast, or manual (tests)."),
    ] = "realtime",
    seed: Annotated[int, typer.Option("--seed", help="Of everything that chance decides.")] = 0,
    plan: Annotated[Path | None, typer.Option("--plan", help="Faults that will come: TOML.")] = None,
    ambient: Annotated[
        float | None, typer.Option("--ambient", metavar="CELSIUS", help="Of the air around it; else the profile's.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Start a device; return when it has booted and takes clients."""
    from npuops.config import load_options  # noqa: PLC0415 - help must not pay for it
    from npuops.errors import OptionError, nearest  # noqa: PLC0415 - as above
    from npuops.vnpu.daemon import Order  # noqa: PLC0415 - as above
    from npuops.vnpu.device_folder import device_folder  # noqa: PLC0415 - as above
    from npuops.vnpu.device_spec import spec_of  # noqa: PLC0415 - as above
    from npuops.vnpu.device_switch import up as switch_on  # noqa: PLC0415 - as above
    from npuops.vnpu.pacing import Pacing  # noqa: PLC0415 - as above
    from npuops.vnpu.spec import MachineSpec  # noqa: PLC0415 - as above

    if (target is None) == (spec is None):
        raise UsageError("name one chip: vnpu:PROFILE, or --spec FILE.toml")
    if pacing not in list(Pacing):
        raise OptionError(f"no pacing is called {pacing!r}", advice=nearest(pacing, Pacing))
    machine = load_options(MachineSpec, spec) if spec is not None else spec_of(str(target))
    if ambient is not None:
        machine = machine.at_ambient(ambient)
    text = _plan_text(plan) if plan is not None else ""
    record = switch_on(Order(name=name, spec=machine, pacing=Pacing(pacing), seed=seed, plan=text))
    folder = device_folder(name)
    with _controlled(name) as client:
        status = client.status().telemetry
    if as_json:
        print_json({"schema": SCHEMA, **_plain(folder), "status": status.status, "why": status.why})
        return
    words = f"{name} is {status.status} ({status.why}): {record.profile}, {record.pacing}, process {record.pid}"
    console().print(words, markup=False)
    console().print(f"watch it: npuops devices --root {folder.home}", markup=False, soft_wrap=True)


@app.command("down")
def down(name: Name, as_json: JsonFlag = False) -> None:
    """End a device, or sweep up after one that was killed."""
    from npuops.vnpu.device_switch import down as switch_off  # noqa: PLC0415 - help must not pay for it

    was_up = switch_off(name)
    if as_json:
        print_json({"schema": SCHEMA, "name": name, "was_up": was_up})
        return
    console().print(f"{name} is down" if was_up else f"{name} was dead already; its files are gone now", markup=False)


@app.command("list")
def list_devices(as_json: JsonFlag = False) -> None:
    """Devices that are up, and those that were killed and not swept up yet."""
    from npuops.vnpu.device_folder import all_folders, devices_home  # noqa: PLC0415 - help must not pay for it

    rows = [_plain(folder) for folder in all_folders()]
    if as_json:
        print_json({"schema": SCHEMA, "root": str(devices_home()), "devices": rows})
        return
    for row in rows:
        known = (
            f"{row['profile']}  {row['pacing']}  process {row['pid']}" if row["pid"] else "left nothing about itself"
        )
        console().print(f"{row['name']}  {row['state']}  {known}", markup=False)
    if not rows:
        console().print("no virtual device; start one with: npuops device up vnpu:PROFILE --name npu0")


@app.command("status")
def status(name: Name, as_json: JsonFlag = False) -> None:
    """What the device shows, and who uses it."""
    from npuops.cli.device_text import status_page  # noqa: PLC0415 - help must not pay for it
    from npuops.vnpu.device_folder import device_folder  # noqa: PLC0415 - as above

    with _controlled(name) as client:
        found = client.status()
    telemetry = found.telemetry
    if as_json:
        plain = {**_plain(device_folder(name)), "uptime_us": found.uptime_us, "status": telemetry.status}
        print_json({"schema": SCHEMA, **plain, "telemetry": telemetry})
        return
    console().print(status_page(name, found.uptime_us, telemetry))


@app.command("inject")
def inject(
    name: Name,
    fault: Annotated[str | None, typer.Argument(help="Its kind, such as hang; a wrong one lists all.")] = None,
    clear: Annotated[bool, typer.Option("--clear", help="End every fault that lasts, instead.")] = False,
    seconds: Annotated[
        float | None, typer.Option("--for", metavar="SECONDS", help="Of the device's time; else until cleared.")
    ] = None,
    count: Annotated[int | None, typer.Option("--count", help="ecc_*: how many errors.")] = None,
    share: Annotated[float | None, typer.Option("--share", help="oom_pressure: of the free memory, 0 to 1.")] = None,
    op: Annotated[str | None, typer.Option("--op", help="wrong_output, unsupported_op: operator class.")] = None,
    rate: Annotated[float | None, typer.Option("--rate", help="wrong_output: share of the jobs, 0 to 1.")] = None,
    bit: Annotated[int | None, typer.Option("--bit", help="wrong_output: 0 (small errors) to 7.")] = None,
    factor: Annotated[float | None, typer.Option("--factor", help="slow_dma: times as long.")] = None,
    part: Annotated[str | None, typer.Option("--part", help="version_mismatch: driver, firmware, compiler.")] = None,
    version: Annotated[str | None, typer.Option("--version", help="version_mismatch: what it becomes.")] = None,
    priority: Annotated[str | None, typer.Option("--priority", help="noisy_neighbour: idle to realtime.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Let something go wrong, now."""
    if (fault is None) != clear:
        raise UsageError("either a fault or --clear", advice="npuops device inject npu0 hang")
    figures: dict[str, Any] = {
        "kind": fault,
        "for_s": seconds,
        "count": count,
        "share": share,
        "op": op,
        "rate": rate,
        "bit": bit,
        "factor": factor,
        "part": part,
        "version": version,
        "priority": priority,
    }
    given = {key: value for key, value in figures.items() if value is not None}
    with _controlled(name) as client:
        if clear:
            client.clear_faults()
        else:
            client.inject(given)
        _show_state(client, as_json=as_json)


@app.command("reset")
def reset(name: Name, as_json: JsonFlag = False) -> None:
    """Reset a device: what runs is lost; one that was off or crashed comes back, without its programs."""
    with _controlled(name) as client:
        client.reset()
        _show_state(client, as_json=as_json)


@app.command("firmware")
def firmware(
    name: Name,
    make: Annotated[
        Path | None, typer.Option("--make", help="Write an image, signed as the vendor of virtual devices would.")
    ] = None,
    version: Annotated[str | None, typer.Option("--version", help="Of the image to make, such as 3.3.0.")] = None,
    update: Annotated[
        Path | None, typer.Option("--update", help="Put this image into the flash; the next reset takes or refuses it.")
    ] = None,
    expect: Annotated[
        Path | None, typer.Option("--expect", help="The image that should be running, if not the last one installed.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Ask the device for a signed quote of what it booted, and verify it; or make or install an image."""
    from npuops.cli.device_firmware import attest, install, make_file  # noqa: PLC0415 - help must not pay for it
    from npuops.vnpu.device_folder import device_folder  # noqa: PLC0415 - as above

    folder = device_folder(name)
    if (make is None) != (version is None):
        raise UsageError("--make FILE goes with --version")
    if sum(each is not None for each in (make, update, expect)) > 1:
        raise UsageError("--make, --update and --expect are three different things: give one of them")
    if make is not None and version is not None:
        answer = make_file(folder, make, version)
    elif update is not None:
        with _controlled(name) as client:
            answer = install(client, folder, update)
    else:
        with _controlled(name) as client:
            answer = attest(client, folder, expect)
    _show_answer({"name": name, **answer}, as_json=as_json)


@app.command("quote")
def quote(
    name: Name,
    nonce: Annotated[
        str | None, typer.Option("--nonce", metavar="HEX", help="The verifier's; else a fresh one.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Keep the quote in this file.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Ask the device for its signed word for what it booted, for somebody else to verify."""
    from npuops.cli.device_firmware import ask_quote, read_nonce  # noqa: PLC0415 - help must not pay for it

    asked = read_nonce(nonce)
    with _controlled(name) as client:
        answer = ask_quote(client, asked, output)
    _show_answer({"name": name, **answer}, as_json=as_json)


@app.command("verify")
def verify(
    file: Annotated[Path, typer.Argument(help="What `quote -o` wrote.")],
    key: Annotated[Path, typer.Option("--key", help="The device's public key: HOME/NAME/device.pub.")],
    nonce: Annotated[str, typer.Option("--nonce", metavar="HEX", help="The one that you asked with.")],
    image: Annotated[str, typer.Option("--image-sha256", metavar="HEX", help="Of the firmware image that should run.")],
    config: Annotated[str, typer.Option("--config-sha256", metavar="HEX", help="Of the device's configuration.")],
    as_json: JsonFlag = False,
) -> None:
    """Verify a quote without the device: it is this device's, answers this nonce, and is of what should run."""
    from npuops.cli.device_firmware import verify_file  # noqa: PLC0415 - help must not pay for it

    _show_answer(verify_file(file, key=key, nonce=nonce, image=image, config=config), as_json=as_json)


def _show_answer(answer: dict[str, object], *, as_json: bool) -> None:
    if as_json:
        print_json({"schema": SCHEMA, **answer})
        return
    for key, value in answer.items():
        console().print(f"{key}: {value}", markup=False)


def _plan_text(path: Path) -> str:
    from npuops.artifacts.disk import read_small  # noqa: PLC0415 - help must not pay for it
    from npuops.errors import ArtifactError, OptionError, StorageError  # noqa: PLC0415 - as above

    try:
        text = read_small(path.resolve(), limit_bytes=_PLAN_LIMIT_BYTES).decode("utf-8")
    except (ArtifactError, StorageError, UnicodeDecodeError) as error:
        raise OptionError(f"{path} is no fault plan: {error}") from error
    if not text.strip():
        raise OptionError(f"{path} is no fault plan: it is empty")
    return text


def _controlled(name: str) -> DeviceControl:
    from npuops.vnpu.control_client import control  # noqa: PLC0415 - help must not pay for it

    return control(name)


def _plain(folder: DeviceFolder) -> dict[str, object]:
    record = folder.record()
    return {
        "name": folder.name,
        "state": "up" if folder.is_up() else "gone",
        "pid": record and record.pid,
        "profile": record and record.profile,
        "pacing": record and record.pacing,
        "number": record and record.number,
        "root": str(folder.home),
        "log": str(folder.log),
    }


def _show_state(client: DeviceControl, *, as_json: bool) -> None:
    telemetry = client.status().telemetry
    if as_json:
        plain = {"name": client.device, "status": telemetry.status, "why": telemetry.why}
        print_json({"schema": SCHEMA, **plain})
        return
    console().print(f"{client.device} is {telemetry.status}: {telemetry.why}", markup=False)
