from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from npuops.errors import DataError
from npuops.server.grpc_decode import Skeletons, layout_of, parse
from npuops.server.infer_request import RegionRef


def request(
    data: list[bytes], identity: str = "", model: str = "m", parameters: dict[str, int] | None = None, **more: Any
) -> Any:
    message = service_pb2.ModelInferRequest(model_name=model, id=identity, raw_input_contents=data, **more)
    for at, piece in enumerate(data):
        message.inputs.add(name=f"x{at}", datatype="UINT8", shape=[len(piece)])
    for key, value in (parameters or {}).items():
        message.parameters[key].int64_param = value
    return message


def said(read: tuple[Any, str, Any]) -> tuple[Any, ...]:
    asked, identity, pieces = read
    return asked.model, asked.version, asked.key, identity, [bytes(piece) for piece in pieces], asked.head()


REQUESTS = st.builds(
    request,
    st.lists(st.binary(max_size=6), min_size=1, max_size=3),
    identity=st.sampled_from(["", "a", "b", "é", "12"]),
    model=st.sampled_from(["m", "n", "mm"]),
    parameters=st.dictionaries(st.sampled_from(["p", "q"]), st.integers(0, 3), max_size=2),
)


@given(st.lists(REQUESTS, max_size=30))
@settings(max_examples=200, deadline=None)
def test_what_is_remembered_says_the_same_as_parsing_anew(requests: list[Any]) -> None:
    skeletons = Skeletons()
    for message in [*requests, *requests]:
        wire = message.SerializeToString()
        assert said(skeletons.read(wire)) == said(parse(wire)[:3])


@given(st.lists(st.tuples(REQUESTS, st.integers(0, 200), st.binary(max_size=3)), max_size=12))
@settings(max_examples=300, deadline=None)
def test_spoiled_messages_are_judged_the_same_whether_their_like_is_known_or_not(
    spoiled: list[tuple[Any, int, bytes]],
) -> None:
    skeletons = Skeletons()

    def judged(read: Any, wire: bytes) -> Any:
        try:
            return said(read(wire)[:3])
        except DataError as error:
            return error.message

    for message, at, junk in spoiled:
        wire = message.SerializeToString()
        skeletons.read(wire)
        broken = wire[:at] + junk + wire[at + len(junk) :]
        assert judged(skeletons.read, broken) == judged(parse, broken)


def test_a_known_form_is_not_parsed_again() -> None:
    skeletons = Skeletons()
    first, _, _ = skeletons.read(request([b"abc", b"12345"], "id1").SerializeToString())
    again, identity, pieces = skeletons.read(request([b"xyz", b"67890"], "id2").SerializeToString())
    assert again is first
    assert (identity, [bytes(piece) for piece in pieces]) == ("id2", [b"xyz", b"67890"])


def test_forms_of_one_length_are_told_apart() -> None:
    skeletons = Skeletons()
    wires = [
        request([b"abcd"], model="mm").SerializeToString(),
        request([b"abcd"], model="nn").SerializeToString(),
        request([b"abcde"], model="m").SerializeToString(),
    ]
    assert len({len(wire) for wire in wires}) == 1
    for _ in range(3):
        assert [skeletons.read(wire)[0].model for wire in wires] == ["mm", "nn", "m"]


def test_an_id_that_is_no_text_is_refused_on_both_ways() -> None:
    skeletons = Skeletons()
    good = request([b"abcd"], "id").SerializeToString()
    skeletons.read(good)
    with pytest.raises(DataError):
        skeletons.read(good.replace(b"\x1a\x02id", b"\x1a\x02\xff\xff"))


def test_unusual_messages_are_taken_and_not_remembered() -> None:
    wire = request([b"abcd"], "one").SerializeToString()
    twice = wire + b"\x1a\x03two"
    assert layout_of(twice) is None
    asked, identity, pieces = Skeletons().read(twice)
    assert (asked.model, identity, list(pieces)) == ("m", "two", [b"abcd"])


def test_raw_contents_may_stand_anywhere() -> None:
    message = request([b"abcd"])
    raw = service_pb2.ModelInferRequest(raw_input_contents=[b"abcd"]).SerializeToString()
    message.ClearField("raw_input_contents")
    wire = raw + message.SerializeToString()
    skeletons = Skeletons()
    for data in (b"abcd", b"efgh"):
        _, _, pieces = skeletons.read(wire.replace(b"abcd", data))
        assert [bytes(piece) for piece in pieces] == [data]


def test_what_is_remembered_is_bounded() -> None:
    skeletons = Skeletons()
    for number in range(3000):
        skeletons.read(request([b"abcd"], parameters={"p": number}).SerializeToString())
    kept = sum(len(layout.known) for layouts in skeletons._layouts.values() for layout in layouts)
    assert kept <= 1024


def test_regions_and_wishes_are_read() -> None:
    message = request([])
    given_ = message.inputs.add(name="x", datatype="FP32", shape=[1])
    given_.parameters["shared_memory_region"].string_param = "r"
    given_.parameters["shared_memory_byte_size"].int64_param = 4
    wish = message.outputs.add(name="y")
    wish.parameters["classification"].int64_param = 3
    head = parse(message.SerializeToString())[0].head()
    assert head.inputs[0].region == RegionRef("r", 0, 4)
    assert (head.outputs[0].classes, head.outputs[0].binary) == (3, True)
    wish.parameters["shared_memory_region"].string_param = "r"
    wish.parameters["shared_memory_byte_size"].int64_param = 4
    with pytest.raises(DataError, match="classification"):
        parse(message.SerializeToString())[0].head()


def test_contents_of_an_input_in_shared_memory_are_refused() -> None:
    message = request([])
    given_ = message.inputs.add(name="x", datatype="FP32", shape=[1])
    given_.parameters["shared_memory_region"].string_param = "r"
    given_.contents.fp32_contents.append(1)
    with pytest.raises(DataError, match="shared memory"):
        parse(message.SerializeToString())
