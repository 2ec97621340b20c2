"""A session on any execution provider of ONNX Runtime, in the words of the `Session` seam."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from numpy.typing import NDArray

from npuops.artifacts.manifest import Artifact
from npuops.errors import IncompatibleArtifactError, RunError
from npuops.models.model import TensorInfo
from npuops.targets.inputs import check_inputs
from npuops.targets.ort_engine import Engine, first_lines
from npuops.targets.protocol import Tensors


def check_artifact_target(artifact: Artifact, target: str) -> None:
    """An artifact opens only on the target that it was built for.

    Raises:
        IncompatibleArtifactError: it was built for another one.
    """
    if artifact.manifest.target != target:
        raise IncompatibleArtifactError(
            f"the artifact was built for {artifact.manifest.target}, not for {target}",
            advice=f"open it on {artifact.manifest.target}, or build it again for {target}",
        )


class OrtSession:
    """A loaded artifact. Inputs are checked by us first; NaN and infinity pass (the server judges values)."""

    def __init__(self, artifact: Artifact, engine: Engine, session: Any) -> None:
        self.inputs: tuple[TensorInfo, ...] = artifact.manifest.inputs
        self.outputs: tuple[TensorInfo, ...] = artifact.manifest.outputs
        self._engine = engine
        self._session: Any = session
        _match_names(artifact, "inputs", self.inputs, session.get_inputs())
        _match_names(artifact, "outputs", self.outputs, session.get_outputs())

    def run(self, inputs: Tensors) -> dict[str, NDArray[Any]]:
        """One inference.

        Raises:
            DataError: a name, shape or dtype is not the model's.
            RunError: the vendor's runtime refused, or the session was closed.
        """
        if self._session is None:
            raise RunError(f"this session on {self._engine.target} is closed", advice="open the artifact again")
        check_inputs(inputs, self.inputs)
        names = [tensor.name for tensor in self.outputs]
        try:
            values = self._session.run(names, dict(inputs))
        except Exception as error:
            raise RunError(
                f"{self._engine.target} refused an input: {first_lines(error)}",
                advice="the session is still on its device; check the values of this input",
            ) from error
        return dict(zip(names, values, strict=True))

    @property
    def providers(self) -> tuple[str, ...]:
        """The providers that the session is on now, the engine's own first."""
        return () if self._session is None else tuple(self._session.get_providers())

    def close(self) -> None:
        """Give the device back. A second call does nothing."""
        self._session = None


def _match_names(artifact: Artifact, what: str, wanted: Iterable[TensorInfo], got: Iterable[Any]) -> None:
    missing = sorted({tensor.name for tensor in wanted} ^ {node.name for node in got})
    if missing:
        raise IncompatibleArtifactError(
            f"{artifact.manifest.entry} and the manifest disagree on {what}: {', '.join(missing)}",
            advice="build the artifact again",
        )
