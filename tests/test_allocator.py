"""Device memory: nothing overlaps, nothing is lost, holes that touch are one."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from npuops.errors import DeviceMemoryError, OptionError
from npuops.vnpu.allocator import PAGE_BYTES, Allocator, Block

TOTAL = 64 * PAGE_BYTES


class Memory(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.allocator = Allocator(TOTAL + 100)
        self.blocks: list[Block] = []

    @rule(size=st.integers(1, 20 * PAGE_BYTES), owner=st.integers(1, 4))
    def allocate(self, size: int, owner: int) -> None:
        largest, pages = self.allocator.largest_free_bytes, -(-size // PAGE_BYTES) * PAGE_BYTES
        if pages > largest:
            with pytest.raises(DeviceMemoryError) as caught:
                self.allocator.allocate(size, owner)
            message, free = caught.value.message, self.allocator.free_bytes
            assert f"asked for {size} bytes" in message
            assert f"largest free block {largest}," in message
            assert f"free {free}" in message
            assert ("in pieces" in message) == (free >= pages)
            return
        block = self.allocator.allocate(size, owner)
        assert block.size_bytes == pages
        assert block.owner == owner
        self.blocks.append(block)

    @precondition(lambda self: self.blocks)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        block = data.draw(st.sampled_from(self.blocks))
        self.blocks.remove(block)
        self.allocator.free(block)

    @rule(owner=st.integers(1, 4))
    def free_all(self, owner: int) -> None:
        mine = [block for block in self.blocks if block.owner == owner]
        assert self.allocator.free_all(owner) == sum(block.size_bytes for block in mine)
        self.blocks = [block for block in self.blocks if block.owner != owner]
        assert self.allocator.owned_bytes(owner) == 0

    @invariant()
    def memory_is_covered_once(self) -> None:
        assert sorted(self.blocks, key=lambda block: block.address) == list(self.allocator.blocks)
        used = [(block.address, block.size_bytes) for block in self.allocator.blocks]
        covered = sorted([*used, *self.allocator.holes])
        assert all(address + size == after for (address, size), (after, _) in pairwise(covered))
        assert covered[0][0] == 0
        assert sum(covered[-1]) == TOTAL

    @invariant()
    def holes_never_touch(self) -> None:
        assert all(address + size < after for (address, size), (after, _) in pairwise(self.allocator.holes))

    @invariant()
    def the_sums_are_right(self) -> None:
        assert self.allocator.used_bytes + self.allocator.free_bytes == TOTAL
        assert self.allocator.free_bytes == sum(size for _, size in self.allocator.holes)
        assert self.allocator.largest_free_bytes == max([size for _, size in self.allocator.holes], default=0)
        for owner in range(1, 5):
            assert self.allocator.owned_bytes(owner) == sum(b.size_bytes for b in self.blocks if b.owner == owner)


Memory.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestMemory = Memory.TestCase


def test_memory_in_pieces_is_refused_with_asked_free_and_largest() -> None:
    allocator = Allocator(TOTAL)
    blocks = [allocator.allocate(16 * PAGE_BYTES, owner) for owner in (1, 2, 1, 2)]
    allocator.free(blocks[0])
    allocator.free(blocks[2])
    with pytest.raises(DeviceMemoryError) as caught:
        allocator.allocate(20 * PAGE_BYTES, 3)
    message = caught.value.message
    assert f"asked for {20 * PAGE_BYTES} bytes" in message
    assert f"free {32 * PAGE_BYTES} (it is in pieces)" in message
    assert f"largest free block {16 * PAGE_BYTES}" in message
    assert "unloading" in caught.value.advice


def test_first_fit_takes_the_lowest_hole() -> None:
    allocator = Allocator(TOTAL)
    first, second, _ = (allocator.allocate(PAGE_BYTES, 1) for _ in range(3))
    allocator.free(second)
    allocator.free(first)
    assert allocator.allocate(2 * PAGE_BYTES, 1).address == 0, "the two holes have become one"


def test_a_block_is_freed_once() -> None:
    allocator = Allocator(TOTAL)
    block = allocator.allocate(10, 1)
    allocator.free(block)
    with pytest.raises(OptionError, match="no block"):
        allocator.free(block)
    with pytest.raises(OptionError, match="0 bytes"):
        allocator.allocate(0, 1)
    with pytest.raises(OptionError, match="less than a page"):
        Allocator(PAGE_BYTES - 1)
