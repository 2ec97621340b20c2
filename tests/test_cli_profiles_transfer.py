from __future__ import annotations

import json

import pytest

from command_line import npuops


def test_people_see_every_sibling_with_its_interval_and_the_error_of_the_pair() -> None:
    lines = npuops("profiles", "transfer", "zoo:digits-cnn", "--measured", "rk3588=0.2ms").splitlines()
    assert [line.split()[0] for line in lines] == ["chip", "rk3566", "rv1126", "modelled,"]
    assert " to " in lines[1]
    assert "35 rows" in lines[1]
    assert "0.2 ms measured on rk3588" in lines[-1]


def test_programs_get_the_same() -> None:
    told = json.loads(npuops("profiles", "transfer", "zoo:digits-cnn", "-m", "hexagon-v73=0.1", "--json"))
    assert (told["schema"], told["measured_us"], told["basis"]) == ("npuops.profiles-transfer/1", 100.0, "modelled")
    for chip in told["chips"]:
        assert 0 < chip["low_us"] <= chip["us"] <= chip["high_us"]
        assert chip["error"]["rows"] >= 20


@pytest.mark.parametrize(
    ("measured", "code", "words"),
    [
        ("rk3588", 2, "no PROFILE=MS"),
        ("rk3588=fast", 2, "no PROFILE=MS"),
        ("rk3588=-1", 2, "no measurement"),
        ("rk3589=1", 2, "did you mean 'rk3588'"),
    ],
)
def test_what_is_no_measurement_is_answered_with_advice(measured: str, code: int, words: str) -> None:
    assert words in npuops("profiles", "transfer", "zoo:digits-cnn", "-m", measured, code=code)
