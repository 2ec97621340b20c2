"""What ails a device by its own word, and which devices have to rest for it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Ailment:
    """Why a device should not work.

    Attributes:
        why: in words, for people.
        answers: the runs that it has may still be answered; otherwise they go elsewhere at once.
        is_doubt: it may go on where no other device can take its work.
    """

    why: str
    answers: bool
    is_doubt: bool = False


def resting(ailing: Mapping[str, Ailment], able: Collection[str]) -> dict[str, Ailment]:
    """The devices that have to rest now, and why.

    Args:
        ailing: device → what ails it.
        able: devices that are ready, and no fallbacks.
    """
    others = any(name not in ailing for name in able)
    return {name: ailment for name, ailment in ailing.items() if others or not ailment.is_doubt}
