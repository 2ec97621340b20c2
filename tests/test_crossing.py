"""What crosses the link: each tensor once, and only where a side changes."""

from __future__ import annotations

from made_layers import BIG, A, B, C, X, conv, layer, tensor
from npuops.models.model import Model
from npuops.models.placement import Placement, RunsOn
from npuops.vnpu.crossing import handed_elements
from rule_nets import model_of


def across(model: Model, sides: str) -> int:
    """`sides`: n or c for each layer."""
    placed = [
        Placement(name=one.name, op=one.op, runs_on=RunsOn.NPU if side == "n" else RunsOn.CPU, rule="a test")
        for one, side in zip(model.layers, sides, strict=True)
    ]
    return handed_elements(model, placed)


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
