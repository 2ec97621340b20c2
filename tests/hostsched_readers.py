"""Who looks at the host: our C and Python, which have to give the same."""

from __future__ import annotations

import shutil

import pytest

from npuops.hostsched.look_library import VARIABLE, Library, usual_reader

READERS = ("c", "python")


def use(reader: str, monkeypatch: pytest.MonkeyPatch) -> Library | None:
    """From now on this one is the usual one, also for processes that are started; None is Python."""
    monkeypatch.setenv(VARIABLE, reader)
    return None if reader == "python" else the_library()


def the_library() -> Library:
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("there is no C compiler here: Python looks, and there is nothing to compare it with")
    found = usual_reader()
    assert found.library is not None, found.words
    return found.library
