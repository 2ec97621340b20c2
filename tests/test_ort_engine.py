from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from npuops.errors import MissingToolchainError, ToolchainError
from npuops.targets.ort_engine import (
    Engine,
    Plugin,
    graph_bytes,
    installed_version,
    open_session,
    package_folder,
    plugin_devices,
)
from onnx_models import mlp

ABSENT = Plugin(
    ep_name="AcmeExecutionProvider", package="acme_npu_of_nobody", library="acme", install="pip install acme"
)


def test_a_plugin_that_is_not_installed_names_what_installs_it() -> None:
    with pytest.raises(MissingToolchainError, match="acme_npu_of_nobody is not installed") as caught:
        package_folder(ABSENT)
    assert caught.value.advice == "pip install acme"
    assert installed_version("acme-npu-of-nobody") is None


def test_a_library_that_does_not_load_is_a_missing_toolchain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "broken_npu_plugin"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "libbroken.so").write_text("not an ELF file")
    monkeypatch.syspath_prepend(tmp_path)
    plugin = Plugin(ep_name="Broken", package="broken_npu_plugin", library="broken", install="pip install broken")
    with pytest.raises(MissingToolchainError, match=r"libbroken\.so does not load"):
        plugin_devices(Engine(target="broken", plugin=plugin))


def test_a_missing_model_is_a_clear_error_and_not_a_cpu_session(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match=r"ort cannot load absent\.onnx"):
        open_session(Engine(target="ort", plugin=None), tmp_path / "absent.onnx", whole=True)


def test_registering_twice_in_one_process_is_once(tmp_path: Path) -> None:
    code = (
        "from npuops.targets.ort_engine import Engine, is_pristine, plugin_devices\n"
        "from npuops.targets.qnn_htp import PLUGIN\n"
        "assert is_pristine()\n"
        "engine = Engine(target='t', plugin=PLUGIN)\n"
        "first, second = plugin_devices(engine), plugin_devices(engine)\n"
        "assert len(first) == len(second) == 1 and not is_pristine()\n"
        "assert first[0].ep_name == 'QNNExecutionProvider'\n"
    )
    if installed_version("onnxruntime-qnn") is None:
        pytest.skip("onnxruntime-qnn is not installed")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


SPEAKERS = "npuops.quantize.quantize", "npuops.evaluate.reference", "npuops.targets.ort_engine"


@pytest.mark.parametrize("module", SPEAKERS)
def test_onnx_runtime_is_used_without_telling_anybody(module: str, tmp_path: Path) -> None:
    # An official build writes a device id and a queue of events into the home as soon as it is loaded, and sends them.
    model = mlp(tmp_path / "m.onnx")
    home, code = (
        tmp_path / "home",
        (
            f"import {module}; from pathlib import Path\n"
            "from npuops.targets.ort_engine import Engine, open_session\n"
            f"open_session(Engine(target='ort', plugin=None), Path({str(model)!r}), whole=True)"
        ),
    )
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if name not in {"ORT_DISABLE_TELEMETRY", "CI"}}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, "HOME": str(home), "TMPDIR": str(home), "XDG_CACHE_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list(home.iterdir()) == []


def test_a_graph_with_external_data_becomes_one_message(tmp_path: Path) -> None:
    plain = mlp(tmp_path / "m.onnx", hidden=256)
    assert graph_bytes(plain) == plain.read_bytes()
    outside = tmp_path / "ext.onnx"
    onnx.save(onnx.load(plain), outside, save_as_external_data=True, location="w.bin", size_threshold=64)
    whole = onnx.load_model_from_string(graph_bytes(outside))
    assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in whole.graph.initializer)
