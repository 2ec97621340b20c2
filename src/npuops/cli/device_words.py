"""The names of virtual devices, for whoever presses the tab key."""

from __future__ import annotations


def complete_device(incomplete: str) -> list[str]:
    """Every virtual device that is up, or was killed and not swept up yet, whose name begins so."""
    from npuops.errors import NpuopsError  # noqa: PLC0415 - help must not pay for it
    from npuops.vnpu.device_folder import all_folders  # noqa: PLC0415 - as above

    try:
        folders = all_folders()
    except NpuopsError:  # a shell that completes has no place for it
        return []
    return [folder.name for folder in folders if folder.name.startswith(incomplete)]
