from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from npuops.errors import DataError, MalformedModelError, OptionError
from npuops.evaluate.accuracy import find_metric, measure_accuracy
from npuops.evaluate.reference import run_reference
from npuops.evaluate.samples import make_samples
from npuops.events import Event, StepProgressed, Warned
from npuops.quantize.bit_units import BitPlan, Unit
from npuops.quantize.mix_search import Search, between
from npuops.quantize.mixed import Mix, find_mix
from npuops.quantize.quantize import QuantizeOptions
from npuops.targets.protocol import Precision
from small_graphs import BLOCK_INPUT, CNN_INPUT, noise, outlier_block, small_cnn

PLACE_ON_HTP = """
import sys, onnxruntime as ort, onnxruntime_qnn as qnn
ort.register_execution_provider_library("QNNExecutionProvider", qnn.get_library_path())
options = ort.SessionOptions()
options.log_severity_level = 4
options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
device = next(d for d in ort.get_ep_devices() if d.ep_name == "QNNExecutionProvider")
options.add_provider_for_devices([device], {"backend_path": qnn.get_qnn_htp_path(), "soc_model": "57"})
session = ort.InferenceSession(sys.argv[1], options, enable_fallback=0)
print("PLACED", sorted({graph.ep_name for graph in session.get_provider_graph_assignment_info()}))
"""


def assert_whole_on_htp(model: Path) -> None:
    """Every node of the file is taken by Qualcomm's compiler, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", PLACE_ON_HTP, str(model)], capture_output=True, text=True, timeout=240, check=False
    )
    assert "PLACED ['QNNExecutionProvider']" in done.stdout, done.stdout + done.stderr


def _mix(folder: Path, max_drop: float, events: list[Event] | None = None) -> Mix:
    return find_mix(
        outlier_block(folder / "f.onnx"),
        noise(BLOCK_INPUT, 16, 0),
        noise(BLOCK_INPUT, 16, 1),
        max_drop=max_drop,
        metric="cosine",
        options=QuantizeOptions(layernorm_gamma_uint8=True),
        out=folder / "q.onnx",
        observe=(events if events is not None else []).append,
    )


def test_the_mix_meets_the_limit_with_fewer_bytes_than_all_at_16_bits(tmp_path: Path) -> None:
    events: list[Event] = []
    mix = _mix(tmp_path, 0.004, events)
    assert mix.met
    assert mix.quantized is not None
    assert 0 < mix.share_16bit < 0.7
    held_out = noise(BLOCK_INPUT, 16, 1)
    found = measure_accuracy(
        find_metric("cosine"),
        artifact=run_reference(mix.quantized.path, held_out),
        fp32=run_reference(tmp_path / "f.onnx", held_out),
        labels=None,
    )
    assert found.drop == pytest.approx(mix.drop)
    assert found.drop <= 0.004
    assert any(isinstance(event, StepProgressed) and event.step == "mix" for event in events)


def test_every_smaller_mix_that_was_tried_failed_the_search_or_the_confirmation(tmp_path: Path) -> None:
    mix = _mix(tmp_path, 0.004)
    smaller = [trial for trial in mix.trials if trial.share_16bit < mix.share_16bit]
    assert smaller
    assert not any(trial.met and trial.held_back for trial in smaller)


def test_the_mix_is_confirmed_on_samples_that_the_search_did_not_see(tmp_path: Path) -> None:
    mix = _mix(tmp_path, 0.004)
    confirmed = [trial for trial in mix.trials if trial.held_back and trial.met]
    assert len(mix.units_16bit) in {trial.units_16bit for trial in confirmed}
    assert all(trial.drop <= 0.004 for trial in confirmed)


def test_a_mix_that_holds_on_the_searched_samples_only_is_grown_until_it_holds_on_the_others(tmp_path: Path) -> None:
    mix = _mix(tmp_path, 0.002)
    assert mix.met
    judged = [trial for trial in mix.trials if trial.held_back]
    assert not judged[0].met
    assert mix.share_16bit == min(trial.share_16bit for trial in judged if trial.met)
    assert mix.share_16bit > max(trial.share_16bit for trial in judged if not trial.met)


def test_too_few_evaluation_samples_are_called_out(tmp_path: Path) -> None:
    events: list[Event] = []
    model, few = small_cnn(tmp_path / "f.onnx"), noise(CNN_INPUT, 5, 1)
    options, out = QuantizeOptions(), tmp_path / "q.onnx"
    find_mix(
        model,
        noise(CNN_INPUT, 16, 0),
        few,
        max_drop=0.05,
        metric="cosine",
        options=options,
        out=out,
        observe=events.append,
    )
    assert any(isinstance(event, Warned) and "none is held back" in event.message for event in events)


def test_eight_bits_are_kept_when_they_are_enough(tmp_path: Path) -> None:
    mix = find_mix(
        small_cnn(tmp_path / "f.onnx"),
        noise(CNN_INPUT, 16, 0),
        noise(CNN_INPUT, 16, 1),
        max_drop=0.05,
        metric="cosine",
        options=QuantizeOptions(),
        out=tmp_path / "q.onnx",
    )
    assert (mix.units_16bit, mix.share_16bit) == ((), 0.0)
    assert [trial.held_back for trial in mix.trials] == [False, True]
    assert mix.quantized is not None
    assert mix.quantized.record.activations == "uint8"


def test_an_impossible_limit_is_answered_with_the_worst_layers_and_no_file(tmp_path: Path) -> None:
    mix = _mix(tmp_path, 0.0)
    assert not mix.met
    assert mix.quantized is None
    assert mix.drop > 0
    assert mix.worst[0].unit in {"second", "residual"}
    assert not (tmp_path / "q.onnx").exists()


def test_what_holds_on_one_half_of_the_samples_only_is_not_a_mix(tmp_path: Path) -> None:
    """Every second sample, those that are searched, lies far outside the calibrated range."""
    rows = noise(BLOCK_INPUT, 32, 1).inputs
    evaluation = make_samples([{"x": row["x"] * (1, 8)[not at % 2]} for at, row in enumerate(rows)], source="uneven")
    mix = find_mix(
        outlier_block(tmp_path / "f.onnx"),
        noise(BLOCK_INPUT, 16, 0),
        evaluation,
        max_drop=0.05,
        metric="cosine",
        options=QuantizeOptions(),
        out=tmp_path / "q.onnx",
    )
    assert mix.drop > 0.05
    assert not mix.met
    assert not (tmp_path / "q.onnx").exists()


def test_a_mix_lands_whole_on_htp(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime_qnn")
    mix = _mix(tmp_path, 0.004)
    assert mix.quantized is not None
    assert mix.quantized.record.activations == "mixed"
    assert_whole_on_htp(mix.quantized.path)


def test_wrong_calls_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="negative"):
        _mix(tmp_path, -0.1)
    model, data = outlier_block(tmp_path / "f.onnx"), noise(BLOCK_INPUT, 8, 0)
    wide = QuantizeOptions(precision=Precision.A16W8)
    with pytest.raises(OptionError, match="a8w8"):
        find_mix(model, data, data, max_drop=0.1, metric="cosine", options=wide, out=tmp_path / "q.onnx")
    with pytest.raises(MalformedModelError, match="absent"):
        find_mix(
            tmp_path / "absent.onnx",
            data,
            data,
            max_drop=0.1,
            metric="cosine",
            options=QuantizeOptions(),
            out=tmp_path / "q.onnx",
        )
    with pytest.raises(DataError, match="classes"):
        find_mix(model, data, data, max_drop=0.1, metric="top1", options=QuantizeOptions(), out=tmp_path / "q.onnx")


@dataclass
class _Judge:
    """Confirms every mix that holds the unit `needed`."""

    plan: BitPlan
    needed: str
    asked: list[frozenset[str]] = field(default_factory=list)

    def holds(self, wide: frozenset[str]) -> bool:
        self.asked.append(wide)
        return self.needed in wide


def test_between_a_failed_and_a_passed_mix_that_are_strangers_cheaper_ones_are_still_tried() -> None:
    costs = {"a": 10, "b": 1, "c": 1, "d": 8, "e": 3}
    units = tuple(
        Unit(name=name, op="Add", nodes=(name,), tensors=(name,), elements=cost, can_widen=True)
        for name, cost in costs.items()
    )
    judge = _Judge(BitPlan(units=units, makers={}, readers={}, constants={}), needed="b")
    found = between(cast("Search", judge), frozenset("a"), frozenset("bcde"), ["b", "d", "c", "e"])
    assert found == {"a", "b"}
    assert judge.asked == [found]
