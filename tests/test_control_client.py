from __future__ import annotations

import secrets

import pytest

from npuops.artifacts.keys import read_public_key
from npuops.errors import DeviceLostError, IntegrityError, OptionError, UnsupportedModelError
from npuops.vnpu.client import connect
from npuops.vnpu.control_client import control
from npuops.vnpu.device_folder import device_folder
from npuops.vnpu.factory import vendor_key
from npuops.vnpu.firmware import Header, make_image, measure, verify_quote
from virtual_devices import SPEC, X, Y, home, manual, program

__all__ = ["home", "manual"]


def test_it_says_which_device_it_is_and_has_no_context(manual: str) -> None:
    with control(manual) as client:
        assert (client.device, client.profile, client.pacing, client.context) == (manual, SPEC.name, "manual", None)
        assert client.status().telemetry.contexts == ()


def test_time_moves_as_far_as_it_is_told_and_never_back(manual: str) -> None:
    with control(manual) as client:
        before_us = client.status().uptime_us
        client.advance(5_000)
        assert client.status().uptime_us == before_us + 5_000
        for us in (-1, 10**15 + 1):
            with pytest.raises(OptionError, match="time moves forward"):
                client.advance(us)
        client.advance(0)
        assert client.status().uptime_us == before_us + 5_000, "a refusal costs neither the time nor the connection"


def test_a_fault_lasts_until_it_is_cleared_and_a_wrong_one_is_refused(manual: str) -> None:
    with control(manual) as looker, connect(manual) as client:
        looker.inject({"kind": "unsupported_op", "op": "Relu"})
        with pytest.raises(UnsupportedModelError, match="Relu"):
            client.load(program(), X, Y)
        looker.clear_faults()
        client.load(program(), X, Y)
        for fault, words in (
            ({}, "needs kind and at_s"),
            ({"kind": "hagn"}, "unknown kind"),
            ({"kind": "hang", "colour": 1}, "unknown key"),
            ({"kind": "slow_dma", "factor": float("nan")}, "factor must be"),
        ):
            with pytest.raises(OptionError, match=words):
                looker.inject(fault)
        with pytest.raises(DeviceLostError, match="64 bits"):
            looker.inject({"kind": "ecc_corrected", "count": 1 << 70})
        assert looker.status().telemetry.life == "ready"


def test_a_reset_ends_a_hang_and_is_counted(manual: str) -> None:
    with control(manual) as client:
        client.inject({"kind": "hang"})
        assert client.status().telemetry.status == "hung"
        client.reset()
        client.advance(SPEC.reset_us)
        seen = client.status().telemetry
    assert (seen.status, seen.resets) == ("online", 1)


def test_a_device_that_is_off_can_still_be_looked_at_and_switched(manual: str) -> None:
    with control(manual) as client:
        client.inject({"kind": "offline"})
    with control(manual) as client:
        assert client.status().telemetry.status == "offline"
        with pytest.raises(DeviceLostError):
            connect(manual)
        client.reset()
        client.advance(SPEC.boot_us)
        connect(manual).close()


def test_firmware_goes_through_the_flash_and_a_quote_tells_what_runs(manual: str) -> None:
    folder = device_folder(manual)
    device, vendor = read_public_key(folder.device_key), vendor_key(folder)
    image = make_image(Header(version="3.9.0", api="3.9.0", build="test"), b"payload", vendor)
    expected = measure(image, folder.config.read_bytes())
    with control(manual) as client:
        with pytest.raises(IntegrityError, match="no firmware image"):
            client.update_firmware(b"nonsense")
        with pytest.raises(OptionError, match="nonce"):
            client.attest(b"short")
        client.update_firmware(image)
        nonce = secrets.token_bytes(16)
        with pytest.raises(IntegrityError, match="instead of"):
            verify_quote(client.attest(nonce), nonce=nonce, device=device, expected=expected)
        client.reset()
        client.advance(SPEC.reset_us)
        verify_quote(client.attest(nonce), nonce=nonce, device=device, expected=expected)


def test_closed_is_closed(manual: str) -> None:
    client = control(manual)
    client.close()
    client.close()
    with pytest.raises(DeviceLostError, match="is closed"):
        client.status()
