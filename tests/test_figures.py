"""A figure without a source is refused, and so is everything that no profile means."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from npuops.errors import OptionError
from npuops.vnpu.figures import Figure, Origin, origin_of, read_section, refuse_unless

SOURCES = {"trm": "the manual", "memory": "from memory"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    clock_mhz: Figure[float]
    cores: Figure[int]
    points_mhz: Figure[tuple[float, ...]] | None = None
    rate: dict[str, Figure[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        refuse_unless(self.cores.value > 0, "cores", "must be above 0", self.cores.value)


def read(**changes: object) -> Section:
    values: dict[str, object] = {"clock_mhz": figure(1000), "cores": figure(3)}
    return read_section(Section, values | changes, SOURCES, "chip.toml: [compute]")


def figure(value: object, key: str = "trm") -> dict[str, object]:
    return {"value": value, "from": key}


def test_a_figure_keeps_its_source() -> None:
    found = read(rate={"fp16": figure(0.5, "memory")}, points_mhz=figure([1, 2.5]))
    assert found.clock_mhz == Figure(1000.0, "trm", "the manual")
    assert found.rate["fp16"].source == "from memory"
    assert found.points_mhz is not None
    assert found.points_mhz.value == (1.0, 2.5)


@pytest.mark.parametrize(
    ("key", "origin"),
    [
        ("memory", Origin.MEMORY),
        ("derived", Origin.DERIVED),
        ("derived-dram", Origin.DERIVED),
        ("trm", Origin.DOCUMENT),
        ("memory-map", Origin.DOCUMENT),
        ("derivedly", Origin.DOCUMENT),
    ],
)
def test_the_key_tells_how_far_to_trust_a_figure(key: str, origin: Origin) -> None:
    assert origin_of(key) is origin
    assert Figure(1, key, "").origin is origin


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"clock_mhz": 1000}, "clock_mhz: no source"),
        ({"clock_mhz": {"value": 1000}}, "clock_mhz has no 'from'"),
        ({"clock_mhz": {"from": "trm"}}, "clock_mhz has no 'value'"),
        ({"clock_mhz": {}}, "clock_mhz has no 'value'"),
        ({"clock_mhz": figure(1000, "trn")}, "clock_mhz: 'trn' is not in"),
        ({"clock_mhz": {"value": 1000, "from": 3}}, "clock_mhz: 3 is not in"),
        ({"clock_mhz": figure(1000) | {"form": "trm"}}, "clock_mhz: unknown key 'form'"),
        ({"clock_mhz": figure("fast")}, r"clock_mhz\.value"),
        ({"clock_mhz": figure(float("nan"))}, "clock_mhz must be at most"),
        ({"points_mhz": figure([1.0, float("inf")])}, "points_mhz must be at most"),
        ({"clock_mhz": figure(-1e300)}, "clock_mhz must be at most"),
        ({"cores": figure(10**400)}, "cores must be at most 1e\\+12, found 10"),
        ({"cores": figure(1.5)}, r"cores\.value"),
        ({"cores": figure(value=True)}, r"cores\.value"),
        ({"cores": figure(0)}, "cores must be above 0"),
        ({"clock_mzh": figure(1000)}, "unknown key 'clock_mzh'"),
        ({"rate": {"fp16": figure(0.5), "w8a16": 0.5}}, r"rate\.w8a16: no source"),
        ({"rate": {"fp16": figure(0.5, "nowhere")}}, r"rate\.fp16: 'nowhere' is not in"),
    ],
)
def test_what_is_wrong_is_named_with_its_file_and_key(changes: dict[str, object], words: str) -> None:
    with pytest.raises(OptionError, match=words) as caught:
        read(**changes)
    assert caught.value.message.startswith("chip.toml: [compute]")


def test_a_misspelt_key_and_a_misspelt_source_get_the_nearest() -> None:
    with pytest.raises(OptionError) as caught:
        read(clock_mzh=figure(1000))
    assert caught.value.advice == "did you mean 'clock_mhz'?"
    with pytest.raises(OptionError) as caught:
        read(clock_mhz=figure(1000, "trn"))
    assert caught.value.advice == "did you mean 'trm'?"


def test_a_missing_key_and_a_section_that_is_no_table_are_errors() -> None:
    with pytest.raises(OptionError, match="cores"):
        read_section(Section, {"clock_mhz": figure(1)}, SOURCES, "chip.toml: [compute]")
    with pytest.raises(OptionError, match=r"\[compute\] expected a table, found 3"):
        read_section(Section, 3, SOURCES, "chip.toml: [compute]")
