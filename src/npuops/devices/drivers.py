"""The drivers that npuops knows: vendor, models, where the words are, and which probes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from npuops.devices import probes
from npuops.devices.probes import Place, Probe
from npuops.devices.vnpu_tree import ALIVE_FILE


@dataclass(frozen=True, slots=True)
class TextAt:
    """A file with words; `prefix` is cut off."""

    place: Place
    path: str
    prefix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """One kernel driver.

    Attributes:
        vendor: whose chips these are.
        module: what `modprobe` loads; empty where nothing can be loaded by hand.
        models: `vendor:device` of PCI, or a device tree's `compatible`, → what people call it.
        model, firmware, version, status: where the driver says so; the first that answers counts.
        probes: its numbers.
        pmt: energy and temperature are in Intel's platform monitoring, not in the driver's files.
        channels: its workloads run on DMA bridge channels, each with a state (qaic).
        alive: the file of the device that its process holds locked; empty for a driver in the kernel.
    """

    vendor: str
    module: str = ""
    models: Mapping[str, str] = field(default_factory=dict)
    model: tuple[TextAt, ...] = ()
    firmware: tuple[TextAt, ...] = ()
    version: tuple[TextAt, ...] = ()
    status: tuple[TextAt, ...] = ()
    probes: tuple[Probe, ...] = ()
    pmt: bool = False
    channels: bool = False
    alive: str = ""


_HABANA_PLACES: Final = (Place.DEVICE, Place.MINOR)

DRIVERS: Final[Mapping[str, Driver]] = {
    "ivpu": Driver(
        vendor="Intel",
        module="intel_vpu",
        models={
            "8086:7e4c": "Meteor Lake NPU",
            "8086:643e": "Lunar Lake NPU",
            "8086:ad1d": "Arrow Lake NPU",
            "8086:7d1d": "Arrow Lake-H NPU",
            "8086:b03e": "Panther Lake NPU",
            "8086:fd3e": "Wildcat Lake NPU",
            "8086:d71d": "Nova Lake NPU",
        },
        firmware=(TextAt(Place.DEBUG, "fw_version"),),
        probes=probes.IVPU,
        pmt=True,
    ),
    "amdxdna": Driver(
        vendor="AMD",
        module="amdxdna",
        models={
            "1022:1502": "Ryzen AI NPU (Phoenix)",
            "1022:17f0": "Ryzen AI NPU (Strix)",
            **{f"1022:{device}": "Ryzen AI NPU" for device in ("17f1", "17f2", "17f3", "1b0a", "1b0b", "1b0c")},
        },
        model=(TextAt(Place.DEVICE, "vbnv"),),
        firmware=(TextAt(Place.DEVICE, "fw_version"),),
        probes=probes.AMDXDNA,
    ),
    "qaic": Driver(
        vendor="Qualcomm",
        module="qaic",
        models={"17cb:a100": "Cloud AI 100", "17cb:a080": "Cloud AI 80", "17cb:a110": "Cloud AI 200"},
        probes=probes.QAIC,
        channels=True,
    ),
    "habanalabs": Driver(
        vendor="Intel Habana",
        module="habanalabs",
        models={
            "1da3:0001": "Goya",
            "1da3:1000": "Gaudi",
            "1da3:1010": "Gaudi (secured)",
            "1da3:1020": "Gaudi 2",
            "1da3:1060": "Gaudi 3",
        },
        model=tuple(TextAt(place, "device_type") for place in _HABANA_PLACES),
        firmware=tuple(TextAt(place, name) for name in ("fw_os_ver", "cpucp_ver") for place in _HABANA_PLACES),
        status=tuple(TextAt(place, "status") for place in _HABANA_PLACES),
        probes=probes.HABANALABS,
    ),
    "apex": Driver(
        vendor="Google Coral",
        module="apex",
        models={"1ac1:089a": "Edge TPU"},
        version=(TextAt(Place.MINOR, "driver_version"),),
        status=(TextAt(Place.MINOR, "status"),),
        probes=probes.APEX,
    ),
    "hailo": Driver(
        vendor="Hailo",
        module="hailo_pci",
        models={"1e60:2864": "Hailo-8", "1e60:45c4": "Hailo-10H", "1e60:43a2": "Hailo-15L", "1e60:26a2": "Mars"},
        probes=probes.HAILO,
    ),
    "rknpu": Driver(
        vendor="Rockchip",
        models={f"rockchip,{soc}-rknpu": soc.upper() for soc in ("rk3562", "rk3568", "rk3576", "rk3588", "rv1106")},
        version=(TextAt(Place.DEBUG, "version", prefix="RKNPU driver:"),),
        probes=probes.RKNPU,
    ),
    "rocket": Driver(
        vendor="Rockchip",
        module="rocket",
        models={"rockchip,rk3588-rknn-core": "RK3588"},
        probes=probes.ROCKET,
    ),
    "ethosu": Driver(
        vendor="Arm",
        module="ethosu",
        models={"arm,ethos-u65": "Ethos-U65", "arm,ethos-u85": "Ethos-U85"},
    ),
    "synap": Driver(vendor="Synaptics", probes=probes.SYNAP),
    "vnpu": Driver(
        vendor="virtual",
        model=(TextAt(Place.DEVICE, "vbnv"),),
        firmware=(TextAt(Place.DEVICE, "fw_version"),),
        version=(TextAt(Place.DEVICE, "driver_version"),),
        status=(TextAt(Place.DEVICE, "status"),),
        probes=probes.VNPU,
        alive=ALIVE_FILE,
    ),
}

ALIASES: Final[Mapping[str, str]] = {
    "intel_vpu": "ivpu",
    "RKNPU": "rknpu",
    "hailo1x": "hailo",
    "hailo_integrated_nnc": "hailo",
}
"""The kernel's name of a driver, where it is not the key above."""

UNKNOWN: Final = Driver(vendor="unknown")
"""Of a driver that has no table: the device is shown, nothing of it is read."""


def driver_key(kernel_name: str) -> str:
    """The key in `DRIVERS` of what the kernel calls a driver."""
    return ALIASES.get(kernel_name, kernel_name)


def known_model(pci_id: str) -> tuple[Driver, str] | None:
    """The driver and model of a PCI id `vendor:device`, both four lower-case hex digits."""
    for driver in DRIVERS.values():
        if pci_id in driver.models:
            return driver, driver.models[pci_id]
    return None
