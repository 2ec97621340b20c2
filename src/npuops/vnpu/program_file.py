"""`program.json`: what a compilation for a virtual NPU writes, beside the graph that gives its numbers. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

import msgspec

from npuops.errors import IncompatibleArtifactError, OptionError
from npuops.vnpu.program import Program

SCHEMA: Final = "npuops.vnpu-program/1"
ENTRY: Final = "program.json"
MODEL: Final = "model.onnx"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramFile:
    """The entry of an artifact for `vnpu:PROFILE`.

    Attributes:
        profile: the chip that it was compiled for; it runs on no other.
        compiler: version of the compiler, for the firmware's compatibility table.
        program: what an inference costs.
        format: number format of the activations, of `perf.FORMATS`.
        model: file in the same folder with the whole graph, as ONNX.
    """

    profile: str
    compiler: str
    program: Program
    format: str = "int8"
    model: str = MODEL
    schema: str = SCHEMA


def encode_program(file: ProgramFile) -> bytes:
    """The same bytes for the same program."""
    return msgspec.json.format(msgspec.json.encode(file, order="deterministic"), indent=1)


def decode_program(data: bytes) -> ProgramFile:
    """What `encode_program` wrote.

    Raises:
        IncompatibleArtifactError: another format, or not a program.
    """
    try:
        found = msgspec.json.decode(data, type=ProgramFile)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OptionError) as error:
        raise IncompatibleArtifactError(f"{ENTRY} is no program: {error}", advice="build the artifact again") from error
    if found.schema != SCHEMA:
        raise IncompatibleArtifactError(
            f"{ENTRY} has the format {found.schema!r}, this npuops reads {SCHEMA!r}", advice="build the artifact again"
        )
    if found.model in {"", ".."} or PurePosixPath(found.model).name != found.model:
        raise IncompatibleArtifactError(
            f"{ENTRY} names {found.model!r}, which is no file beside it", advice="do not trust this artifact"
        )
    return found
