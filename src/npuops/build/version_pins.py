"""Version pins: a small, strict part of Python's version specifiers, enough to hold a toolchain in place.

A spec is one or more clauses joined by commas, all of which must hold: `==2.7.0`, `==2.7.*`, `!=2.7.1`,
`>=2.7,<3`. Versions are compared number by number, missing numbers are zeros (`2.7` is `2.7.0`). A version with
letters in it (`2.8rc1`, `2.7.0+cu12`) has no agreed order: only `==` and `!=` with exactly that text judge it.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Final

from npuops.errors import OptionError

_ORDER: Final[dict[str, Callable[[Any, Any], bool]]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "==": operator.eq,
    "!=": operator.ne,
}
_CLAUSE: Final = re.compile(r"(==|!=|>=|<=|>|<)\s*([^\s,=<>!*]+?)(\.\*)?")
_PLAIN: Final = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18})*")


@dataclass(frozen=True, slots=True)
class Clause:
    """One comparison; `prefix` is the `.*` of `==2.7.*`."""

    sign: str
    version: str
    prefix: bool


def parse_pin(spec: str) -> tuple[Clause, ...]:
    """The clauses of `spec`.

    Raises:
        OptionError: a clause that is not of the grammar above.
    """
    return tuple(_parse_clause(part.strip(), spec) for part in spec.split(","))


def satisfies(version: str, spec: str) -> bool | None:
    """Whether `version` obeys every clause of `spec`; None where the version cannot be ordered.

    Raises:
        OptionError: the spec is not of the grammar above.
    """
    answers = [_holds(version, clause) for clause in parse_pin(spec)]
    if False in answers:
        return False
    return None if None in answers else True


def _parse_clause(text: str, spec: str) -> Clause:
    match = _CLAUSE.fullmatch(text)
    if match is None:
        raise OptionError(
            f"version pin {spec!r}: cannot read {text!r}", advice="write ==2.7.0, ==2.7.*, !=2.7.1 or >=2.7,<3"
        )
    sign, version, star = match.groups()
    plain = _PLAIN.fullmatch(version) is not None
    if star and (sign not in {"==", "!="} or not plain):
        raise OptionError(f"version pin {spec!r}: .* goes with == or != and a version of numbers only")
    if sign not in {"==", "!="} and not plain:
        raise OptionError(
            f"version pin {spec!r}: {version!r} has no order", advice="versions with letters can only be pinned by =="
        )
    return Clause(sign, version, star is not None)


def _holds(version: str, clause: Clause) -> bool | None:
    if version == clause.version and not clause.prefix:
        return clause.sign in {"==", ">=", "<="}
    ordered = _PLAIN.fullmatch(version) is not None
    if not ordered or _PLAIN.fullmatch(clause.version) is None:
        return None if clause.sign not in {"==", "!="} or clause.prefix else clause.sign == "!="
    found, wanted = _numbers(version), _numbers(clause.version)
    if clause.prefix:
        padded = found + (0,) * max(0, len(wanted) - len(found))
        return _ORDER[clause.sign](padded[: len(wanted)], wanted)
    pairs = list(zip_longest(found, wanted, fillvalue=0))
    return _ORDER[clause.sign]([left for left, _ in pairs], [right for _, right in pairs])


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
