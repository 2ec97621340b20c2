"""The tenants of a virtual NPU: `contexts/<id>/…` below its device folder."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from npuops.devices.discovery import Device
from npuops.devices.probes import Place
from npuops.devices.tenants import Tenant
from npuops.devices.tree import Tree

PRIORITIES: Final = ("idle", "normal", "focus", "realtime")
"""ivpu's, from weakest to strongest."""


def context_tenants(tree: Tree, device: Device) -> tuple[Tenant, ...]:
    """One for each context folder; a file that is absent or garbage is None."""
    folder = device.places[Place.DEVICE] / "contexts"
    return tuple(_tenant(tree, folder / name) for name in tree.names(folder, "[0-9]*"))


def _tenant(tree: Tree, folder: Path) -> Tenant:
    pid = _count(tree, folder / "pid")
    priority = tree.words(folder / "priority")
    return Tenant(
        client=folder.name,
        pid=pid,
        command=tree.words(tree.proc / str(pid) / "comm") if pid is not None else None,
        priority=priority if priority in PRIORITIES else None,
        busy_seconds=_seconds(tree, folder / "busy_time_us"),
        wait_seconds=_seconds(tree, folder / "wait_time_us"),
        memory_bytes=_count(tree, folder / "memory_bytes"),
        submissions=_count(tree, folder / "submissions"),
        completions=_count(tree, folder / "completions"),
        errors=_count(tree, folder / "errors"),
        preemptions=_count(tree, folder / "preemptions"),
    )


def _seconds(tree: Tree, path: Path) -> float | None:
    count_us = _count(tree, path)
    return None if count_us is None else count_us / 1_000_000


def _count(tree: Tree, path: Path) -> int | None:
    text = tree.text(path)
    if not isinstance(text, str) or not (text.isascii() and text.isdigit()) or len(text) > 20:
        return None
    return int(text)
