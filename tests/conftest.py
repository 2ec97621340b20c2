"""What all tests share: where the test data beside the project lies, a cache of their own, hypothesis' budgets.

Tests that need data that is absent skip loudly.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a background job of a shell script
    signal.signal(signal.SIGINT, signal.default_int_handler)  # else what a test starts could not be interrupted


# How long an example takes says more about the machine than about us: neither a deadline nor a complaint.
settings.register_profile("dev", max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("dev"), max_examples=200, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "dev")


def _shared() -> Path:
    return Path(os.environ.get("NPUOPS_SHARED", ROOT.parent / "shared"))


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test finds, or leaves, a build in the cache of whoever runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NPUOPS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def shared_models() -> Path:
    """The folder `shared/models` beside the checkout (or in $NPUOPS_SHARED)."""
    folder = _shared() / "models"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent: real models are test data beside the project (set NPUOPS_SHARED)")
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder `shared/data`, with published latencies and placements, beside the checkout (or in $NPUOPS_SHARED)."""
    folder = _shared() / "data"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent: published tables are test data beside the project (set NPUOPS_SHARED)")
    return folder


@pytest.fixture(scope="session")
def mobilenet(shared_models: Path) -> Path:
    """The real ImageNet MobileNetV2 in float ONNX, input `x` f32[1,3,224,224] in -1..1, 1001 classes."""
    return shared_models / "vision" / "mobilenet_v2_1.0_224_fp32.onnx"
