from __future__ import annotations

import pytest

from npuops.artifacts.cache_limit import DEFAULT_LIMIT_BYTES, LIMIT_VARIABLE, cache_limit, parse_bytes
from npuops.errors import OptionError


@pytest.mark.parametrize(
    ("words", "size"), [("0", 0), ("300", 300), ("300B", 300), ("1.5 MiB", 3 << 19), ("2GiB", 2 << 30)]
)
def test_a_size_has_a_binary_unit(words: str, size: int) -> None:
    assert parse_bytes(words) == size


@pytest.mark.parametrize("words", ["", "2GB", "GiB", "-1", "1e3", "2 gib", "1.MiB", "²MiB", "9" * 400])
def test_what_is_no_size_is_refused_with_the_units(words: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse_bytes(words)
    assert "GiB" in caught.value.advice


def test_the_environment_sets_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LIMIT_VARIABLE, raising=False)
    assert cache_limit() == DEFAULT_LIMIT_BYTES
    monkeypatch.setenv(LIMIT_VARIABLE, "1KiB")
    assert cache_limit() == 1024
    monkeypatch.setenv(LIMIT_VARIABLE, "a lot")
    with pytest.raises(OptionError, match=LIMIT_VARIABLE):
        cache_limit()
