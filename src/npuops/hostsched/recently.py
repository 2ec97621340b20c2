"""What was seen lately, in bounded room: an agent runs for months, and tasks come and go."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final, Generic, TypeVar

MOST: Final = 4096

Item = TypeVar("Item", bound=Hashable)


class Recently(Generic[Item]):
    """A set that forgets what was not added for longest."""

    def __init__(self, most: int = MOST) -> None:
        """Empty; it holds so many."""
        self._most = most
        self._items: dict[Item, None] = {}

    def add(self, item: Item) -> bool:
        """Whether it was not there."""
        is_new = item not in self._items
        self._items.pop(item, None)
        self._items[item] = None
        if len(self._items) > self._most:
            del self._items[next(iter(self._items))]
        return is_new

    def __contains__(self, item: Item) -> bool:
        """Whether it was added, and not forgotten since."""
        return item in self._items

    def __len__(self) -> int:
        """How many it holds."""
        return len(self._items)
