"""An artifact on its device: warmed up, and its run times measured for some numbers of rows."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from npuops.artifacts.manifest import Artifact
from npuops.errors import DeviceError, DeviceMemoryError, NpuopsError, RunError
from npuops.models.model import TensorInfo
from npuops.targets.protocol import Session
from npuops.targets.registry import open_target

_REPEATS: Final = 5
_REPEAT_US: Final = 4_000


class LoadedArtifact:
    """One artifact on the device.

    Attributes:
        inputs, outputs: as its manifest says.
        dtypes: of the inputs; None for text.
        answers: dtypes of the outputs; None for text.
        session: runs it.
    """

    def __init__(self, artifact: Artifact) -> None:
        """Open it on its target.

        Raises:
            NpuopsError: the target cannot.
        """
        runner = open_target(artifact.manifest.target).runner
        if runner is None:
            raise RunError(
                f"nothing on this machine runs an artifact for {artifact.manifest.target}",
                advice="serve one for another target; npuops targets says what runs here",
            )
        self.inputs: tuple[TensorInfo, ...] = artifact.manifest.inputs
        self.outputs: tuple[TensorInfo, ...] = artifact.manifest.outputs
        self.dtypes = [numpy_dtype(tensor.dtype) for tensor in self.inputs]
        self.answers = [numpy_dtype(tensor.dtype) for tensor in self.outputs]
        self.session: Session = runner.open(artifact)

    def blanks(self, rows: int) -> dict[str, NDArray[Any]]:
        """Inputs of that many rows: zeros, or empty texts; other free sizes are 1."""
        return {
            tensor.name: np.full(_filled(tensor, rows), "", object)
            if dtype is None
            else np.zeros(_filled(tensor, rows), dtype)
            for tensor, dtype in zip(self.inputs, self.dtypes, strict=True)
        }

    def answer(self, feeds: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Run it; gives the outputs in the manifest's order.

        Raises:
            NpuopsError: as the session.
            RunError: an output is missing.
        """
        found = self.session.run(feeds)
        try:
            return [found[tensor.name] for tensor in self.outputs]
        except KeyError as error:
            raise RunError(f"the device gave no output {error}") from error

    def check(self, values: Sequence[NDArray[Any]]) -> None:
        """Whether the outputs are of the dtypes that the manifest promises.

        Raises:
            RunError: one is not.
        """
        for tensor, dtype, value in zip(self.outputs, self.answers, values, strict=True):
            if value.dtype.kind in "OSU" if dtype is None else value.dtype == dtype:
                continue
            raise RunError(f"output {tensor.name!r} is {value.dtype.name}; the manifest says {tensor.dtype}")


def warm_up(loaded: LoadedArtifact) -> bool:
    """The first run costs more than any other. A model may refuse zeros of size 1: then its first request warms it.

    Raises:
        DeviceError: the device is not up to it.
    """
    try:
        loaded.check(loaded.answer(loaded.blanks(1)))
    except DeviceError:
        raise
    except NpuopsError:
        return False
    return True


def measure_curve(loaded: LoadedArtifact, sizes: Sequence[int], budget_us: float) -> list[tuple[int, float]]:
    """Median run times in microseconds for some numbers of rows, within a budget of time.

    It ends before the first size that the model refuses, so that no batch of it will ever be tried: many a model
    says that its rows are free, and has a one written somewhere inside.

    Raises:
        DeviceError: the device is lost.
    """
    curve: list[tuple[int, float]] = []
    spent_us = 0.0
    for rows in sizes:
        feeds = loaded.blanks(rows)
        times: list[float] = []
        try:
            while len(times) < _REPEATS and (len(times) < 2 or sum(times) < _REPEAT_US * _REPEATS):
                begun = time.perf_counter_ns()
                loaded.session.run(feeds)
                times.append((time.perf_counter_ns() - begun) / 1000)
        except NpuopsError as error:
            if isinstance(error, DeviceError) and not isinstance(error, DeviceMemoryError):
                raise
            break
        # The first run of a size allocates, and is no sample.
        curve.append((rows, statistics.median(times[1:])))
        spent_us += sum(times)
        if spent_us + 2 * 2 * times[-1] > budget_us:
            break
    return curve


def numpy_dtype(name: str) -> np.dtype[Any] | None:
    """Of a tensor of the manifest; None for text, whose elements are objects."""
    if name == "string":
        return None
    if name == "bfloat16":
        import ml_dtypes  # noqa: PLC0415 - few models need it

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def _filled(tensor: TensorInfo, rows: int) -> tuple[int, ...]:
    shape = tensor.shape or ()
    return tuple(dim if isinstance(dim, int) else (rows if axis == 0 else 1) for axis, dim in enumerate(shape))
