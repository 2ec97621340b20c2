"""Our few messages against the protocol's own generated classes."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as messages

from npuops.loadgen.proto_wire import fields, infer_request, named, numbers, varint

TENSORS = st.lists(
    st.tuples(
        st.text(max_size=5), st.just("FP32"), st.lists(st.integers(-1, 2**40), max_size=4), st.binary(max_size=300)
    ),
    max_size=4,
)


@given(name=st.text(max_size=10), version=st.text(max_size=3), tensors=TENSORS)
def test_a_request_is_read_by_protobuf_as_it_was_meant(name: str, version: str, tensors: list[Any]) -> None:
    read = messages.ModelInferRequest.FromString(infer_request(name, version, tensors))
    assert (read.model_name, read.model_version) == (name, version)
    assert [(t.name, t.datatype, list(t.shape)) for t in read.inputs] == [(n, d, s) for n, d, s, _ in tensors]
    assert list(read.raw_input_contents) == [raw for *_, raw in tensors]
    assert messages.ModelMetadataRequest.FromString(named(name, version)).name == name


@given(shape=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5))
def test_numbers_come_back_from_what_protobuf_writes(shape: list[int]) -> None:
    tensor = messages.ModelMetadataResponse.TensorMetadata(name="x", shape=shape)
    found = [number for place, value in fields(tensor.SerializeToString()) if place == 3 for number in numbers(value)]
    assert found == shape


@given(data=st.binary(max_size=60))
def test_damaged_bytes_are_refused_or_read_but_never_crash(data: bytes) -> None:
    with suppress(ValueError):
        list(fields(data))


def test_what_is_cut_off_is_refused() -> None:
    with pytest.raises(ValueError, match="beyond"):
        list(fields(b"\x0a\x05ab"))
    with pytest.raises(ValueError, match="cut off"):
        list(fields(b"\x80"))
    assert varint(-1) == b"\xff" * 9 + b"\x01"
