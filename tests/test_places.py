from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npuops.errors import IntegrityError, NpuopsError, StorageError
from npuops.server.places import OPERATOR, Places

ROOT = Path("/srv/all models")
NAMES = st.text("abcxyz019._- ", min_size=1, max_size=12).filter(lambda name: name.strip(" .-_") == name)


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("/srv/all models/digits/1/program.onnx has 3 of 7 bytes", "digits/1/program.onnx has 3 of 7 bytes"),
        ("cannot list /srv/all models: denied", "cannot list what is served: denied"),
        ("/srv/models-2/x", "…/x"),
        ("[Errno 2] No such file: '/tmp/npuops-serve-1/a/artifact/net.bin'", "[Errno 2] No such file: '…/net.bin'"),
        ("libvendor.so: /opt/vendor/lib/libvendor.so is missing", "libvendor.so: …/libvendor.so is missing"),
        ("the collector http://host:4318/v1/traces is down", "the collector http://host:4318/v1/traces is down"),
        ("the node /encoder/layer.0/Gather is not on this NPU", "the node /encoder/layer.0/Gather is not on this NPU"),
        ("3/4 of the rows; input/output error", "3/4 of the rows; input/output error"),
        ("model.toml: unknown key 'x'", "model.toml: unknown key 'x'"),
    ],
)
def test_of_a_place_only_what_is_within_the_repository_is_shown(words: str, shown: str) -> None:
    assert Places(ROOT).hidden(words) == shown


@given(folders=st.lists(NAMES, min_size=1, max_size=4), inner=st.lists(NAMES, min_size=1, max_size=3))
def test_whatever_the_folders_are_called_the_root_is_never_shown(folders: list[str], inner: list[str]) -> None:
    root = Path("/", "hiddenroot", *folders)
    within = "/".join(inner)
    shown = Places(root).hidden(f"cannot read {root}/{within}: it is gone")
    assert shown == f"cannot read {within}: it is gone"


def test_a_root_that_is_a_link_or_relative_is_known_by_all_its_names(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    places = Places(tmp_path / "link")
    assert places.hidden(f"{tmp_path}/real/m/1 and {tmp_path}/link/m/2") == "m/1 and m/2"
    relative = Path(os.path.relpath(tmp_path / "link"))
    assert Places(relative).hidden(f"{relative}/m/1, {tmp_path}/link/m/2") == "m/1, m/2"


@pytest.mark.parametrize("kind", [IntegrityError, StorageError])
def test_an_error_keeps_its_kind_and_says_whom_to_ask(kind: type[NpuopsError]) -> None:
    told = Places(ROOT).without(kind("/srv/all models/m/1 is damaged"))
    assert type(told) is kind
    assert (told.message, told.advice) == ("m/1 is damaged", OPERATOR)
    plain = kind("no place at all", advice="/")
    assert Places(ROOT).without(plain) is plain
