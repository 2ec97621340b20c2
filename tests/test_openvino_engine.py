from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from npuops.targets.openvino_engine import words_of
from npuops.targets.ort_engine import installed_version
from onnx_models import mlp

# Whatever touches the network or starts a thread for it is written down: nothing leaves the machine in this test.
WATCHED = """
import json, sys
from pathlib import Path
seen = []
sys.addaudithook(lambda name, _: seen.append(name) if name.startswith(("socket.", "urllib.", "http.")) else None)
from npuops.models.open import open_model
from npuops.targets.openvino_engine import compile_graph, runtime
from npuops.targets.openvino import OpenvinoTarget, engine_for
from npuops.targets.protocol import Precision
engine = engine_for(OpenvinoTarget("cpu"), Precision.FP32, {})
compile_graph(engine, open_model(Path("m.onnx")), Path.cwd())
assert runtime() is sys.modules["openvino"]
sending = [name for name in sys.modules if name.startswith("openvino_telemetry")]
print(json.dumps([seen, sending, hasattr(runtime(), "convert_model")]))
"""


def test_openvino_is_imported_and_used_without_telling_anybody(tmp_path: Path) -> None:
    if installed_version("openvino") is None:
        pytest.skip("openvino is not installed")
    mlp(tmp_path / "m.onnx")
    # A home without any opt-out, and no CI: here a plain `import openvino` makes an id, counts the use and sends both.
    silent = {"CI", "TF_BUILD", "JENKINS_URL"}
    environment = {name: value for name, value in os.environ.items() if name not in silent}
    home = tmp_path / "home"
    home.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", WATCHED],
        cwd=tmp_path,
        env={**environment, "HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen, sending, whole = json.loads(done.stdout)
    assert (seen, sending) == ([], [])
    assert whole, "the package itself must stay whole for others in the process"
    assert list(home.iterdir()) == []


def test_the_words_of_an_error_come_without_the_places_in_openvinos_source() -> None:
    words = "Exception from src/inference/src/cpp/core.cpp:105:\n\nCheck 'x' failed at y.cpp:3:\n  It broke.\n\n"
    assert words_of(RuntimeError(words)) == "Check 'x' failed at y.cpp:3: | It broke."
    assert len(words_of(RuntimeError("a" * 5000))) == 1500
