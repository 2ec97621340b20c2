"""Trees of machines with an accelerator, shaped as the kernels shape them (docs/devices.md names the sources).

Each builder writes below a root and returns the folder that holds the driver's attributes, so a test can change one.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

IVPU_OLD = {"npu_busy_time_us": 5_000_000}
IVPU_NEW = {
    **IVPU_OLD,
    "npu_memory_utilization": 104_857_600,
    "sched_mode": "HW",
    "npu_max_frequency_mhz": 1850,
    "npu_current_frequency_mhz": 0,
    "freq/hw_min_freq": 700,
    "freq/hw_max_freq": 1950,
    "freq/hw_efficient_freq": 900,
    "freq/current_freq": 0,
    "freq/set_max_freq": 1500,
}
PMT_LUNAR_LAKE = "0x3072005"


def write(folder: Path, files: Mapping[str, object]) -> Path:
    """Each file with its text and a newline, as sysfs has it; bytes as they are."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else f"{content}\n".encode())
    return folder


def link(path: Path, target: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def pci_device(root: Path, driver: str | None, pci_id: str, address: str) -> Path:
    vendor, device = pci_id.split(":")
    folder = root / "sys/devices/pci0000:00" / address
    uevent = f"PCI_CLASS=120000\nPCI_SLOT_NAME={address}"
    write(folder, {"vendor": f"0x{vendor}", "device": f"0x{device}", "class": "0x120000"})
    write(folder, {"uevent": f"DRIVER={driver}\n{uevent}" if driver else uevent})
    link(root / "sys/bus/pci/devices" / address, f"../../../devices/pci0000:00/{address}")
    if driver:
        (root / "sys/bus/pci/drivers" / driver).mkdir(parents=True, exist_ok=True)
        link(folder / "driver", f"../../../bus/pci/drivers/{driver}")
    return folder


def pci_accel(
    root: Path, driver: str, pci_id: str, *, address: str = "0000:00:0b.0", kind: str = "accel", name: str = "accel0"
) -> Path:
    """A PCI device with a folder in a class and a node; the class folder is a link, as on a real machine."""
    device = pci_device(root, driver, pci_id, address)
    minor = device / kind / name
    minor.mkdir(parents=True)
    link(minor / "device", f"../../../{address}")
    link(root / "sys/class" / kind / name, f"../../devices/pci0000:00/{address}/{kind}/{name}")
    write(root / "dev" / ("accel" if kind == "accel" else "."), {name: ""})
    return device


def ivpu_old(root: Path) -> Path:
    return write(pci_accel(root, "intel_vpu", "8086:7e4c"), IVPU_OLD)


def ivpu_new(root: Path) -> Path:
    device = write(pci_accel(root, "intel_vpu", "8086:643e"), IVPU_NEW)
    write(
        root / "sys/kernel/debug/accel/0000:00:0b.0",
        {"reset_counter": 0, "engine_reset_counter": 0, "fw_version": "vpu_4000 1.2"},
    )
    pmt(root)
    return device


def pmt(root: Path, *, joules: float = 100.0, celsius: int = 47, guid: str = PMT_LUNAR_LAKE) -> Path:
    """The telemetry block of Lunar Lake: energy at 0x5d0, temperatures at 0x70, memory at 0xc18."""
    blob = bytearray(0xC20)
    struct.pack_into("<Q", blob, 0x5D0, round(joules * (1 << 14)))
    struct.pack_into("<Q", blob, 0x70, celsius << 40)
    struct.pack_into("<Q", blob, 0xC18, 2_000_000)
    folder = root / "sys/class/intel_pmt/telem1"
    return write(folder, {"guid": guid, "size": len(blob), "offset": 0, "telem": bytes(blob)})


def amdxdna(root: Path, *, values: bool = True) -> Path:
    device = pci_accel(root, "amdxdna", "1022:17f0", address="0000:c5:00.1")
    write(device, {"vbnv": "NPU Strix", "device_type": 0, "fw_version": "1.0.0.166", "hwmon/hwmon3/name": "amdxdna"})
    channels = {"power1_input": 2_500_000, "temp1_input": 45_123}
    for name, value in channels.items():
        write(device / "hwmon/hwmon3", {name: value if values else b""})
    return device


def process(root: Path, pid: int, fdinfo: Mapping[int, str], *, command: str = "worker") -> None:
    """A process with open descriptors of /dev/accel/accel0."""
    folder = write(root / "proc" / str(pid), {"comm": command})
    for descriptor, text in fdinfo.items():
        link(folder / "fd" / str(descriptor), "/dev/accel/accel0")
        write(folder / "fdinfo", {str(descriptor): text})


def amd_fdinfo(client: int, engine_ns: int, *, address: str = "0000:c5:00.1") -> str:
    return (
        f"pos:\t0\nflags:\t02\ndrm-driver:\tamdxdna_accel_driver\ndrm-client-id:\t{client}\ndrm-pdev:\t{address}\n"
        f"drm-engine-amdxdna_accel_driver:\t{engine_ns} ns\ndrm-engine-capacity-amdxdna_accel_driver:\t1\n"
        "amdxdna_accel_driver-heap-alloc:\t64 MiB\namdxdna_accel_driver-internal-alloc:\t8 KiB\n"
        "amdxdna_accel_driver-external-alloc:\t1 MiB\ndrm-total-memory:\t99 MiB"
    )


def qaic(root: Path) -> Path:
    """Of Linux 6.19: the counters hang on the PCI device, the channels on its folder in the class."""
    device = pci_accel(root, "qaic", "17cb:a100", address="0000:41:00.0")
    write(device / "accel/accel0", {f"dbc{number}_state": int(number in {0, 11}) for number in range(16)})
    return write(device, {"ce_count": 2, "ue_count": 0, "ue_nonfatal_count": 0})


HABANA = {
    "status": "operational",
    "hard_reset_cnt": 0,
    "soft_reset_cnt": 1,
    "clk_cur_freq_mhz": 1350,
    "clk_max_freq_mhz": 1700,
    "max_power": 350_000,
    "device_type": "GAUDI2",
    "fw_os_ver": "hl-gaudi2-1.11",
}


def habanalabs_new(root: Path) -> Path:
    device = pci_accel(root, "habanalabs", "1da3:1020", address="0000:19:00.0")
    return write(device, {**HABANA, "hwmon/hwmon5/temp1_input": 41_000, "hwmon/hwmon5/power1_input": 96_000_000})


def habanalabs_old(root: Path) -> Path:
    device = pci_accel(root, "habanalabs", "1da3:1000", address="0000:19:00.0", kind="habanalabs", name="hl0")
    link(root / "sys/class/habanalabs/hl_controlD0", "../../devices/pci0000:00/0000:19:00.0/habanalabs/hl0")
    return write(device / "habanalabs/hl0", {**HABANA, "status": "Operational", "device_type": "GAUDI"})


def apex(root: Path) -> Path:
    device = pci_accel(root, "apex", "1ac1:089a", address="0000:03:00.0", kind="apex", name="apex_0")
    files = {"temp": 51_300, "trip_point0_temp": 85_000, "reset_count": 1, "status": "ALIVE", "driver_version": "1.0.2"}
    return write(device / "apex/apex_0", files)


def rknpu(root: Path, *, address: str = "fdab0000.npu", soc: str = "rk3588", cores: int = 3) -> Path:
    """The vendor's driver: no class; platform bus, devfreq, debugfs and a thermal zone by type."""
    platform = write(
        root / "sys/devices/platform" / address,
        {"uevent": f"DRIVER=RKNPU\nOF_COMPATIBLE_0=rockchip,{soc}-rknpu"},
    )
    (root / "sys/bus/platform/drivers/RKNPU").mkdir(parents=True)
    link(root / "sys/bus/platform/drivers/RKNPU" / address, f"../../../../devices/platform/{address}")
    link(platform / "driver", "../../../bus/platform/drivers/RKNPU")
    link(root / "sys/class/devfreq" / address, f"../../devices/platform/{address}/devfreq/{address}")
    devfreq = write(
        platform / "devfreq" / address,
        {"cur_freq": 1_000_000_000, "max_freq": 1_000_000_000, "min_freq": 300_000_000},
    )
    link(devfreq / "device", "../..")
    (platform / "drm/renderD129").mkdir(parents=True)
    write(root / "dev/dri", {"renderD129": ""})
    load = "NPU load:  Core0: 90%, Core1:  0%, Core2:  0%," if cores == 3 else "NPU load:  12%"
    write(root / "sys/kernel/debug/rknpu", {"load": load, "version": "RKNPU driver: v0.9.8"})
    write(root / "sys/class/thermal/thermal_zone0", {"type": "soc-thermal", "temp": 99_000})
    write(root / "sys/class/thermal/thermal_zone4", {"type": "npu-thermal", "temp": 43_461})
    return root / "sys/kernel/debug/rknpu"


def hailo8(root: Path) -> Path:
    return pci_accel(root, "hailo", "1e60:2864", address="0001:01:00.0", kind="hailo_chardev", name="hailo0")


def hailo10(root: Path) -> Path:
    return pci_accel(root, "hailo1x", "1e60:45c4", address="0001:01:00.0", kind="hailo1x", name="hailo0")


def hailo15(root: Path) -> Path:
    """The integrated driver, the only one with a monitor."""
    return write(root / "sys/class/hailo1x_integrated/h1x", {"vdma_monitor": "INUSE\tTOTAL\n100\t1000"})


def rocket(root: Path) -> Path:
    platform = write(
        root / "sys/devices/platform/fdab0000.npu",
        {"uevent": "DRIVER=rocket\nOF_COMPATIBLE_0=rockchip,rk3588-rknn-core"},
    )
    (platform / "accel/accel0").mkdir(parents=True)
    link(platform / "accel/accel0/device", "../../../fdab0000.npu")
    link(root / "sys/class/accel/accel0", "../../devices/platform/fdab0000.npu/accel/accel0")
    (root / "sys/bus/platform/drivers/rocket").mkdir(parents=True)
    link(platform / "driver", "../../../bus/platform/drivers/rocket")
    return platform


def ethosu(root: Path) -> Path:
    """No driver link here: the uevent alone names the driver."""
    device = write(root / "sys/class/accel/accel0/device", {"uevent": "DRIVER=ethosu\nOF_COMPATIBLE_0=arm,ethos-u85"})
    write(root / "dev/accel", {"accel0": ""})
    return device


VNPU = {
    "uevent": "DRIVER=vnpu\nVNPU_NAME=npu0",
    "vendor": "npuops",
    "vbnv": "rk3588",
    "fw_version": "1.4.2",
    "driver_version": "0.9.8",
    "status": "online",
    "npu_busy_time_us": 0,
    "npu_memory_utilization": 12 << 20,
    "npu_memory_total_bytes": 1 << 30,
    "freq/current_freq": 1000,
    "freq/hw_max_freq": 1000,
    "freq/hw_min_freq": 300,
    "freq/set_max_freq": 1000,
    "reset_counter": 0,
    "commanded_reset_count": 0,
    "throttle_count": 0,
    "trip_count": 0,
    "ce_count": 0,
    "ue_count": 0,
    "inference_count": 0,
    "canary_count": 0,
    "canary_fail_count": 0,
    "refused_memory_count": 0,
    "refused_operator_count": 0,
    "refused_version_count": 0,
    "energy_uj": 0,
    "hwmon/hwmon0/name": "vnpu",
    "hwmon/hwmon0/temp1_input": 40_000,
    "hwmon/hwmon0/temp1_max": 85_000,
    "hwmon/hwmon0/temp1_crit": 115_000,
    "hwmon/hwmon0/power1_input": 1_500_000,
    "uevents": "0 add SEQNUM=1 DRIVER=vnpu VNPU_NAME=npu0",
}
VNPU_CONTEXT = {
    "pid": 4242,
    "priority": "focus",
    "busy_time_us": 0,
    "wait_time_us": 0,
    "memory_bytes": 4096,
    "submissions": 7,
    "completions": 7,
    "errors": 0,
    "preemptions": 1,
}


def vnpu(root: Path, *, number: int = 0) -> Path:
    """The tree of the virtual NPU's daemon: the root is shaped like /sys, and `device` is a folder."""
    device = write(
        root / f"class/accel/accel{number}/device", {**VNPU, "uevent": f"DRIVER=vnpu\nVNPU_NAME=npu{number}"}
    )
    write(device / "contexts/1", VNPU_CONTEXT)
    return device


ALL = {
    "ivpu_old": ivpu_old,
    "ivpu_new": ivpu_new,
    "amdxdna": amdxdna,
    "qaic": qaic,
    "habanalabs_new": habanalabs_new,
    "habanalabs_old": habanalabs_old,
    "apex": apex,
    "rknpu": rknpu,
    "hailo8": hailo8,
    "hailo10": hailo10,
    "hailo15": hailo15,
    "rocket": rocket,
    "ethosu": ethosu,
    "vnpu": vnpu,
}
