"""The head of an inference request: all of it but the tensors' data.

`read_head` takes the parsed JSON of a REST request; gRPC fills the same nouns. Nothing here knows a model: whether the
names and shapes are right is the plan's question (infer_plan.py).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, Final

from npuops.errors import DataError, nearest
from npuops.runtime.signature import Shape

TENSOR_LIMIT: Final = 1000
RANK_LIMIT: Final = 32
"""numpy 1's, and that of every runtime we know."""
SIZE_LIMIT: Final = 2**31
ELEMENT_LIMIT: Final = 2**48
"""Of one tensor. No request comes near it; it keeps sums of bytes within 64 bits in every language."""
NAME_LIMIT: Final = 1024

Parameter = bool | int | float | str
Parameters = Mapping[str, Parameter]

REQUEST_FIELDS: Final = frozenset({"id", "parameters", "inputs", "outputs", "model_name", "model_version"})
"""KServe's clients repeat the model's name and version in the body; the path decides."""
INPUT_FIELDS: Final = frozenset({"name", "shape", "datatype", "parameters", "data"})
OUTPUT_FIELDS: Final = frozenset({"name", "parameters"})


@dataclass(frozen=True, slots=True)
class RegionRef:
    """A place in a registered shared memory region; `offset` and `byte_size` in bytes."""

    region: str
    offset: int
    byte_size: int


@dataclass(frozen=True, slots=True)
class TensorHead:
    """One input without its data.

    Attributes:
        data_bytes: of its binary data; None where the data are JSON or in a region.
        region: where its data lie, if in shared memory.
    """

    name: str
    datatype: str
    shape: Shape
    data_bytes: int | None = None
    region: RegionRef | None = None

    @property
    def is_json(self) -> bool:
        """Its data stand in the JSON."""
        return self.data_bytes is None and self.region is None


@dataclass(frozen=True, slots=True)
class OutputWish:
    """An output that the client asks for by name.

    Attributes:
        binary: as bytes behind the JSON, not in it.
        classes: that many best classes instead of the tensor; 0: the tensor.
        region: the shared memory that it goes to.
    """

    name: str
    binary: bool = False
    classes: int = 0
    region: RegionRef | None = None


@dataclass(frozen=True, slots=True)
class InferHead:
    """A request without its data.

    Attributes:
        outputs: that the client asks for; empty for all.
        parameters: of the request, as they came.
        binary_output: outputs that nobody asked for by name go out as bytes.
    """

    id: str
    inputs: tuple[TensorHead, ...]
    outputs: tuple[OutputWish, ...] = ()
    parameters: Parameters = field(default_factory=dict)
    binary_output: bool = False


def read_head(document: object) -> InferHead:
    """The head of a parsed JSON request. What stands under `data` is not looked at, only whether it is there.

    Clients that write all fields (pydantic's, MLServer's) write null where one has nothing: an optional one is absent.

    Raises:
        DataError: a field is unknown, missing, or of the wrong kind; the message names it and its tensor.
    """
    request = _object(document, "the request")
    _known(request, REQUEST_FIELDS, "the request")
    identity = request.get("id")
    if identity is None:
        identity = ""
    if not isinstance(identity, str):
        raise DataError(f"'id' of the request is {_kind(identity)}, it must be a string")
    parameters = read_parameters(request.get("parameters"), "the request")
    binary = flag(parameters, "binary_data_output", "the request")
    if "inputs" not in request:
        raise DataError("the request has no 'inputs'", advice="it must list each input with name, shape and datatype")
    inputs = tuple(_read_input(each, f"input {at}") for at, each in enumerate(_tensors(request["inputs"], "'inputs'")))
    outputs = request.get("outputs")
    wishes = tuple(
        _read_output(each, f"output {at}", binary=binary)
        for at, each in enumerate(_tensors([] if outputs is None else outputs, "'outputs'"))
    )
    return InferHead(id=identity, inputs=inputs, outputs=wishes, parameters=parameters, binary_output=binary)


def read_parameters(value: object, owner: str) -> dict[str, Parameter]:
    """The parameters of a request, an input or an output; absent is empty, and one that is null is absent.

    Raises:
        DataError: not an object, or a value that is not a string, a number or a boolean.
    """
    if value is None:
        return {}
    found = {key: each for key, each in _object(value, f"'parameters' of {owner}").items() if each is not None}
    for key, each in found.items():
        if not isinstance(each, bool | int | float | str):
            raise DataError(
                f"parameter {key[:80]!r} of {owner} is {_kind(each)}",
                advice="a parameter is a string, a number or a boolean",
            )
    return found


def flag(parameters: Parameters, key: str, owner: str, *, default: bool = False) -> bool:
    """A parameter that is true or false.

    Raises:
        DataError: it is something else.
    """
    value = parameters.get(key, default)
    if not isinstance(value, bool):
        raise DataError(f"parameter {key!r} of {owner} is {_kind(value)}, it must be true or false")
    return value


def count(parameters: Parameters, key: str, owner: str, *, limit: int = 2**63) -> int | None:
    """A parameter that is a whole number from 0 to below `limit`; None where it is absent.

    Raises:
        DataError: it is something else.
    """
    value = parameters.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < limit:
        shown = value if isinstance(value, int) and not isinstance(value, bool) else _kind(value)
        raise DataError(f"parameter {key!r} of {owner} is {shown}, it must be a whole number from 0 to {limit - 1}")
    return value


def read_region(parameters: Parameters, owner: str) -> RegionRef | None:
    """The place in shared memory that the parameters of a tensor name.

    Raises:
        DataError: only one of region and size is given, or one is of the wrong kind.
    """
    region = parameters.get("shared_memory_region")
    size = count(parameters, "shared_memory_byte_size", owner)
    offset = count(parameters, "shared_memory_offset", owner)
    if region is None and size is None and offset is None:
        return None
    if not isinstance(region, str):
        raise DataError(f"{owner} needs 'shared_memory_region', a region's name, beside its size and offset")
    if size is None:
        raise DataError(f"{owner} needs 'shared_memory_byte_size' beside 'shared_memory_region'")
    return RegionRef(region=region, offset=offset or 0, byte_size=size)


def check_shape(shape: Shape, tensor: str) -> None:
    """No server should try to hold a tensor beyond these limits.

    Raises:
        DataError: too many axes, a size that is negative or too large, or too many elements.
    """
    if len(shape) > RANK_LIMIT:
        raise DataError(f"{tensor} has {len(shape)} axes, at most {RANK_LIMIT} are served")
    for size in shape:
        if not 0 <= size < SIZE_LIMIT:
            raise DataError(f"{tensor} has a size of {size}, it must be from 0 to {SIZE_LIMIT - 1}")
    if prod(shape) > ELEMENT_LIMIT:
        raise DataError(f"{tensor} has {prod(shape)} elements, at most {ELEMENT_LIMIT} are served")


def _read_input(value: object, place: str) -> TensorHead:
    tensor = _object(value, place)
    name = _name(tensor, place)
    owner = f"input {name!r}"
    _known(tensor, INPUT_FIELDS, owner)
    datatype = tensor.get("datatype")
    if not isinstance(datatype, str):
        raise DataError(f"'datatype' of {owner} is {_kind(datatype)}, it must be a string such as \"FP32\"")
    shape = _read_shape(tensor.get("shape"), owner)
    parameters = read_parameters(tensor.get("parameters"), owner)
    size = count(parameters, "binary_data_size", owner)
    region = read_region(parameters, owner)
    given = [
        word
        for word, is_given in (
            ("'data'", "data" in tensor),
            ("'binary_data_size'", size is not None),
            ("'shared_memory_region'", region is not None),
        )
        if is_given
    ]
    if len(given) != 1:
        raise DataError(
            f"{owner} has {' and '.join(given) or 'no data'}",
            advice="give exactly one of data, or parameters binary_data_size, or shared_memory_region",
        )
    return TensorHead(name=name, datatype=datatype, shape=shape, data_bytes=size, region=region)


def _read_output(value: object, place: str, *, binary: bool) -> OutputWish:
    wish = _object(value, place)
    name = _name(wish, place)
    owner = f"output {name!r}"
    _known(wish, OUTPUT_FIELDS, owner)
    parameters = read_parameters(wish.get("parameters"), owner)
    classes = count(parameters, "classification", owner, limit=SIZE_LIMIT) or 0
    region = read_region(parameters, owner)
    if region is not None:
        if classes:
            raise DataError(f"{owner} asks for 'classification', which shared memory does not hold")
        if flag(parameters, "binary_data", owner):
            raise DataError(f"{owner} asks for 'binary_data' and for shared memory", advice="give one of the two")
        return OutputWish(name=name, region=region)
    return OutputWish(name=name, binary=flag(parameters, "binary_data", owner, default=binary), classes=classes)


def _read_shape(value: object, owner: str) -> Shape:
    if not isinstance(value, list) or not all(isinstance(dim, int) and not isinstance(dim, bool) for dim in value):
        raise DataError(f"'shape' of {owner} must be a list of whole numbers, it is {_kind(value)}")
    shape = tuple(value)
    check_shape(shape, owner)
    return shape


def _tensors(value: object, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise DataError(f"{what} of the request is {_kind(value)}, it must be a list")
    if len(value) > TENSOR_LIMIT:
        raise DataError(f"{what} of the request has {len(value)} tensors, at most {TENSOR_LIMIT} are served")
    return value


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{what} is {_kind(value)}, it must be an object")
    return value


def _name(tensor: Mapping[str, Any], place: str) -> str:
    name = tensor.get("name")
    if not isinstance(name, str) or not 0 < len(name) <= NAME_LIMIT:
        raise DataError(f"'name' of {place} must be a string of 1 to {NAME_LIMIT} characters, it is {_kind(name)}")
    return name


def _known(found: Mapping[str, Any], known: Collection[str], owner: str) -> None:
    for key in found:
        if key not in known:
            raise DataError(f"{owner} has the unknown field {key[:80]!r}", advice=nearest(key[:80], known))


def _kind(value: object) -> str:
    """What a JSON value is, in JSON's words."""
    if value is None:
        return "null or absent"
    if isinstance(value, bool):
        return "true" if value else "false"
    words: dict[type, str] = {str: "a string", dict: "an object", list: "a list"}
    return words.get(type(value), "a number")
