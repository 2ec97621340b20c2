from __future__ import annotations

from pathlib import Path

import pytest

from npuops.config import load_options
from npuops.errors import OptionError, UnknownTargetError
from npuops.vnpu.device_spec import spec_of
from npuops.vnpu.spec import MachineSpec
from virtual_devices import SPEC_FILE


def changed(tmp_path: Path, before: str, after: str) -> Path:
    text = SPEC_FILE.read_text(encoding="utf-8")
    assert before in text
    path = tmp_path / "spec.toml"
    path.write_text(text.replace(before, after), encoding="utf-8")
    return path


def test_a_file_becomes_a_spec() -> None:
    spec = load_options(MachineSpec, SPEC_FILE)
    assert (spec.name, spec.clock_points_mhz, spec.thermal.throttle_c) == ("toy-npu", (400.0, 700.0, 1000.0), 85.0)
    assert spec.released.firmware == "3.2.0"


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("cores = 1", "coers = 1", "unknown key 'coers'"),
        ("cores = 1", "", "missing required field `cores`"),
        ("cores = 1", 'cores = "one"', "Expected `int`"),
        ("cores = 1", "cores = 0", "cores must be from 1 to 1024"),
        ("throttle_c = 85.0", "throttel_c = 85.0", "[thermal]: unknown key 'throttel_c'"),
        ("throttle_c = 85.0", "throttle_c = 185.0", "critical_c must be above throttle_c"),
        ("[thermal]", "[thermal", "is not TOML"),
    ],
)
def test_what_is_wrong_is_named_with_its_file(tmp_path: Path, before: str, after: str, words: str) -> None:
    path = changed(tmp_path, before, after)
    with pytest.raises(OptionError) as raised:
        load_options(MachineSpec, path)
    assert words in raised.value.message
    assert str(path) in raised.value.message


def test_a_missing_file_and_an_unknown_profile_are_said_so(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="cannot read"):
        load_options(MachineSpec, tmp_path / "none.toml")
    with pytest.raises(UnknownTargetError, match="rk9999"):
        spec_of("vnpu:rk9999")
    assert spec_of("vnpu:rk3588").name == "rk3588"
