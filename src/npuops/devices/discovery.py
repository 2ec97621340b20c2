"""Which accelerators a tree holds. The same code reads /sys, a fixture and the tree of a virtual NPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from npuops.devices.drivers import DRIVERS, UNKNOWN, Driver, TextAt, driver_key, known_model
from npuops.devices.probes import Place
from npuops.devices.tree import Tree


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One accelerator.

    Attributes:
        id: stays the same when the kernel numbers devices anew: `driver/address`, or `driver/name` without one.
        name: the kernel's: `accel0`, `apex_0`, `hailo0`; for an RKNPU, which has none, `rknpu0`.
        vendor, model: in the words of people; the model is None where nothing names it.
        driver: key of its table; the kernel's own name where there is no table; None without a driver.
        driver_version, firmware: as the driver says, None where it doesn't.
        address: PCI slot, platform device, or the name of a virtual device.
        node: the file in /dev to open, None where this machine (or container) has none.
        places: its folders, those that exist.
    """

    id: str
    name: str
    vendor: str
    model: str | None
    driver: str | None
    driver_version: str | None
    firmware: str | None
    address: str | None
    node: str | None
    places: Mapping[Place, Path]

    @property
    def table(self) -> Driver:
        """The row of `DRIVERS`; an empty one for a driver that npuops does not know."""
        return DRIVERS.get(self.driver or "", UNKNOWN)


@dataclass(frozen=True, slots=True)
class Driverless:
    """A PCI device that is an NPU and that no driver has taken."""

    address: str
    pci_id: str
    model: str | None
    module: str


@dataclass(frozen=True, slots=True)
class _Class:
    """A folder of /sys/class; `driver` is what its devices are driven by if nothing says otherwise."""

    folder: str
    names: str
    node: str
    driver: str | None = None


CLASSES: Final = (
    _Class("class/accel", "accel[0-9]*", "accel/{}"),
    _Class("class/apex", "apex_[0-9]*", "{}", "apex"),
    _Class("class/hailo_chardev", "hailo[0-9]*", "{}", "hailo"),
    _Class("class/hailo1x", "hailo*", "{}", "hailo"),
    _Class("class/hailo1x_integrated", "h1x*", "{}", "hailo"),
    _Class("class/habanalabs", "hl[0-9]*", "{}", "habanalabs"),
    _Class("class/misc", "synap", "{}", "synap"),
)
_RKNPU: Final = ("bus/platform/drivers/RKNPU", "class/devfreq", "kernel/debug/rknpu")
_PROCESSING_ACCELERATOR: Final = "0x1200"
"""PCI class of most NPUs."""


def looked_in(tree: Tree) -> tuple[str, ...]:
    """Every folder in which devices are looked for."""
    return tuple(tree.shown(tree.sys / folder) for folder in (*(each.folder for each in CLASSES), *_RKNPU))


def find_devices(tree: Tree) -> tuple[Device, ...]:
    """All accelerators, in the order of the classes and of the kernel's numbers.

    An entry of a class that says nothing of itself, because it comes or goes just now, is none.
    """
    entries = [(each, name) for each in CLASSES for name in tree.names(tree.sys / each.folder, each.names)]
    found = [_of_class(tree, each, name) for each, name in entries if _is_there(tree, each, name)]
    taken = {device.address for device in found}
    return _told_apart((*found, *_rknpus(tree, taken)))


def find_driverless(tree: Tree) -> tuple[Driverless, ...]:
    """NPUs on the PCI bus that have no driver: known by their id, or by the class of processing accelerators."""
    found = []
    bus = tree.sys / "bus/pci/devices"
    for address in tree.names(bus):
        folder = bus / address
        pci_id = _pci_id(tree, folder)
        known = known_model(pci_id) if pci_id else None
        is_npu = known is not None or (tree.words(folder / "class") or "").startswith(_PROCESSING_ACCELERATOR)
        if pci_id and is_npu and tree.linked_name(folder / "driver") is None:
            driver, model = known or (UNKNOWN, None)
            found.append(Driverless(address, pci_id, model, driver.module))
    return tuple(found)


def first_words(tree: Tree, places: Mapping[Place, Path], candidates: tuple[TextAt, ...]) -> str | None:
    """The first of some files that says something."""
    for candidate in candidates:
        if candidate.place in places:
            words = tree.words(places[candidate.place] / candidate.path)
            if words:
                return words.removeprefix(candidate.prefix).strip()
    return None


def _told_apart(devices: tuple[Device, ...]) -> tuple[Device, ...]:
    """Two minors of one bus address get their names into their ids."""
    seen = Counter(device.id for device in devices)
    return tuple(replace(each, id=f"{each.id}/{each.name}") if seen[each.id] > 1 else each for each in devices)


def _is_there(tree: Tree, kind: _Class, name: str) -> bool:
    """The kernel gives every device a `uevent`; one whose class tells its driver may have no parent (misc)."""
    return kind.driver is not None or tree.exists(tree.sys / kind.folder / name / "device" / "uevent")


def _of_class(tree: Tree, kind: _Class, name: str) -> Device:
    minor = tree.sys / kind.folder / name
    device = minor / "device"
    uevent = _uevent(tree, device)
    kernel_name = tree.linked_name(device / "driver") or uevent.get("DRIVER") or kind.driver
    key = driver_key(kernel_name) if kernel_name else None
    if kind.driver is not None and key not in DRIVERS:
        key = kind.driver
    address = uevent.get("PCI_SLOT_NAME") or uevent.get("VNPU_NAME") or tree.linked_name(device)
    places = {
        Place.MINOR: minor,
        Place.DEVICE: device,
        Place.DEBUG: _debug_folder(tree, name, address),
        **_chip_places(tree, address),
    }
    return _device(tree, name=name, key=key, address=address, node=kind.node.format(name), places=places)


def _rknpus(tree: Tree, taken: set[str | None]) -> Iterator[Device]:
    """The vendor's Rockchip driver: it has no class; platform bus, devfreq or only debugfs give it away."""
    driver_folder, devfreq_folder, debug_folder = (tree.sys / folder for folder in _RKNPU)
    addresses = list(tree.names(driver_folder, "*.npu"))
    for address in tree.names(devfreq_folder, "*.npu"):
        driver = tree.linked_name(devfreq_folder / address / "device" / "driver")
        if address not in addresses and driver in {None, "RKNPU"}:
            addresses.append(address)
    shared = {Place.DEBUG: debug_folder}
    unclaimed = [address for address in addresses if address not in taken]
    for index, address in enumerate(unclaimed):
        chip = _chip_places(tree, address)
        device = driver_folder / address
        if not tree.exists(device) and Place.DEVFREQ in chip:
            device = chip[Place.DEVFREQ] / "device"
        places = {**shared, **chip, Place.MINOR: device, Place.DEVICE: device}
        render = tree.names(device / "drm", "renderD*")  # the driver is built as a DRM one, or with a node of its own
        node = f"dri/{render[0]}" if render else "rknpu"
        yield _device(tree, name=f"rknpu{index}", key="rknpu", address=address, node=node, places=places)
    if not addresses and tree.names(debug_folder):
        places = {**shared, **_chip_places(tree, None)}
        yield _device(tree, name="rknpu0", key="rknpu", address=None, node="rknpu", places=places)


def _device(
    tree: Tree, *, name: str, key: str | None, address: str | None, node: str, places: Mapping[Place, Path]
) -> Device:
    table = DRIVERS.get(key or "", UNKNOWN)
    node_path = tree.dev / node
    version = first_words(tree, places, table.version)
    if version is None and Place.DEVICE in places:
        version = tree.words(places[Place.DEVICE] / "driver/module/version")
    return Device(
        id=f"{key or 'unknown'}/{address or name}",
        name=name,
        vendor=table.vendor,
        model=first_words(tree, places, table.model) or _model_by_id(tree, places, table),
        driver=key,
        driver_version=version,
        firmware=first_words(tree, places, table.firmware),
        address=address,
        node=tree.shown(node_path) if tree.exists(node_path) else None,
        places=places,
    )


def _model_by_id(tree: Tree, places: Mapping[Place, Path], table: Driver) -> str | None:
    """By PCI id or device tree; an id that is in no table is its own name."""
    device = places.get(Place.DEVICE)
    if device is None:
        return None
    found = _pci_id(tree, device) or _uevent(tree, device).get("OF_COMPATIBLE_0")
    return table.models.get(found, found) if found else None


def _pci_id(tree: Tree, device: Path) -> str | None:
    vendor, model = tree.words(device / "vendor"), tree.words(device / "device")
    if vendor is None or model is None:
        return None
    return f"{vendor.lower().removeprefix('0x')}:{model.lower().removeprefix('0x')}"


def _uevent(tree: Tree, device: Path) -> dict[str, str]:
    text = tree.text(device / "uevent")
    if not isinstance(text, str):
        return {}
    lines = (line.partition("=") for line in text.splitlines())
    return {key.strip(): "".join(filter(str.isprintable, value))[:120] for key, equals, value in lines if equals}


def _debug_folder(tree: Tree, name: str, address: str | None) -> Path:
    """Kernels name it by address or by number; one that only root may enter looks as if it did not exist."""
    folder = tree.sys / "kernel/debug/accel"
    number = name.removeprefix("accel")
    return folder / (number if number in tree.names(folder) or address is None else address)


def _chip_places(tree: Tree, address: str | None) -> dict[Place, Path]:
    places = {}
    devfreq = tree.sys / "class/devfreq"
    if address is not None and address in tree.names(devfreq):
        places[Place.DEVFREQ] = devfreq / address
    zones = tree.sys / "class/thermal"
    for zone in tree.names(zones, "thermal_zone*"):
        if tree.words(zones / zone / "type") == "npu-thermal":
            places[Place.THERMAL] = zones / zone
            break
    return places
