"""The tenants of an AMD NPU, from /proc/<pid>/fdinfo (the kernel's drm-usage-stats).

Of the drivers that npuops knows only amdxdna counts engine time there; so on every other device, who used how much
is known to the server alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from npuops.devices.tenants import Tenant
from npuops.devices.tree import Tree

NODES: Final = "/dev/accel/"
_NANOSECONDS: Final = re.compile(r"([0-9]{1,20}) ns")
_SIZE: Final = re.compile(r"([0-9]{1,20})(?: (KiB|MiB|GiB))?")
_UNITS: Final = {None: 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """One fdinfo file of a DRM device: bus address, client number, engine time and memory in use."""

    address: str
    client: str
    engine_ns: int | None
    memory_bytes: int | None


def parse_fdinfo(text: str) -> Usage | None:
    """The usage in a fdinfo file, or None if it is not of an amdxdna device or names no client."""
    lines = (line.partition(":") for line in text.splitlines())
    fields = {key.strip(): value.strip() for key, colon, value in lines if colon}
    driver, address, client = (fields.get(f"drm-{key}", "") for key in ("driver", "pdev", "client-id"))
    if not driver.startswith("amdxdna") or not address or not client:
        return None
    times = [
        int(found[1])
        for key, value in fields.items()
        if key.startswith("drm-engine-") and (found := _NANOSECONDS.fullmatch(value))
    ]
    held = [_bytes(fields.get(f"{driver}-{kind}-alloc", "")) for kind in ("internal", "external")]
    memory = [size for size in held if size is not None]
    return Usage(
        address=address,
        client=client,
        engine_ns=sum(times) if times else None,
        memory_bytes=sum(memory) if memory else None,
    )


def _bytes(text: str) -> int | None:
    found = _SIZE.fullmatch(text)
    return int(found[1]) * _UNITS[found[2]] if found else None


class FdinfoReader:
    """Looks through the processes; remembers engine times, which the kernel allows to go backwards."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._highest_ns: dict[tuple[str, str], int] = {}

    def tenants(self) -> dict[str, tuple[Tenant, ...]]:
        """Bus address → its clients, each once however many descriptors and forks share it."""
        usages: dict[tuple[str, str], tuple[int, Usage]] = {}
        for pid in filter(str.isdecimal, self._tree.names(self._tree.proc, "[0-9]*")):
            for usage in self._of_process(self._tree.proc / pid):
                key = usage.address, usage.client
                holder, known = usages.get(key, (int(pid), usage))
                usages[key] = holder, _larger(known, usage)
        self._highest_ns = {
            key: max(usage.engine_ns, self._highest_ns.get(key, 0))
            for key, (_, usage) in usages.items()
            if usage.engine_ns is not None
        }
        found: dict[str, tuple[Tenant, ...]] = {}
        for (address, client), (holder, usage) in usages.items():
            found[address] = (*found.get(address, ()), self._tenant(holder, address, client, usage))
        return found

    def _of_process(self, folder: Path) -> list[Usage]:
        found = []
        for descriptor in self._tree.names(folder / "fd"):
            if self._tree.link(folder / "fd" / descriptor).startswith(NODES):
                text = self._tree.text(folder / "fdinfo" / descriptor)
                usage = parse_fdinfo(text) if isinstance(text, str) else None
                if usage is not None:
                    found.append(usage)
        return found

    def _tenant(self, pid: int, address: str, client: str, usage: Usage) -> Tenant:
        highest_ns = self._highest_ns.get((address, client))
        return Tenant(
            client=client,
            pid=pid,
            command=self._tree.words(self._tree.proc / str(pid) / "comm"),
            busy_seconds=None if highest_ns is None else highest_ns / 1_000_000_000,
            memory_bytes=usage.memory_bytes,
        )


def _larger(one: Usage, other: Usage) -> Usage:
    """Two descriptors of one client are two looks at one number."""
    times = [usage.engine_ns for usage in (one, other) if usage.engine_ns is not None]
    sizes = [usage.memory_bytes for usage in (one, other) if usage.memory_bytes is not None]
    return replace(one, engine_ns=max(times, default=None), memory_bytes=max(sizes, default=None))
