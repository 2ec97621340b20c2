"""The numbers of a loaded program: ONNX Runtime on this processor computes what the modelled chip would."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

from npuops.errors import IncompatibleArtifactError, RunError
from npuops.targets.ort_engine import Engine, first_lines, open_session
from npuops.vnpu.segment import Segment, Views
from npuops.vnpu.tensors import Layout, Placed

_ENGINE: Final = Engine(target="vnpu numerics", plugin=None)
_QUICK_S: Final = 500e-6
"""Handing work to another thread and back costs about 60 µs; below this, waiting for it costs others little."""


class Numerics:
    """One ONNX graph."""

    def __init__(self, model: Path, layout: Layout) -> None:
        """Load the graph; this takes as long as ONNX Runtime's optimizer.

        Raises:
            ToolchainError: ONNX Runtime's words.
            IncompatibleArtifactError: the graph has other inputs or outputs than the program.
        """
        self._session: Any = open_session(_ENGINE, model, whole=True, adjust=_no_spinning)
        _match(model, "inputs", self._session.get_inputs(), layout.inputs)
        _match(model, "outputs", self._session.get_outputs(), layout.outputs)

    def on(self, segment: Segment) -> tuple[SlotNumerics, ...]:
        """Ready to run on each slot of a segment.

        Raises:
            RunError: ONNX Runtime does not take these tensors.
        """
        slots = zip(segment.inputs, segment.outputs, strict=True)
        try:
            return tuple(SlotNumerics(self._session, inputs, outputs) for inputs, outputs in slots)
        except Exception as error:
            raise RunError(f"the host runner does not take the tensors: {first_lines(error)}") from error


class SlotNumerics:
    """The graph, bound to the tensors of one slot: nothing is copied."""

    def __init__(self, session: Any, inputs: Views, outputs: Views) -> None:
        self._session, self._tensors = session, (inputs, outputs)  # the binding knows only their addresses
        self._binding = session.io_binding()
        self._spent_s: float | None = None
        for bind, tensors in ((self._binding.bind_input, inputs), (self._binding.bind_output, outputs)):
            for name, view in tensors.items():
                bind(name, "cpu", 0, view.dtype, view.shape, view.ctypes.data)

    @property
    def is_quick(self) -> bool:
        """Whether it is known to take less time than another thread is worth."""
        return self._spent_s is not None and self._spent_s < _QUICK_S

    def run(self) -> None:
        """Compute the slot's outputs from its inputs. One call at a time.

        Raises:
            RunError: ONNX Runtime refused, for example because an output has another shape or dtype than was agreed.
        """
        started = time.perf_counter()
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:
            raise RunError(
                f"the host runner refused: {first_lines(error)}",
                advice="check the values of this input; if no input works, build the artifact again",
            ) from error
        self._spent_s = time.perf_counter() - started


def _no_spinning(options: Any) -> None:
    # Threads that spin between two inferences would burn the cores that clients of the device need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")


def _match(model: Path, what: str, found: Any, wanted: tuple[Placed, ...]) -> None:
    names, agreed = {node.name for node in found}, {placed.spec.name for placed in wanted}
    if names != agreed:
        raise IncompatibleArtifactError(
            f"{model.name} and the program disagree on {what}: {', '.join(sorted(names ^ agreed))}",
            advice="they do not belong together; build the artifact again",
        )
