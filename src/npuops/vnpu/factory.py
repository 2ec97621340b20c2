"""What a device leaves the factory with: a firmware image that its vendor signed, and a key of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from npuops.artifacts.disk import storage_errors
from npuops.artifacts.keys import Algorithm, SigningKey, new_key, read_signing_key, write_key
from npuops.artifacts.locks import alone_in
from npuops.vnpu.device_folder import DeviceFolder
from npuops.vnpu.firmware import BootRom, Header, make_image
from npuops.vnpu.spec import MachineSpec


@dataclass(frozen=True, slots=True)
class Outfit:
    """The boot ROM with its image, and the key that never leaves the device."""

    rom: BootRom
    key: SigningKey


def outfit(spec: MachineSpec, folder: DeviceFolder) -> Outfit:
    """Make both, and leave beside the device what a verifier needs: public key, image, configuration.

    Raises:
        StorageError: the folder cannot be written.
    """
    vendor, key = vendor_key(folder), new_key(Algorithm.ED25519)
    header = Header(version=spec.released.firmware, api=spec.released.driver, build=f"{spec.name} factory")
    image = make_image(header, f"the firmware of a virtual {spec.name}".encode(), vendor)
    config = msgspec.json.encode(spec)
    with storage_errors("write", folder.root):
        folder.device_key.write_bytes(key.public.pem)
        folder.firmware.write_bytes(image)
        folder.config.write_bytes(config)
    return Outfit(BootRom(vendor=vendor.public, image=image, config=config), key)


def vendor_key(folder: DeviceFolder) -> SigningKey:
    """The key of the vendor of all virtual devices of this user, made at first use.

    Raises:
        StorageError: it cannot be written or read.
    """
    path = folder.vendor_key
    with alone_in(folder.home):
        if not path.exists():
            _make_key(path)
        return read_signing_key(path)


def _make_key(path: Path) -> None:
    """Whole or not at all: half a key would keep every later device from coming up."""
    unfinished = path.with_name("unfinished")
    with storage_errors("make", path):
        path.parent.mkdir(mode=0o700, exist_ok=True)
        for left in (unfinished, unfinished.with_suffix(".pub")):
            left.unlink(missing_ok=True)
        public = write_key(new_key(Algorithm.ED25519), unfinished)
        public.rename(path.with_suffix(".pub"))
        unfinished.rename(path)
