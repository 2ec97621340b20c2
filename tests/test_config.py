from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from npuops.config import load_options, read_options
from npuops.errors import OptionError


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    limit: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    name: str
    inner: Inner = field(default_factory=Inner)
    other: Inner | None = None
    list: tuple[Inner, ...] = ()
    named: Mapping[str, Inner] = field(default_factory=dict)


def test_options_become_a_frozen_dataclass() -> None:
    assert read_options(Outer, {"name": "a", "inner": {"limit": 2}}, where="x") == Outer(
        name="a", inner=Inner(limit=2.0)
    )


@pytest.mark.parametrize(
    "values",
    [
        {"nam": "a"},
        {"name": "a", "inner": {"limt": 1}},
        {"name": "a", "other": {"limt": 1}},
        {"name": "a", "list": [{"limit": 1}, {"limt": 1}]},
        {"name": "a", "named": {"x": {"limt": 1}}},
    ],
)
def test_an_unknown_key_is_an_error_that_names_the_nearest(values: dict[str, object]) -> None:
    with pytest.raises(OptionError) as caught:
        read_options(Outer, values, where="gate.toml")
    assert caught.value.advice.startswith("did you mean")
    assert "gate.toml" in caught.value.message


@pytest.mark.parametrize("values", [{}, {"name": 3}, {"name": "a", "inner": 3}])
def test_a_missing_key_and_a_wrong_type_are_errors(values: dict[str, object]) -> None:
    with pytest.raises(OptionError, match=r"gate\.toml"):
        read_options(Outer, values, where="gate.toml")


@pytest.mark.parametrize("text", ["name = ", "name = " + "[" * 5000, b"\xff\xfe\x00", None], ids=range(4))
def test_a_file_that_is_absent_or_no_toml_is_a_clear_error(tmp_path: Path, text: str | bytes | None) -> None:
    path = tmp_path / "o.toml"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(OptionError, match=r"o\.toml"):
        load_options(Outer, path)
