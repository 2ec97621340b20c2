from __future__ import annotations

from dataclasses import replace

import pytest

from npuops.errors import IncompatibleArtifactError
from npuops.vnpu.program_file import ProgramFile, decode_program, encode_program
from virtual_devices import program

FILE = ProgramFile(profile="rk3588", compiler="2.1.0", program=program())


def test_a_program_survives_its_file_and_the_file_is_the_same_every_time() -> None:
    data = encode_program(FILE)
    assert decode_program(data) == FILE
    assert encode_program(decode_program(data)) == data


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is no program"),
        (b"\x7fELF", "is no program"),
        (b'{"profile": "\xff"}', "is no program"),
        (b'{"x":' * 100_000, "is no program"),
        (encode_program(FILE)[:-20], "is no program"),
        (encode_program(FILE).replace(b'"compute_us": 100.0', b'"compute_us": -1.0'), "no figure may be negative"),
        (encode_program(replace(FILE, model="../../home/secret.onnx")), "no file beside it"),
        (encode_program(replace(FILE, model="/etc/passwd")), "no file beside it"),
        (encode_program(replace(FILE, model="..")), "no file beside it"),
        (encode_program(FILE).replace(b"npuops.vnpu-program/1", b"npuops.vnpu-program/9"), "has the format"),
    ],
)
def test_what_is_no_program_is_said_so(data: bytes, words: str) -> None:
    with pytest.raises(IncompatibleArtifactError, match=words):
        decode_program(data)
