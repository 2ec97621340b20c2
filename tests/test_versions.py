"""Which driver, firmware and compiler go together, and who is told to upgrade what first."""

from __future__ import annotations

from dataclasses import replace

import pytest

from npuops.vnpu.versions import Part, Versions, compiler_mismatch, driver_mismatch

RELEASED = Versions(driver="1.2.0", firmware="3.4.5", compiler="6.1.0")


@pytest.mark.parametrize(
    ("driver", "firmware", "behind", "words"),
    [
        ("1.2.0", "3.4.5", None, ""),
        ("1.9.0", "3.0.0", None, ""),
        ("2.0.0", "4.0.0", None, ""),
        ("2.0.0", "3.4.5", Part.FIRMWARE, "Incompatible FW JSM API version: 3.4.5, required 4.0 or later"),
        ("1.2.0", "4.0.1", Part.DRIVER, "NPU firmware version 4.0.1 is incompatible with driver 1.2.0"),
    ],
)
def test_driver_and_firmware_must_be_of_one_generation(
    driver: str, firmware: str, behind: Part | None, words: str
) -> None:
    found = driver_mismatch(RELEASED, replace(RELEASED, driver=driver, firmware=firmware))
    assert (found.behind if found else None) is behind
    if found is not None:
        assert words in found.message
        assert "kernel and firmware first" in found.advice


@pytest.mark.parametrize(
    ("compiler", "firmware", "taken"),
    [
        ("6.1.0", "3.4.5", True),
        ("5.0.0", "3.4.5", True),  # new firmware takes what an old compiler wrote
        ("7.0.0", "3.4.5", False),
        ("7.0.0", "4.0.0", True),
        ("6.1.0", "2.9.0", False),  # the firmware was rolled back
    ],
)
def test_a_firmware_takes_compilers_up_to_its_own_generation(compiler: str, firmware: str, taken: bool) -> None:
    found = compiler_mismatch(RELEASED, replace(RELEASED, firmware=firmware, compiler=compiler))
    assert (found is None) is taken
    if found is not None:
        assert f"received: {compiler}" in found.message
        assert "0x78000002" in found.message
        assert "upgrade kernel and firmware first" in found.advice


def test_versions_that_vendors_write_with_words_have_a_generation_too() -> None:
    released = Versions(driver="rknpu-0.9.8", firmware="v1", compiler="rknn-toolkit2-2.3.0")
    assert driver_mismatch(released, released) is None
    assert compiler_mismatch(released, released) is None
    assert driver_mismatch(released, replace(released, firmware="unknown")) is not None
    later = compiler_mismatch(released, replace(released, compiler="rknn-toolkit2-3.0.0"))
    assert later is not None, "the 2 of toolkit2 is part of a name"
    assert "Expected: 2.x" in later.message
