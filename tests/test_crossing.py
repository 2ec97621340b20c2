"""What crosses the link, each tensor once and only where a side changes; and what the border parts."""

from __future__ import annotations

from made_layers import BIG, A, B, C, X, conv, layer, tensor
from npuops.models.model import Model
from npuops.models.placement import Placement, RunsOn
from npuops.vnpu.crossing import border_of
from npuops.vnpu.predict import estimate
from npuops.vnpu.profile import load_profile
from npuops.vnpu.work import workload_of
from rule_nets import model_of


def placed(model: Model, sides: str) -> list[Placement]:
    """`sides`: n or c for each layer."""
    return [
        Placement(name=one.name, op=one.op, runs_on=RunsOn.NPU if side == "n" else RunsOn.CPU, rule="a test")
        for one, side in zip(model.layers, sides, strict=True)
    ]


def across(model: Model, sides: str) -> int:
    return border_of(model, placed(model, sides)).handed_elements


def unfolded(model: Model, sides: str) -> set[int]:
    return set(border_of(model, placed(model, sides)).unfolded)


def test_nothing_is_handed_over_where_one_side_does_it_all() -> None:
    model = model_of(conv([X], A), conv([A], B), conv([B], C))
    assert across(model, "nnn") == across(model, "ccc") == 0


def test_a_layer_on_the_host_in_between_costs_its_input_and_its_output() -> None:
    assert across(model_of(conv([X], A), conv([A], B), conv([B], C)), "ncn") == 2 * BIG


def test_a_tensor_with_several_readers_crosses_once() -> None:
    assert across(model_of(conv([X], A), conv([A], B), layer("Add", [A, B], C)), "ncc") == BIG


def test_a_late_reader_of_an_early_tensor_counts_too() -> None:
    """A stretch on the host reads more than what its first layer reads."""
    assert across(model_of(conv([X], A), conv([X], B), layer("Add", [A, B], C)), "ncc") == BIG


def test_all_outputs_of_a_layer_count() -> None:
    parts = [tensor(name, 1, 4, 10, 10) for name in ("left", "right")]
    model = model_of(layer("Split", [X], *parts), layer("Add", parts, C))
    assert across(model, "cn") == BIG


def test_what_has_no_known_size_counts_as_nothing() -> None:
    boxes = tensor("boxes", None, 4)
    assert across(model_of(layer("NonMaxSuppression", [X], boxes), layer("Relu", [boxes], C)), "cn") == 0


def test_a_layer_that_would_be_folded_into_one_on_the_host_has_a_pass_of_its_own() -> None:
    model = model_of(conv([X], A), layer("Relu", [A], B), conv([B], C))
    assert unfolded(model, "nnn") == unfolded(model, "ncn") == unfolded(model, "ccc") == set()
    assert unfolded(model, "cnn") == {1}
    chip, workload = load_profile("rk3588"), workload_of(model)
    parted = estimate(workload, chip, placed(model, "cnn"), border=border_of(model, placed(model, "cnn")))
    whole = estimate(workload, chip, placed(model, "nnn"))
    assert (whole.layers[1].us, whole.layers[1].bound) == (0.0, "folded")
    assert parted.layers[1].us > 0


def test_a_gate_needs_its_product_on_the_same_side() -> None:
    model = model_of(conv([X], A), layer("Sigmoid", [A], B), layer("Mul", [A, B], C))
    assert unfolded(model, "nnn") == set()
    assert unfolded(model, "nnc") == {1}
    assert unfolded(model, "ncn") == {2}
