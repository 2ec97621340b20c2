"""What a client sees of a model with a pipeline, and how the model's scores become its answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from npuops.errors import OptionError, RunError
from npuops.evaluate.class_scores import softmax, top_k
from npuops.models.steps import Pipeline, Softmax, TopK
from npuops.runtime.signature import Port, Shape, Signature
from npuops.runtime.text_tensor import write_text

IMAGE: Final = "image"
LABEL: Final = "label"
SCORE: Final = "score"
INDEX: Final = "index"

PICTURES: Final = 64
"""Most pictures of one request; each is an inference of its own."""

_NUMBERS: Final = frozenset({"float16", "float32", "float64", "int8", "uint8", "int16", "uint16", "int32", "int64"})


class Pictures:
    """A classifier with a pipeline, seen from outside: encoded pictures in, the best classes out.

    Attributes:
        signature: `image` BYTES [-1]; `label` BYTES (where there are labels), `score` FP32 and `index` INT64 [-1, k].
        row: shape of the model's input for one picture.
        dtype: of the model's input.
    """

    def __init__(self, pipeline: Pipeline, inner: Signature, labels: Sequence[str] | None) -> None:
        """Check the pipeline against what the model really takes and gives.

        Raises:
            OptionError: they do not fit.
        """
        self._pipeline = pipeline
        port = _only_input(pipeline, inner)
        self.row: Shape = (1, *(port.shape or ())[1:])
        self.dtype = port.dtype
        self._output = _scores(pipeline, inner)
        scores = inner.outputs[self._output]
        self._dtype = scores.dtype
        best = pipeline.postprocess[-1]
        self._k = best.k if isinstance(best, TopK) else 1
        self._labels = None if labels is None else np.array([name.encode() for name in labels], dtype=object)
        self.signature = Signature(
            inputs=(Port(name=IMAGE, dtype="string", shape=(-1,)),),
            outputs=tuple(self._ports()),
            batched=True,
            max_rows=PICTURES,
        )

    @property
    def output(self) -> int:
        """Which of the model's outputs holds the scores."""
        return self._output

    def scores(self, data: bytes | memoryview) -> NDArray[Any]:
        """The scores of one picture, [1, classes]."""
        return np.frombuffer(data, dtype=self._dtype).reshape(1, -1)

    def answer(self, scores: NDArray[Any]) -> tuple[list[bytes], tuple[Shape, ...]]:
        """Bytes and shapes of the signature's outputs.

        Args:
            scores: [pictures, classes], as the model gave them.

        Raises:
            RunError: the model gave fewer classes than are asked for, or there are labels for.
        """
        if scores.shape[1] < self._k or (self._labels is not None and scores.shape[1] != len(self._labels)):
            raise RunError(
                f"the model gave {scores.shape[1]} scores for {self._k} best classes"
                + (f" of {len(self._labels)} labels" if self._labels is not None else "")
            )
        # Of the scores themselves: as probabilities, those far behind the best are all 0, and no longer in an order.
        index = top_k(scores, self._k)
        for step in self._pipeline.postprocess:
            if isinstance(step, Softmax):
                scores = softmax(scores)
        best = np.take_along_axis(scores, index, axis=1).astype("<f4")
        parts = [best.tobytes(), index.astype("<i8").tobytes()]
        if self._labels is not None:
            parts.insert(0, write_text(self._labels[index]))
        return parts, (index.shape,) * len(parts)

    def _ports(self) -> list[Port]:
        shape = (-1, self._k)
        named = [Port(name=LABEL, dtype="string", shape=shape)] if self._labels is not None else []
        return [*named, Port(name=SCORE, dtype="float32", shape=shape), Port(name=INDEX, dtype="int64", shape=shape)]


def _only_input(pipeline: Pipeline, inner: Signature) -> Port:
    names = ", ".join(port.name for port in inner.inputs)
    if len(inner.inputs) != 1 or inner.inputs[0].name != pipeline.input:
        raise OptionError(f"the pipeline makes the input {pipeline.input!r}, the model takes {names}")
    port = inner.inputs[0]
    if port.shape is None or -1 in port.shape[1:] or port.dtype not in _NUMBERS:
        raise OptionError(f"the pipeline makes one picture of a fixed size, the model takes {port.dtype} {port.shape}")
    if not port.shape or port.shape[0] not in {1, -1}:
        raise OptionError(
            f"the pipeline makes one picture, the model takes {list(port.shape)}",
            advice="put an artifact with one row beside it, or build it with --dynamic-batch",
        )
    return port


def _scores(pipeline: Pipeline, inner: Signature) -> int:
    for place, port in enumerate(inner.outputs):
        if port.name == pipeline.output:
            if port.dtype not in _NUMBERS:
                raise OptionError(f"output {port.name!r} is {port.dtype}: no scores of classes")
            return place
    raise OptionError(f"the pipeline works on the output {pipeline.output!r}, which the model does not have")
