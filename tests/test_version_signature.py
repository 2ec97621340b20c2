from __future__ import annotations

from typing import Any

import pytest

from made_artifact import manifest
from npuops.artifacts.manifest import Manifest
from npuops.errors import DataError, OptionError
from npuops.models.model import TensorInfo
from npuops.runtime.signature import Port, Signature
from npuops.server.version_signature import DYNAMIC_ROWS, published, rows_of, signature_of
from picture_models import COLOUR_PIPELINE

Shape = tuple[Any, ...] | None


def made(x: Shape, y: Shape, **changes: Any) -> Any:
    inputs = (TensorInfo(name="x", dtype="float32", shape=x),)
    return manifest(**{"inputs": inputs, "outputs": (TensorInfo(name="y", dtype="float32", shape=y),), **changes})


def shapes(*manifests: Any, **options: Any) -> tuple[Shape, Shape, bool, int]:
    signature = signature_of(manifests, **options)
    return signature.inputs[0].shape, signature.outputs[0].shape, signature.batched, signature.max_rows


def test_one_static_artifact_takes_exactly_its_shape() -> None:
    assert shapes(made((1, 3), (1, 2))) == ((1, 3), (1, 2), False, 1)
    assert shapes(made((8, 3), (8, 2))) == ((8, 3), (8, 2), False, 1)


def test_one_static_batch_has_free_rows_where_its_owner_says_so() -> None:
    assert shapes(made((8, 3), (8, 2)), free_rows=True) == ((-1, 3), (-1, 2), True, 8)
    assert shapes(made((8, 3), (8, 2)), free_rows=True, max_rows=4)[3] == 4
    assert shapes(made((1, 3), (1, 2)), free_rows=True) == ((1, 3), (1, 2), False, 1)
    assert shapes(made(("N", 3), ("N", 2)), free_rows=True)[2:] == (True, DYNAMIC_ROWS)
    with pytest.raises(OptionError, match="first axis"):
        signature_of([made((8, 3), (4, 2))], free_rows=True)


def test_a_symbolic_first_axis_of_all_tensors_is_a_batch() -> None:
    assert shapes(made(("batch", 3), ("batch", 2))) == ((-1, 3), (-1, 2), True, DYNAMIC_ROWS)
    assert shapes(made(("N", 3), (None, 2)), max_rows=256)[2:] == (True, 256)


@pytest.mark.parametrize("y", [(1, 2), ("other", 2), (), None])
def test_a_first_axis_that_one_tensor_does_not_share_is_only_a_free_size(y: Shape) -> None:
    x, _, batched, rows = shapes(made(("batch", 3), y))
    assert (x, batched, rows) == ((-1, 3), False, 1)


def test_buckets_of_other_rows_are_a_batch_up_to_the_largest() -> None:
    manifests = [made((rows, 3), (rows, 2)) for rows in (1, 4, 16)]
    assert shapes(*manifests) == ((-1, 3), (-1, 2), True, 16)
    assert shapes(*manifests, max_rows=8)[3] == 8
    assert shapes(*manifests, max_rows=99)[3] == 16


def test_buckets_of_other_lengths_free_that_axis_and_no_other() -> None:
    assert shapes(made((1, 128), (1, 2)), made((1, 384), (1, 2))) == ((1, -1), (1, 2), False, 1)
    assert shapes(made((1, 128), (1, 2)), made((4, 384), (4, 2))) == ((-1, -1), (-1, 2), True, 4)


def test_the_same_model_for_two_targets_is_one_signature() -> None:
    assert shapes(made((1, 3), (1, 2)), made((1, 3), (1, 2), target="ort-cpu")) == ((1, 3), (1, 2), False, 1)


@pytest.mark.parametrize(
    "other",
    [
        {"inputs": (TensorInfo(name="z", dtype="float32", shape=(1, 3)),)},
        {"inputs": (TensorInfo(name="x", dtype="int8", shape=(1, 3)),)},
        {"inputs": (TensorInfo(name="x", dtype="float32", shape=(1, 3, 1)),)},
        {"inputs": ()},
        {"outputs": (TensorInfo(name="y2", dtype="float32", shape=(1, 2)),)},
    ],
)
def test_artifacts_that_contradict_each_other_are_refused_with_both_sides(other: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"contradict each other: (in|out)puts '"):
        signature_of([made((1, 3), (1, 2)), made((1, 3), (1, 2), **other)])


def test_a_dtype_that_no_protocol_carries_is_refused() -> None:
    with pytest.raises(DataError, match="int4"):
        signature_of([manifest(inputs=(TensorInfo(name="x", dtype="int4", shape=(1,)),))])


def test_a_rank_that_nobody_knows_stays_unknown() -> None:
    assert signature_of([made(None, (1, 2))]).inputs == (Port(name="x", dtype="float32", shape=None),)


@pytest.mark.parametrize(
    ("x", "y", "rows"), [((4, 1), (4,), 4), (("n",), ("n",), None), ((4,), (2,), 0), ((), (4,), 0)]
)
def test_rows_are_the_first_axis_that_all_share(x: Shape, y: Shape, rows: int | None) -> None:
    assert rows_of(made(x, y)) == rows


PICTURE: dict[str, Any] = {
    "inputs": (TensorInfo(name="x", dtype="float32", shape=(1, 3, 4, 4)),),
    "outputs": (TensorInfo(name="y", dtype="float32", shape=(1, 3)),),
}


def outside(*manifests: Manifest) -> Signature:
    return published(manifests, signature_of(manifests))


def test_artifacts_with_a_pipeline_are_published_with_pictures_and_labels() -> None:
    one = manifest(**PICTURE, pipeline=COLOUR_PIPELINE, labels=("red", "green", "blue"))
    found = outside(one, one)
    assert [(port.name, port.dtype, port.shape) for port in found.inputs] == [("image", "string", (-1,))]
    assert [port.name for port in found.outputs] == ["label", "score", "index"]
    plain = manifest(**PICTURE)
    assert outside(plain) == signature_of([plain])


def test_artifacts_of_one_version_have_one_pipeline_and_one_set_of_labels() -> None:
    one = manifest(**PICTURE, pipeline=COLOUR_PIPELINE, labels=("red", "green", "blue"))
    others = (manifest(**PICTURE), manifest(**PICTURE, pipeline=COLOUR_PIPELINE, labels=("r", "g", "b")))
    for other in others:
        with pytest.raises(DataError, match="pipelines differ"):
            outside(one, other)


def test_a_pipeline_for_other_tensors_is_refused() -> None:
    wrong = {**PICTURE, "outputs": (TensorInfo(name="z", dtype="float32", shape=(1, 3)),)}
    with pytest.raises(OptionError, match="'y'"):
        outside(manifest(**wrong, pipeline=COLOUR_PIPELINE))
