"""The bundled chips load and make possible machines; a file that contradicts itself is refused with its key."""

from __future__ import annotations

import csv
import re
from importlib.resources import files
from pathlib import Path

import pytest

from npuops.errors import OptionError
from npuops.vnpu.figures import Origin
from npuops.vnpu.perf import FORMATS
from npuops.vnpu.profile import geometry_of, load_profile, machine_spec, profile_names, read_profile
from npuops.vnpu.thermal import Network
from npuops.vnpu.work import Fold

NAMES = [
    *("ax650n", "bm1684x", "coral-edgetpu", "dpu-b4096", "ethos-u85-512", "hailo-8"),
    *("hexagon-v68", "hexagon-v73", "hexagon-v75", "hexagon-v79", "intel-npu-3720", "intel-npu-4"),
    *("orin-dla", "rdk-x5", "rk3566", "rk3576", "rk3588", "rv1126", "stm32n6", "x-elite"),
]
RK3588 = files("npuops.vnpu").joinpath("profiles/rk3588.toml").read_text(encoding="utf-8").partition("[effective]")[0]
EFFECTIVE = """
[effective]
from = "fitted on 37 rows of npu_latency_published.csv, npuops profiles fit, 2026-11-22"
rates = { "mac.dense" = 2.2, "mac.depthwise" = 20.0, "memory.weights" = 90.0 }
interval = { low = 0.8, high = 1.3 }
error = { mape = 0.11, median = 0.08, within_10 = 0.62, rows = 37, how = "leave one family out" }
"""


def test_the_twenty_chips_are_there() -> None:
    assert list(profile_names()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_bundled_chip_is_a_possible_machine(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    assert set(profile.formats) <= set(FORMATS)
    spec = machine_spec(profile)
    assert (spec.name, spec.cores) == (name, profile.compute.cores.value)
    assert spec.top_mhz == profile.compute.clock_mhz.value
    hottest = Network(spec.thermal).final(spec.busy_w).junction_c
    assert hottest < spec.thermal.critical_c, "full load must not switch the chip off before it throttles"
    geometry = geometry_of(profile)
    assert geometry.sram_bytes == profile.memory.sram_kib.value * 1024


@pytest.mark.parametrize("name", NAMES)
def test_every_source_of_a_bundled_chip_is_used(name: str) -> None:
    profile = load_profile(name)
    used = {figure.key for section in profile.figures.values() for figure in section.values()}
    assert set(profile.sources) == used


def test_what_is_from_memory_says_so() -> None:
    for name in NAMES:
        for section in load_profile(name).figures.values():
            for figure in section.values():
                if figure.origin is Origin.MEMORY:
                    assert figure.source == "from memory, not verified"


def test_published_devices_are_those_of_the_table_and_of_one_chip_each(shared_data: Path) -> None:
    with (shared_data / "npu_latency_published.csv").open(encoding="utf-8", newline="") as file:
        published = {row["device"] for row in csv.DictReader(file)}
    claimed = [device for name in NAMES for device in load_profile(name).published_device]
    assert set(claimed) <= published
    assert len(set(claimed)) == len(claimed)


def test_a_file_of_ones_own_is_loaded_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(RK3588.replace('name = "rk3588"', 'name = "mine"'), encoding="utf-8")
    assert load_profile(path).name == load_profile(str(path)).name == "mine"


def test_an_unknown_name_gets_the_nearest_and_the_way_to_a_file() -> None:
    with pytest.raises(OptionError) as caught:
        load_profile("rk3589")
    assert "did you mean 'rk3588'?" in caught.value.advice
    assert "path" in caught.value.advice


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "chip.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(OptionError, match=r"chip\.toml"):
        load_profile(path)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("schema = 1", "schema = ", "is not TOML"),
        ("schema = 1", "schema = " + "[" * 5000, "is not TOML"),
        ("schema = 1", "schema = 2", "schema must be 1, found 2"),
        ("schema = 1", "", "schema must be 1, found None"),
        ('vendor = "Rockchip"', "", "vendor"),
        ('vendor = "Rockchip"', "vendor = 3", r"vendor"),
        ("[memory]", "[memroy]", "unknown key 'memroy'"),
        ('name = "rk3588"', 'name = "RK 3588"', "name must be lower case"),
        ('formats = ["int8", "fp16"]', 'formats = ["int8", "fp61"]', "unknown number format 'fp61'"),
        ('formats = ["int8", "fp16"]', 'formats = ["fp16"]', "formats must hold int8"),
        ('formats = ["int8", "fp16"]', 'formats = ["int8", "int8", "fp16"]', "formats must hold int8"),
        ('formats = ["int8", "fp16"]', 'formats = ["int8"]', r"format_rate must .* \['fp16'\]"),
        ('formats = ["int8", "fp16"]', 'formats = ["int8", "fp16", "fp32"]', r"format_rate must .* \['fp32'\]"),
        ("sram_kib = { value = 384,", "sram_kib = { value = -384,", r"\[memory\]: sram_kib must not be below 0"),
        ("sram_kib = {", "sram_kb = {", r"\[memory\]: unknown key 'sram_kb'"),
        ('value = 384, from = "trm"', "value = 384", r"\[memory\] sram_kib has no 'from'"),
        ('value = 384, from = "trm"', 'value = 384, from = "web"', r"sram_kib: 'web' is not in \[sources\]"),
        ("dram_mib = { value = 4096,", "dram_mib = { value = 1e308,", r"\[memory\] dram_mib must be at most"),
        ("[power]", 'pool_kib = { value = 0, from = "trm" }\n[power]', r"\[memory\]: pool_kib must be above 0"),
        ("[power]", 'flash_mib = { value = -1, from = "trm" }\n[power]', r"\[memory\]: flash_mib must be above 0"),
        ("trm = ", "manual = ", "'trm' is not in"),
        ('memory = "from memory, not verified"', "memory = 3", r"\[sources\] must be a table of texts"),
        ("format_rate.fp16 = { value = 0.5,", "format_rate.fp16 = { value = 2,", "not faster than int8"),
        ("peak_int8_tops = { value = 6,", "peak_int8_tops = { value = 60,", "peak_int8_tops must be about"),
        ("800, 900, 1000]", "800, 900]", "points_mhz must end in compute.clock_mhz"),
        ("500, 600", "600, 500", "points_mhz must be above 0 and rise"),
        ("ambient_c = { value = 40,", "ambient_c = { value = 90,", "resume_c must be above ambient_c"),
        ("resume_c = { value = 80,", "resume_c = { value = 85,", "throttle_c must be above resume_c"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_with_file_and_key(old: str, new: str, words: str) -> None:
    assert old in RK3588
    with pytest.raises(OptionError, match=words) as caught:
        read_profile(RK3588.replace(old, new, 1), where="chip.toml")
    assert caught.value.message.startswith("chip.toml")


def test_fitted_rates_stand_beside_the_nominal_peak() -> None:
    profile = read_profile(RK3588 + EFFECTIVE, where="chip.toml")
    assert profile.effective is not None
    assert profile.effective.source.startswith("fitted on 37 rows")
    assert profile.nominal_us_per_mmac == pytest.approx(1e6 / (1024 * 1000))
    us_per_mb = 1e3 / 34  # GB/s
    assert profile.utilisation == pytest.approx(
        {"mac.dense": 0.9765625 / 2.2, "mac.depthwise": 0.9765625 / 20, "memory.weights": us_per_mb / 90}
    )
    assert geometry_of(profile).folds == {Fold.ALL}


def test_fitted_rates_hold_with_what_the_compiler_folded_away() -> None:
    folded = EFFECTIVE + 'folds = ["all", "join"]\n'
    assert geometry_of(read_profile(RK3588 + folded, where="chip.toml")).folds == {Fold.ALL, Fold.JOIN}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("2.2", "0.9", r"rates\.mac\.dense is better than the nominal peak, 0\.9766"),
        ("2.2", "-1", r"rates\.mac\.dense must be above 0"),
        ("mac.dense", "mac.dens", "unknown key 'mac.dens'"),
        ("rates", "rate", "unknown key 'rate'"),
        ("low = 0.8, ", "", "low"),
        ("low = 0.8", "lo = 0.8", r"\[interval\]: unknown key 'lo'"),
        ("mape = 0.11", "mpe = 0.11", r"\[error\]: unknown key 'mpe'"),
        ("0.62", "62", "within_10 must be a share"),
        ("interval = {", "interval = 3 #", "interval"),
        ("[effective]", '[effective]\nfolds = ["join"]', "folds must hold 'all'"),
        ("[effective]", '[effective]\nfolds = ["all", "no"]', "folds must hold 'all', and not 'no'"),
        ("[effective]", '[effective]\nfolds = ["all", "joins"]', "folds"),
        ('rates = { "mac', 'rates = 3 # "mac', "rates"),
    ],
)
def test_impossible_fitted_rates_are_told_with_file_and_key(old: str, new: str, words: str) -> None:
    with pytest.raises(OptionError, match=words) as caught:
        read_profile(RK3588 + EFFECTIVE.replace(old, new, 1), where="chip.toml")
    assert caught.value.message.startswith("chip.toml: [effective]")


def test_a_fit_without_provenance_is_no_fit() -> None:
    with pytest.raises(OptionError, match=r"\[effective\] has no 'from'"):
        read_profile(RK3588 + re.sub(r"from = .*\n", "", EFFECTIVE), where="chip.toml")
    with pytest.raises(OptionError, match=r"\[effective\] must be a table"):
        read_profile(f"effective = 3\n{RK3588}", where="chip.toml")
