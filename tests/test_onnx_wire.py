"""Counting protobuf fields before anything is unfolded."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from hostile_models import relu
from npuops.errors import UnsafeModelError
from npuops.models.onnx_wire import count_fields


def fields_of(message: object) -> int:
    """The same count from the parsed message."""
    total = 0
    for field, value in message.ListFields():  # type: ignore[attr-defined]  # any protobuf message
        values = value if field.is_repeated else [value]
        packed = (
            field.is_repeated and field.message_type is None and field.type not in {9, 12} and field.GetOptions().packed
        )
        total += 1 if packed else len(values)
        if field.message_type is not None:
            total += sum(fields_of(inner) for inner in values)
    return total


def test_the_count_is_that_of_the_parsed_model(shared_models: Path) -> None:
    for name in ("graphs/light_resnet50.onnx", "tiny/mnist_fp32.onnx"):
        content = (shared_models / name).read_bytes()
        assert count_fields(content) >= fields_of(onnx.load_from_string(content)) > 100


def test_a_limit_stops_the_walk() -> None:
    content = relu().SerializeToString()
    assert count_fields(content) < 40
    with pytest.raises(UnsafeModelError, match="more than 5 fields"):
        count_fields(content, limit=5)


@pytest.mark.parametrize("damage", [b"\x0b", b"\x3a\xff\x01", b"\xff" * 12, b"\x08"])
def test_what_is_no_protobuf_is_no_count(damage: bytes) -> None:
    with pytest.raises((IndexError, ValueError)):
        count_fields(damage)
