"""Plans are made once for each distinct head, and the cache stays small."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient import http as triton

from npuops.errors import DataError, NpuopsError
from npuops.runtime.signature import Port, Signature
from npuops.server.infer_request import InferHead, read_head
from npuops.server.plan_cache import PLAN_LIMIT, PlanCache, split_id

ONE = Signature(
    inputs=(Port(name="x", dtype="float32", shape=(-1, 2)),),
    outputs=(Port(name="y", dtype="float32", shape=(-1, 2)),),
    batched=True,
    max_rows=4,
)
TENSOR = {"name": "x", "shape": [1, 2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}
REST = {"inputs": [TENSOR], "parameters": {"binary_data_output": True}}


def cache() -> PlanCache:
    return PlanCache(ONE, max_request_bytes=1000)


def header_of_tritons_client(identity: str) -> bytes:
    tensor = triton.InferInput("x", [1, 2], "FP32")
    tensor._raw_data = bytes(8)
    tensor._parameters["binary_data_size"] = 8
    body, size = triton.InferenceServerClient.generate_request_body([tensor], request_id=identity)
    return bytes(body[:size])


def test_requests_of_tritons_client_share_a_plan_whatever_their_id() -> None:
    plans = cache()
    heads = [split_id(header_of_tritons_client(identity)) for identity in ("", "1", "e5b0-77", "a b")]
    assert [identity for _, identity in heads] == [b"", b'"1"', b'"e5b0-77"', b'"a b"']
    assert len({id(plans.of_header(header)) for header, _ in heads}) == 1
    assert list(plans.by_header) == [heads[0][0]]


@given(st.text(max_size=20), st.booleans())
def test_cutting_the_id_off_changes_nothing_else(identity: str, spaced: bool) -> None:
    document = {"id": identity, **REST}
    header = orjson.dumps(document)
    if spaced:
        header = header.replace(b'"id":', b' "id" : ').replace(b',"inputs"', b' , \n "inputs"')
    rest, found = split_id(header)
    if found:
        assert orjson.loads(found) == identity
        assert orjson.loads(rest) == REST
    else:
        assert rest == header
        assert cache().of_header(header).id == (orjson.dumps(identity) if identity else b"")


@given(st.binary(max_size=60) | st.binary(max_size=40).map(lambda rest: b'{"id":"a",' + rest))
def test_random_bytes_are_refused_as_data(header: bytes) -> None:
    plans = cache()
    rest, _ = split_id(header)
    with pytest.raises(NpuopsError):
        plans.of_header(rest)


def test_an_id_elsewhere_in_the_head_is_echoed_and_its_head_not_kept() -> None:
    plans = cache()
    header = orjson.dumps({**REST, "id": "7"})
    assert split_id(header) == (header, b"")
    assert plans.of_header(header).id == b'"7"'
    assert plans.by_header == {}


def test_a_head_that_holds_data_is_not_kept() -> None:
    plans = cache()
    header = orjson.dumps({"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]})
    assert plans.of_header(header).has_json
    assert plans.by_header == {}


def test_the_cache_stays_bounded_when_every_head_differs() -> None:
    plans = cache()
    for at in range(PLAN_LIMIT + 10):
        plans.of_header(orjson.dumps({**REST, "parameters": {"mine": at}}))
    assert len(plans.by_header) <= PLAN_LIMIT
    plans.of_header(orjson.dumps({**REST, "parameters": {"mine": "a" * 20_000}}))
    assert max(map(len, plans.by_header)) < 1000


def test_a_key_asks_for_its_head_only_once() -> None:
    plans = cache()
    asked: list[int] = []

    def head() -> InferHead:
        asked.append(1)
        return read_head(REST)

    assert plans.of_key(("k",), head) is plans.of_key(("k",), head)
    assert asked == [1]
    assert plans.of_key(("k" * 20_000,), head) is not plans.of_key(("k" * 20_000,), head), "too long to keep"
    assert plans.of_raw(8) is plans.of_raw(8)


def test_what_does_not_fit_is_never_kept() -> None:
    plans = cache()
    header = orjson.dumps({"inputs": [{**TENSOR, "shape": [9, 2]}]})
    for _ in range(2):
        with pytest.raises(DataError):
            plans.of_header(header)
    with pytest.raises(DataError, match="not valid JSON"):
        plans.of_header(b'{"inputs":[')
    assert plans.by_header == {}
