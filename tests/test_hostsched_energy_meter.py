"""Energy meters on made-up trees of the kernel's layout, and on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from npuops.hostsched.energy_meter import NOT_MEASURED, Energy, EnergyMeter, energy_sources
from npuops.testing import ManualClock

SECOND = 1_000_000


def put(folder: Path, **files: str | int) -> Path:
    """A folder of sysfs with one value in each file."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / name).write_text(f"{value}\n")
    return folder


def zone(root: Path, folder: str, name: str, energy_uj: int, end: int = 1_000_000) -> Path:
    return put(root / "class/powercap" / folder, name=name, energy_uj=energy_uj, max_energy_range_uj=end)


def hwmon(root: Path, number: int, name: str, **files: int) -> Path:
    return put(root / f"class/hwmon/hwmon{number}", name=name, **files)


def battery(root: Path, **files: str | int) -> Path:
    return put(root / "class/power_supply/BAT0", type="Battery", status="Discharging", **files)


def measured(clock: ManualClock, meter: EnergyMeter, *moments: tuple[Path, str, int]) -> Energy:
    """The value of one file after each second, looked at then."""
    for folder, name, value in moments:
        put(folder, **{name: value})
        clock.advance(SECOND)
        meter.look()
    return meter.energy()


def test_packages_are_added_up_and_their_parts_and_the_platform_are_not(tmp_path: Path) -> None:
    first, second = zone(tmp_path, "intel-rapl:0", "package-0", 100), zone(tmp_path, "intel-rapl:1", "package-1", 7)
    others = [
        zone(tmp_path, "intel-rapl:0:0", "core", 5),
        zone(tmp_path, "intel-rapl:2", "psys", 5),
        zone(tmp_path, "intel-rapl-mmio:0", "package-0", 5),
    ]
    clock = ManualClock()
    meter = EnergyMeter(clock, tmp_path)
    for other in others:
        put(other, energy_uj=900_000)
    put(first, energy_uj=500_100)
    found = measured(clock, meter, (second, "energy_uj", 250_007))
    assert found.joules == pytest.approx(0.75)
    assert found.words == "RAPL: package-0, package-1, without memory and board"


def test_a_counter_that_began_again_behind_its_end_is_counted_through(tmp_path: Path) -> None:
    package, clock = zone(tmp_path, "intel-rapl:0", "package-0", 999_000, end=999_999), ManualClock()
    meter = EnergyMeter(clock, tmp_path)
    found = measured(clock, meter, (package, "energy_uj", 500), (package, "energy_uj", 600))
    assert found.joules == pytest.approx(1600e-6)


def test_power_is_summed_by_the_trapezoid_between_looks_whatever_the_clock_shows_first(tmp_path: Path) -> None:
    sensor, clock = hwmon(tmp_path, 0, "power_meter", power1_average=10_000_000), ManualClock(now_us=77 * SECOND)
    meter = EnergyMeter(clock, tmp_path)
    found = measured(clock, meter, (sensor, "power1_average", 20_000_000), (sensor, "power1_average", 0))
    assert found.joules == pytest.approx(15 + 10)


def test_it_reads_once_a_second_at_most(tmp_path: Path) -> None:
    sensor, clock = hwmon(tmp_path, 0, "power_meter", power1_average=10_000_000), ManualClock()
    meter = EnergyMeter(clock, tmp_path)
    put(sensor, power1_average=90_000_000)
    clock.advance(SECOND // 2)
    meter.look()
    put(sensor, power1_average=10_000_000)
    clock.advance(SECOND // 2)
    assert meter.energy().joules == pytest.approx(10)


def test_energy_of_sockets_holds_that_of_their_cores(tmp_path: Path) -> None:
    chip = put(
        tmp_path / "class/hwmon/hwmon3",
        name="amd_energy",
        energy1_input=10,
        energy1_label="Ecore000",
        energy9_input=1_000_000,
        energy9_label="Esocket0",
    )
    clock = ManualClock()
    meter = EnergyMeter(clock, tmp_path)
    put(chip, energy1_input=9_000_000)
    found = measured(clock, meter, (chip, "energy9_input", 4_000_000))
    assert (found.joules, found.words) == (pytest.approx(3), "hwmon: Esocket0")
    gone_back = measured(clock, meter, (chip, "energy9_input", 5))
    assert gone_back.joules is None
    assert "went back" in gone_back.words


def test_a_sensor_of_a_part_is_not_taken_for_the_machine(tmp_path: Path) -> None:
    hwmon(tmp_path, 0, "amdgpu", power1_average=9_000_000)
    assert EnergyMeter(ManualClock(), tmp_path).energy().joules is None
    assert "amdgpu" in energy_sources(tmp_path)[1].words


def test_two_sensors_that_may_overlap_are_not_added_up(tmp_path: Path) -> None:
    hwmon(tmp_path, 0, "power_meter", power1_average=9)
    hwmon(tmp_path, 1, "ina226", power1_input=9)
    found = EnergyMeter(ManualClock(), tmp_path).energy()
    assert found.joules is None
    assert "2 power sensors" in found.words


def test_a_battery_tells_energy_or_charge_and_voltage(tmp_path: Path) -> None:
    clock = ManualClock()
    by_energy = battery(tmp_path / "a", energy_now=1_000_000)
    meter = EnergyMeter(clock, tmp_path / "a")
    assert measured(clock, meter, (by_energy, "energy_now", 990_000)).joules == pytest.approx(36)
    by_charge = battery(tmp_path / "b", charge_now=100_000, voltage_now=12_000_000)
    meter = EnergyMeter(clock, tmp_path / "b")
    put(by_charge, voltage_now=10_000_000)
    found = measured(clock, meter, (by_charge, "charge_now", 99_000))
    assert found.joules == pytest.approx(3.6 * 11)


def test_a_battery_on_the_mains_measures_nothing_neither_from_the_beginning_nor_later(tmp_path: Path) -> None:
    supply = battery(tmp_path, energy_now=1_000_000)
    meter = EnergyMeter(ManualClock(), tmp_path)
    put(supply, status="Charging")
    later = meter.energy()
    assert (later.joules, "not discharging (Charging)" in later.words) == (None, True)
    assert EnergyMeter(ManualClock(), tmp_path).energy().joules is None


def test_the_battery_of_a_mouse_is_not_the_machines(tmp_path: Path) -> None:
    battery(tmp_path, energy_now=1_000_000, scope="Device")
    assert "no battery here" in EnergyMeter(ManualClock(), tmp_path).energy().words


@pytest.mark.parametrize("content", ["", "-5", "much", "1.5"])
def test_a_file_without_a_number_is_no_measure(tmp_path: Path, content: str) -> None:
    package = zone(tmp_path, "intel-rapl:0", "package-0", 5)
    meter = EnergyMeter(ManualClock(), tmp_path)
    put(package, energy_uj=content)
    found = meter.energy()
    assert found.joules is None
    assert "holds no number" in found.words


def test_a_meter_that_goes_away_leaves_no_figure_and_never_raises(tmp_path: Path) -> None:
    package = zone(tmp_path, "intel-rapl:0", "package-0", 5)
    clock = ManualClock()
    meter = EnergyMeter(clock, tmp_path)
    (package / "energy_uj").unlink()
    found = measured(clock, meter, (package, "name", 0))
    assert found.joules is None
    assert "No such file" in found.words
    assert str(found).startswith(NOT_MEASURED)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Without root's rights, if these are ours."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


def test_a_meter_for_root_only_is_told_and_the_next_best_is_taken() -> None:
    with TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        (zone(root, "intel-rapl:0", "package-0", 5) / "energy_uj").chmod(0)
        battery(root, energy_now=1_000_000)
        with as_nobody():
            assert "only root may read" in energy_sources(root)[0].words
            assert EnergyMeter(ManualClock(), root).energy().words.startswith("battery")


def test_a_meter_that_cannot_be_read_gives_way_to_the_next_best(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 5)
    put(tmp_path / "class/powercap/intel-rapl:0", energy_uj="?")
    battery(tmp_path, energy_now=1_000_000)
    assert EnergyMeter(ManualClock(), tmp_path).energy().words.startswith("battery")


def test_this_machine_tells_joules_or_why_there_are_none() -> None:
    found = EnergyMeter(ManualClock()).energy()
    if any(source.gauge is not None for source in energy_sources()):
        assert found.joules is not None
    else:
        assert str(found) == f"{NOT_MEASURED}: {found.words}"
        assert all(name in found.words for name in ("RAPL", "hwmon", "battery"))
