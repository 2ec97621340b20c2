"""The demo's real MobileNetV2 is no part of npuops: what is absent is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from npuops.cli.demo_models import crops, mobilenet, photo_files
from npuops.errors import DataError, UsageError


def test_absent_files_are_named_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NPUOPS_SHARED", str(tmp_path))
    for look, said in ((mobilenet, "mobilenet_v2"), (photo_files, "photos")):
        with pytest.raises(UsageError, match=said) as caught:
            look()
        assert "NPUOPS_SHARED" in caught.value.advice


def test_a_torn_photo_is_an_error_of_ours(tmp_path: Path) -> None:
    pytest.importorskip("PIL.Image", reason="photos need the extra `images`")
    (tmp_path / "torn.png").write_bytes(b"\x89PNG torn")
    with pytest.raises(DataError, match=r"torn\.png"):
        crops([tmp_path / "torn.png"], "x", seed=0)
