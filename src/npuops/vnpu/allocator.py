"""Device memory: first fit with a free list that coalesces, and that can fragment. Pure.

A block never moves (the device's addresses are in command streams), so free memory in pieces is not free memory for a
large program: the error of a failed allocation names the largest free block beside the sum.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Final

from npuops.errors import DeviceMemoryError, OptionError
from npuops.units import format_bytes

PAGE_BYTES: Final = 4096
"""Blocks are whole pages: these devices see memory through an IOMMU."""


@dataclass(frozen=True, slots=True)
class Block:
    """Allocated memory; `size_bytes` is what was asked for, rounded up to pages."""

    address: int
    size_bytes: int
    owner: int


class Allocator:
    """Hands out blocks of one address space and takes them back.

    Raises:
        OptionError: less than a page of memory.
    """

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes: Final = total_bytes // PAGE_BYTES * PAGE_BYTES
        if self.total_bytes <= 0:
            raise OptionError(f"{total_bytes} bytes of device memory are less than a page, {PAGE_BYTES} bytes")
        self._used: dict[int, Block] = {}
        self._held: dict[int, int] = {}
        self._free: list[tuple[int, int]] = [(0, self.total_bytes)]  # (address, size), by address, never touching

    @property
    def used_bytes(self) -> int:
        """Sum of all blocks."""
        return sum(self._held.values())

    @property
    def free_bytes(self) -> int:
        """Sum of all holes."""
        return self.total_bytes - self.used_bytes

    @property
    def largest_free_bytes(self) -> int:
        """Of one hole: the most that an allocation can get."""
        return max((size for _, size in self._free), default=0)

    @property
    def blocks(self) -> tuple[Block, ...]:
        """By address."""
        return tuple(self._used[address] for address in sorted(self._used))

    @property
    def holes(self) -> tuple[tuple[int, int], ...]:
        """(address, size in bytes) by address; no two touch."""
        return tuple(self._free)

    def owned_bytes(self, owner: int) -> int:
        """What one owner holds."""
        return self._held.get(owner, 0)

    def allocate(self, size_bytes: int, owner: int) -> Block:
        """The lowest hole that is large enough.

        Args:
            size_bytes: above 0; rounded up to whole pages.
            owner: whose it is, for `free_all`.

        Raises:
            OptionError: a size that isn't above 0.
            DeviceMemoryError: no hole is large enough; nothing changed.
        """
        if size_bytes <= 0:
            raise OptionError(f"an allocation of {size_bytes} bytes")
        size = -(-size_bytes // PAGE_BYTES) * PAGE_BYTES
        index = next((index for index, (_, hole) in enumerate(self._free) if hole >= size), None)
        if index is None:
            raise self._out_of_memory(size_bytes)
        address, hole = self._free[index]
        self._free[index : index + 1] = [(address + size, hole - size)] if hole > size else []
        block = self._used[address] = Block(address, size, owner)
        self._held[owner] = self.owned_bytes(owner) + size
        return block

    def free(self, block: Block) -> None:
        """Give a block back; holes that touch become one.

        Raises:
            OptionError: it isn't allocated (any more).
        """
        if self._used.get(block.address) != block:
            raise OptionError(f"no block of {block.size_bytes} bytes is allocated at {block.address:#x}")
        del self._used[block.address]
        self._held[block.owner] -= block.size_bytes
        if not self._held[block.owner]:
            del self._held[block.owner]
        start, end = block.address, block.address + block.size_bytes
        index = bisect_left(self._free, (start, 0))
        first = last = index
        if index > 0 and sum(self._free[index - 1]) == start:
            first, start = index - 1, self._free[index - 1][0]
        if index < len(self._free) and self._free[index][0] == end:
            last, end = index + 1, sum(self._free[index])
        self._free[first:last] = [(start, end - start)]

    def free_all(self, owner: int) -> int:
        """Everything of one owner; returns the bytes that came back."""
        mine = [block for block in self._used.values() if block.owner == owner]
        for block in mine:
            self.free(block)
        return sum(block.size_bytes for block in mine)

    def _out_of_memory(self, asked: int) -> DeviceMemoryError:
        free, largest = self.free_bytes, self.largest_free_bytes
        scattered = " (it is in pieces)" if free >= asked else ""
        return DeviceMemoryError(
            f"out of device memory: asked for {asked} bytes ({format_bytes(asked)}), free {free}{scattered}, "
            f"largest free block {largest}, total {self.total_bytes}",
            advice="unload a model, use a smaller one or a smaller batch"
            + ("; unloading and loading again in one go puts the pieces together" if free >= asked else ""),
        )
