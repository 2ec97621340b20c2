"""Protobuf messages from a compact table, in a descriptor pool of their own.

Another package with messages of the same names (`tritonclient` has them) would clash with ours in the library's default
pool, and generated modules refuse any runtime that is older than their generator. A table does neither.

One message a line, `Name: field number type, …`; an indented line goes on with the one before. A type is a scalar of
protobuf's, a message or enum of the table, or `.Name` for one that is nested in this message; `*` after it means
repeated, `{Type}` a map with text keys, and `choice|field` a member of a oneof. `enum Name: WORD number, …` is an enum.
"""

from __future__ import annotations

import re
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FIELD: Final = re.compile(
    r"(?:(?P<choice>\w+)\|)?(?P<name>\w+) (?P<number>\d+) (?P<type>[\w.]+|\{[\w.]+\})(?P<many>\*?)"
)
_TYPES: Final = descriptor_pb2.FieldDescriptorProto


def messages(package: str, table: str) -> dict[str, Any]:
    """The classes of a table's messages, by name; of nested ones by `Outer.Inner`.

    Raises:
        ValueError: the table has a line that is none.
    """
    file = descriptor_pb2.FileDescriptorProto(name=f"npuops/{package}.proto", package=package, syntax="proto3")
    entries = [_entry(text) for text in re.sub(r"\n +", " ", table.strip()).splitlines()]
    enums = {name for kind, name, _ in entries if kind == "enum"}
    made: dict[str, Any] = {}
    for kind, name, text in entries:
        outer, _, inner = name.rpartition(".")
        place = made[outer] if outer else file
        if kind == "enum":
            enum = place.enum_type.add(name=inner)
            for word in text.split(", "):
                key, number = word.split(" ")
                enum.value.add(name=key, number=int(number))
            continue
        made[name] = (place.nested_type if outer else place.message_type).add(name=inner)
        for field in text.split(", ") if text else ():
            _add_field(made[name], f"{package}.{name}", field, package, enums)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}")) for name in made}


def _entry(text: str) -> tuple[str, str, str]:
    head, _, fields = text.partition(":")
    kind, _, name = head.strip().rpartition(" ")
    return kind, name, fields.strip()


def _add_field(message: Any, full_name: str, text: str, package: str, enums: set[str]) -> None:
    match = _FIELD.fullmatch(text)
    if match is None:
        raise ValueError(f"{full_name}: no field: {text!r}")
    name, kind = match["name"], match["type"]
    field = message.field.add(name=name, number=int(match["number"]))
    field.label = _TYPES.LABEL_REPEATED if match["many"] or kind.startswith("{") else _TYPES.LABEL_OPTIONAL
    if match["choice"]:
        field.oneof_index = _oneof(message, match["choice"])
    if kind.startswith("{"):
        entry = message.nested_type.add(name="".join(part.capitalize() for part in name.split("_")) + "Entry")
        entry.options.map_entry = True
        _add_field(entry, f"{full_name}.{entry.name}", "key 1 string", package, enums)
        value = kind.strip("{}")
        nested = f".{full_name}{value}" if value.startswith(".") else value
        _add_field(entry, f"{full_name}.{entry.name}", f"value 2 {nested}", package, enums)
        kind = f".{entry.name}"
    _set_type(field, kind, full_name, package, enums)


def _set_type(field: Any, kind: str, full_name: str, package: str, enums: set[str]) -> None:
    if kind.startswith(f".{package}."):
        path = kind
    elif kind.startswith("."):
        path = f".{full_name}{kind}"
    elif kind[0].isupper():
        path = f".{package}.{kind}"
    else:
        field.type = getattr(_TYPES, f"TYPE_{kind.upper()}")
        return
    field.type_name = path
    is_enum = path.removeprefix(f".{package}.") in enums
    field.type = _TYPES.TYPE_ENUM if is_enum else _TYPES.TYPE_MESSAGE


def _oneof(message: Any, name: str) -> int:
    names = [choice.name for choice in message.oneof_decl]
    if name not in names:
        message.oneof_decl.add(name=name)
        return len(names)
    return names.index(name)
