"""The reference engine: ONNX Runtime on this CPU, one thread, no optimization beyond the basic level."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from npuops.errors import DataError, RunError
from npuops.evaluate.samples import Samples
from npuops.targets.ort_values import with_bfloat16

REFERENCE_THREADS = 1


def run_reference(
    model: Path | onnx.ModelProto, samples: Samples, *, outputs: Sequence[str] | None = None
) -> dict[str, NDArray[Any]]:
    """Outputs of every sample, stacked: output name → array [len(samples), *output shape].

    Args:
        model: an ONNX file, or a graph in memory (at most 2 GiB).
        samples: the inputs.
        outputs: which graph outputs; all when None.

    Raises:
        RunError: ONNX Runtime refuses the model or an input; its words are in the message.
        DataError: there is no sample, or output shapes differ between samples.
        UnsupportedModelError: an input is text and an output is bfloat16.
    """
    if not samples.inputs:
        raise DataError(f"{samples.source}: no sample to run")
    session = _session(model)
    names = list(outputs) if outputs is not None else [output.name for output in session.get_outputs()]
    try:
        rows = [session.run(names, sample) for sample in samples.inputs]
    except Exception as error:
        raise RunError(f"the reference (ONNX Runtime CPU) refused an input: {error}") from error
    try:
        return {name: np.stack([row[index] for row in rows]) for index, name in enumerate(names)}
    except ValueError as error:
        raise DataError(
            f"an output's shape changes from sample to sample: {error}", advice="fix the shapes with --shape"
        ) from error


def _session(model: Path | onnx.ModelProto) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = REFERENCE_THREADS
    options.inter_op_num_threads = REFERENCE_THREADS
    options.log_severity_level = 4
    # Beyond BASIC, ORT fuses QDQ pairs into integer kernels that round differently: not a reference.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    try:
        session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"], enable_fallback=0)
    except Exception as error:
        raise RunError(f"the reference (ONNX Runtime CPU) cannot load the model: {error}") from error
    return with_bfloat16(session)
