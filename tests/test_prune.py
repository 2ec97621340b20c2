from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from npuops.errors import DataError, OptionError, UnsupportedModelError
from npuops.evaluate.reference import run_reference
from npuops.evaluate.samples import Samples
from npuops.events import Event, StepFinished, StepProgressed
from npuops.models.onnx_file import read_onnx
from npuops.models.zoo import zoo_model
from npuops.rewrite.magnitude import find_weights
from npuops.rewrite.prune import Pruned, PruneMethod, PruneOptions, PruneScope, prune


def digits(*, labels: bool = True, count: int = 360) -> Samples:
    with np.load(zoo_model("digits-cnn").evaluation) as data:
        return Samples(
            inputs=tuple({"image": image} for image in data["image"][:count]),
            labels=data["labels"][:count] if labels else None,
            source="digits",
            digest="sha256:0",
        )


@pytest.fixture(scope="module")
def cnn() -> onnx.ModelProto:
    return read_onnx(zoo_model("digits-cnn").model)


def pruned(model: onnx.ModelProto, sparsity: float, **options: object) -> Pruned:
    samples = options.pop("samples", None)
    assert samples is None or isinstance(samples, Samples)
    return prune(model, PruneOptions(sparsity=sparsity, **options), name="model", samples=samples)  # type: ignore[arg-type]


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.9])
def test_magnitude_pruning_zeroes_exactly_the_share_of_each_layer(cnn: onnx.ModelProto, sparsity: float) -> None:
    result = pruned(cnn, sparsity)
    assert result.model is not None
    for before, after in zip(find_weights(cnn), find_weights(result.model), strict=True):
        zeros = int(np.sum(after.values == 0))
        assert zeros == int(np.floor(sparsity * before.values.size + 1e-9))
        kept = after.values != 0
        assert np.array_equal(after.values[kept], before.values[kept])
        assert np.abs(before.values[~kept]).max() <= np.abs(before.values[kept]).min()


def test_magnitude_pruning_over_all_layers_zeroes_the_share_of_the_whole_model(cnn: onnx.ModelProto) -> None:
    result = pruned(cnn, 0.5, scope=PruneScope.GLOBAL)
    size = sum(weights.values.size for weights in find_weights(cnn))
    assert result.report.before.weights == size
    assert result.report.after.weights == size - size // 2
    assert len({layer.after / layer.before for layer in result.report.layers}) > 1


def test_magnitude_pruning_changes_no_shape_and_claims_no_saved_macs(cnn: onnx.ModelProto) -> None:
    report = pruned(cnn, 0.5).report
    assert report.before.macs == report.after.macs
    assert report.before.weight_bytes == report.after.weight_bytes


def test_weights_in_constant_nodes_are_pruned_too() -> None:
    node = onnx.helper.make_node("Constant", [], ["w"], value=onnx.numpy_helper.from_array(np.eye(4, dtype="f4") + 1))
    product = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    value = [onnx.helper.make_tensor_value_info(name, 1, [1, 4]) for name in "xy"]
    graph = onnx.helper.make_graph([node, product], "g", value[:1], value[1:])
    result = pruned(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), 0.75)
    assert result.report.after.weights == 4
    assert result.model is not None
    onnx.checker.check_model(result.model, full_check=True)


@pytest.mark.parametrize("scope", list(PruneScope))
def test_channel_pruning_gives_a_smaller_valid_model_with_the_same_signature(
    cnn: onnx.ModelProto, scope: PruneScope
) -> None:
    result = pruned(cnn, 0.25, method=PruneMethod.CHANNELS, scope=scope, samples=digits())
    assert result.model is not None
    onnx.checker.check_model(result.model, full_check=True)
    report = result.report
    assert report.before.macs is not None
    assert report.after.macs is not None
    assert report.after.macs < report.before.macs
    assert report.after.weights < report.before.weights
    assert result.model.graph.output == cnn.graph.output
    assert result.model.graph.input == cnn.graph.input


def test_channel_pruning_saves_the_macs_that_its_widths_predict(cnn: onnx.ModelProto) -> None:
    result = pruned(cnn, 0.25, method=PruneMethod.CHANNELS)
    kept = {layer.node: layer.after for layer in result.report.layers}
    stem, deep = kept["/stem/stem.0/Conv"], kept["/deep/deep.0/Conv"]
    assert (stem, deep) == (24, 48)
    assert kept["/pointwise/pointwise.0/Conv"] == stem
    predicted = 64 * stem * 9 + 64 * stem * 9 + 64 * stem * stem + 16 * stem * deep * 9 + deep * 4 * 10
    assert result.report.after.macs == predicted


def test_the_accuracy_in_the_report_is_the_accuracy_of_the_written_model(cnn: onnx.ModelProto) -> None:
    samples = digits()
    result = pruned(cnn, 0.3, method=PruneMethod.CHANNELS, samples=samples)
    assert result.model is not None
    assert result.report.accuracy is not None
    assert samples.labels is not None
    session = ort.InferenceSession(result.model.SerializeToString(), providers=["CPUExecutionProvider"])
    answers = [session.run(None, sample)[0].argmax() for sample in samples.inputs]
    assert result.report.accuracy.artifact == pytest.approx(float(np.mean(np.array(answers) == samples.labels)))
    assert result.report.accuracy.fp32 == pytest.approx(zoo_model("digits-cnn").accuracy, abs=0.003)


def test_the_layer_that_makes_the_outputs_stays_whole_and_the_report_says_why(cnn: onnx.ModelProto) -> None:
    head = pruned(cnn, 0.5, method=PruneMethod.CHANNELS).report.layers[-1]
    assert (head.before, head.after) == (10, 10)
    assert head.left is not None
    assert "output of the model" in head.left


def test_the_transformer_loses_channels_only_in_its_mlps() -> None:
    model = read_onnx(zoo_model("digits-transformer").model)
    result = pruned(model, 0.5, method=PruneMethod.CHANNELS, samples=digits(count=60))
    cut = [layer.node for layer in result.report.layers if layer.after < layer.before]
    assert cut == [f"/blocks/blocks.{block}/mlp/mlp.0/MatMul" for block in (0, 1)]
    assert all(layer.left for layer in result.report.layers if layer.node not in cut)
    assert result.report.accuracy is not None
    assert result.report.accuracy.artifact > 0.5


@pytest.mark.parametrize("method", list(PruneMethod))
def test_the_search_finds_the_largest_share_that_meets_the_limit(cnn: onnx.ModelProto, method: PruneMethod) -> None:
    events: list[Event] = []
    options = PruneOptions(sparsity=0.95, method=method, max_drop=0.01)
    result = prune(cnn, options, name="model", samples=digits(), observe=events.append)
    report = result.report
    assert report.met
    assert report.sparsity is not None
    assert report.accuracy is not None
    assert report.accuracy.drop <= 0.01
    failed = [trial.sparsity for trial in report.tried if trial.accuracy and trial.accuracy.drop > 0.01]
    assert min(failed) == pytest.approx(report.sparsity + 0.01)
    steps = [event for event in events if isinstance(event, StepProgressed)]
    assert len(steps) == len(report.tried)
    assert all(step.total is not None and step.done <= step.total for step in steps)
    assert isinstance(events[-1], StepFinished)


def test_a_limit_that_no_share_meets_gives_no_model_and_the_tried_shares() -> None:
    rng = np.random.default_rng(7)
    weights = onnx.numpy_helper.from_array(rng.choice([-1.0, 1.0], (8, 4)).astype("f4"), "w")
    values = [onnx.helper.make_tensor_value_info(name, 1, [1, 2, size]) for name, size in (("x", 8), ("y", 4))]
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph([node], "g", values[:1], values[1:], [weights])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    inputs = tuple({"x": rng.standard_normal((1, 2, 8)).astype("f4")} for _ in range(64))
    samples = Samples(inputs=inputs, labels=None, source="noise", digest="sha256:0")
    result = pruned(model, 0.95, max_drop=0.0, samples=samples)
    assert result.model is None
    assert not result.report.met
    assert result.report.sparsity is None
    assert result.report.tried
    assert result.report.before == result.report.after


def reciprocal_of_a_product() -> tuple[onnx.ModelProto, Samples]:
    rng = np.random.default_rng(5)
    weights = onnx.numpy_helper.from_array(rng.standard_normal((8, 4)).astype("f4"), "w")
    values = [onnx.helper.make_tensor_value_info(name, 1, [1, 2, size]) for name, size in (("x", 8), ("y", 4))]
    nodes = [onnx.helper.make_node("MatMul", ["x", "w"], ["p"]), onnx.helper.make_node("Reciprocal", ["p"], ["y"])]
    graph = onnx.helper.make_graph(nodes, "g", values[:1], values[1:], [weights])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    inputs = tuple({"x": rng.standard_normal((1, 2, 8)).astype("f4")} for _ in range(8))
    return model, Samples(inputs=inputs, labels=None, source="noise", digest="sha256:0")


def test_answers_that_are_not_finite_never_meet_a_limit() -> None:
    model, samples = reciprocal_of_a_product()
    report = pruned(model, 0.95, max_drop=0.5, samples=samples).report
    assert report.tried[0].accuracy is None
    assert report.sparsity is None or report.sparsity < 0.95


def test_a_fixed_share_that_breaks_the_answers_is_an_error() -> None:
    model, samples = reciprocal_of_a_product()
    with pytest.raises(UnsupportedModelError, match="NaN or infinity"):
        pruned(model, 0.95, samples=samples)


def test_a_metric_of_the_users_own_decides(
    cnn: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "my_pruning_metric.py").write_text(
        "def sureness(outputs, labels):\n    return float(outputs['logits'].max(axis=-1).mean())\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    accuracy = pruned(cnn, 0.9, samples=digits(), metric="my_pruning_metric:sureness").report.accuracy
    assert accuracy is not None
    assert accuracy.metric == "my_pruning_metric:sureness"
    assert accuracy.artifact < accuracy.fp32


def test_a_share_that_removes_nothing_is_no_result_of_the_search(cnn: onnx.ModelProto) -> None:
    options = PruneOptions(sparsity=0.95, method=PruneMethod.CHANNELS, scope=PruneScope.GLOBAL, max_drop=0.0)
    report = prune(cnn, options, name="model", samples=digits()).report
    # 1 % of 96 channels is none: whatever it costs nothing, it is not an answer.
    assert 0.01 not in [trial.sparsity for trial in report.tried]
    assert report.sparsity is None or report.sparsity > 0.01


def test_without_labels_the_answers_are_compared_with_the_model_before(cnn: onnx.ModelProto) -> None:
    accuracy = pruned(cnn, 0.9, samples=digits(labels=False)).report.accuracy
    assert accuracy is not None
    assert (accuracy.metric, accuracy.fp32) == ("top1", 1.0)
    assert accuracy.artifact < 1


def test_pruning_leaves_the_given_model_as_it_was(cnn: onnx.ModelProto) -> None:
    before = cnn.SerializeToString()
    pruned(cnn, 0.5)
    pruned(cnn, 0.5, method=PruneMethod.CHANNELS)
    assert cnn.SerializeToString() == before


@pytest.mark.parametrize("sparsity", [-0.1, 0.0, 1.0, float("nan")])
def test_a_share_out_of_range_is_refused(cnn: onnx.ModelProto, sparsity: float) -> None:
    with pytest.raises(OptionError, match="share"):
        pruned(cnn, sparsity)


def test_a_share_too_small_for_any_channel_is_refused(cnn: onnx.ModelProto) -> None:
    with pytest.raises(OptionError, match="removes nothing"):
        pruned(cnn, 0.001, method=PruneMethod.CHANNELS)


def test_a_limit_needs_samples(cnn: onnx.ModelProto) -> None:
    with pytest.raises(OptionError, match="evaluation data"):
        pruned(cnn, 0.5, max_drop=0.01)


def test_a_search_below_one_percent_and_a_metric_without_samples_are_refused(cnn: onnx.ModelProto) -> None:
    with pytest.raises(OptionError, match="whole percents"):
        pruned(cnn, 0.005, max_drop=0.01, samples=digits(count=4))
    with pytest.raises(OptionError, match="evaluation data"):
        pruned(cnn, 0.5, metric="top1")


def test_labels_beyond_the_classes_are_refused(cnn: onnx.ModelProto) -> None:
    good = digits(count=4)
    bad = Samples(inputs=good.inputs, labels=np.array([0, 1, 2, 10]), source="bad.npz", digest="sha256:0")
    with pytest.raises(DataError, match=r"bad\.npz"):
        pruned(cnn, 0.5, samples=bad)


def test_a_quantized_model_is_refused() -> None:
    q = onnx.helper.make_node("QuantizeLinear", ["x", "s"], ["q"])
    d = onnx.helper.make_node("DequantizeLinear", ["q", "s"], ["y"])
    values = [onnx.helper.make_tensor_value_info(name, 1, [1, 4]) for name in "xy"]
    scale = onnx.numpy_helper.from_array(np.float32(0.1), "s")
    graph = onnx.helper.make_graph([q, d], "g", values[:1], values[1:], [scale])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(UnsupportedModelError, match="quantized already") as caught:
        pruned(model, 0.5)
    assert "then quantize" in caught.value.advice


@pytest.mark.parametrize("method", list(PruneMethod))
def test_a_model_without_weights_is_refused_with_the_reason(method: PruneMethod) -> None:
    values = [onnx.helper.make_tensor_value_info(name, 1, [1, 4]) for name in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", values[:1], values[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(UnsupportedModelError):
        pruned(model, 0.5, method=method)


def test_mobilenet_keeps_its_signature_and_loses_half_of_its_macs(mobilenet: Path) -> None:
    model = read_onnx(mobilenet)
    result = pruned(model, 0.3, method=PruneMethod.CHANNELS)
    assert result.model is not None
    report = result.report
    assert report.before.macs == 300_775_552
    assert report.after.macs == 156_943_080
    # The classifier is the only layer that must stay whole: residual adds bind layers, they do not stop the cut.
    assert [layer.op for layer in report.layers if layer.left] == ["Conv"]
    noise = np.random.default_rng(3).uniform(-1, 1, (1, 3, 224, 224)).astype("f4")
    samples = Samples(inputs=({"x": noise},), labels=None, source="noise", digest="sha256:0")
    outputs = run_reference(result.model, samples)
    assert all(np.isfinite(values).all() and values.shape[-1] == 1001 for values in outputs.values())


def test_mobilenet_gets_exactly_the_zeros_asked_for(mobilenet: Path) -> None:
    model = read_onnx(mobilenet)
    result = pruned(model, 0.5)
    assert result.model is not None
    for weights in find_weights(result.model):
        assert int(np.sum(weights.values == 0)) >= weights.values.size // 2
    assert result.report.after.weights == sum(layer.after for layer in result.report.layers)


def test_a_search_that_can_remove_nothing_says_so_and_does_not_blame_the_accuracy() -> None:
    rng = np.random.default_rng(5)
    weights = [
        onnx.numpy_helper.from_array(rng.standard_normal(shape).astype("f4"), name)
        for name, shape in (("w", (1, 3, 1, 1)), ("v", (4, 1, 1, 1)))
    ]
    values = [onnx.helper.make_tensor_value_info(name, 1, [1, size, 4, 4]) for name, size in (("x", 3), ("y", 4))]
    nodes = [onnx.helper.make_node("Conv", ["x", "w"], ["a"]), onnx.helper.make_node("Conv", ["a", "v"], ["y"])]
    graph = onnx.helper.make_graph(nodes, "g", values[:1], values[1:], weights)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    samples = Samples(inputs=({"x": np.ones((1, 3, 4, 4), "f4")},), labels=None, source="ones", digest="sha256:0")
    with pytest.raises(OptionError, match="removes anything"):
        pruned(model, 0.95, method=PruneMethod.CHANNELS, max_drop=0.5, samples=samples)
