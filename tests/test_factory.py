from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from npuops.artifacts.keys import read_public_key
from npuops.errors import StorageError
from npuops.vnpu.device_folder import DeviceFolder
from npuops.vnpu.factory import outfit, vendor_key
from npuops.vnpu.firmware import measure, quote, read_header, verify_quote
from npuops.vnpu.spec import MachineSpec
from virtual_devices import SPEC

NONCE = b"0123456789abcdef"


@pytest.fixture
def folder(tmp_path: Path) -> DeviceFolder:
    found = DeviceFolder(tmp_path, "npu0")
    found.root.mkdir()
    return found


def test_a_new_device_boots_its_own_image_and_a_verifier_finds_all_it_needs(folder: DeviceFolder) -> None:
    kit = outfit(SPEC, folder)
    measured = kit.rom.boot()
    assert read_header(folder.firmware.read_bytes()).version == SPEC.released.firmware
    assert kit.rom.image == folder.firmware.read_bytes()
    assert msgspec.json.decode(folder.config.read_bytes(), type=MachineSpec) == SPEC
    said = quote(measured, NONCE, kit.key)
    verify_quote(
        said, nonce=NONCE, device=read_public_key(folder.device_key), expected=measure(kit.rom.image, kit.rom.config)
    )


def test_devices_have_one_vendor_and_each_its_own_key(folder: DeviceFolder) -> None:
    first, second = outfit(SPEC, folder), outfit(SPEC, folder)
    assert first.rom.vendor.pem == second.rom.vendor.pem == vendor_key(folder).public.pem
    assert first.key.public.pem != second.key.public.pem
    assert measure(first.rom.image, first.rom.config) == measure(second.rom.image, second.rom.config), (
        "the same chip measures the same"
    )
    other = outfit(replace(SPEC, cores=SPEC.cores + 1), folder)
    assert (
        measure(other.rom.image, other.rom.config).config_sha256
        != measure(first.rom.image, first.rom.config).config_sha256
    )


def test_the_vendors_key_is_for_its_owner_only_and_half_of_one_is_replaced(folder: DeviceFolder) -> None:
    unfinished = folder.vendor_key.with_name("unfinished")
    unfinished.parent.mkdir()
    unfinished.write_bytes(b"")
    folder.vendor_key.with_suffix(".pub").write_bytes(b"of a key that somebody removed")
    made = vendor_key(folder)
    assert vendor_key(folder).public.pem == made.public.pem
    assert folder.vendor_key.stat().st_mode & 0o777 == 0o600
    assert read_public_key(folder.vendor_key.with_suffix(".pub")).pem == made.public.pem
    assert {path.name for path in unfinished.parent.iterdir()} == {"vendor", "vendor.pub"}


def test_a_folder_that_cannot_be_written_is_an_error(folder: DeviceFolder) -> None:
    folder.root.rmdir()
    with pytest.raises(StorageError, match="cannot write"):
        outfit(SPEC, folder)
    folder.vendor_key.parent.rename(folder.home / "away")
    folder.vendor_key.parent.write_bytes(b"a file where the folder should be")
    with pytest.raises(StorageError, match="keys"):
        vendor_key(folder)
