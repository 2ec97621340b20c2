"""The budgets and habits of the house (CONTRIBUTING.md), as tests."""

from __future__ import annotations

import ast
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "npuops"
MODULES = sorted(SOURCE.rglob("*.py"))

FILE_LINES = 400
FUNCTION_LINES = 60
BANNED_NAMES = {"utils", "util", "common", "helpers", "helper", "misc", "manager", "base"}
IMPURE = {"asyncio", "random", "secrets", "socket", "subprocess", "threading", "time", "multiprocessing"}
PURE = [
    "artifacts/compatibility.py",
    "artifacts/encoding.py",
    "artifacts/evidence.py",
    "artifacts/manifest.py",
    "build/batch_step.py",
    "build/fallback.py",
    "build/gate.py",
    "build/parity.py",
    "build/policy.py",
    "build/serving_steps.py",
    "devices/drivers.py",
    "devices/evidence.py",
    "devices/failure_modes.py",
    "devices/health.py",
    "devices/probes.py",
    "devices/quantities.py",
    "devices/rates.py",
    "devices/raw_values.py",
    "devices/suspicions.py",
    "devices/tenants.py",
    "devices/vnpu_tree.py",
    "eevdf/activity.py",
    "eevdf/attributes.py",
    "eevdf/balance.py",
    "eevdf/clockwork.py",
    "eevdf/dispatch.py",
    "eevdf/fair_queue.py",
    "eevdf/follower.py",
    "eevdf/load_mean.py",
    "eevdf/parts.py",
    "eevdf/reservation.py",
    "eevdf/rules.py",
    "eevdf/run_queue.py",
    "eevdf/simulation.py",
    "eevdf/world.py",
    "evaluate/class_scores.py",
    "evaluate/equality.py",
    "evaluate/image_decode.py",
    "evaluate/image_normalize.py",
    "evaluate/image_resize.py",
    "evaluate/image_steps.py",
    "evaluate/metrics.py",
    "hostsched/agent_facts.py",
    "hostsched/applied.py",
    "hostsched/attributes.py",
    "hostsched/candidates.py",
    "hostsched/decision_words.py",
    "hostsched/drift.py",
    "hostsched/evidence.py",
    "hostsched/explanation.py",
    "hostsched/familiarity.py",
    "hostsched/feature_scales.py",
    "hostsched/features.py",
    "hostsched/glances.py",
    "hostsched/guard.py",
    "hostsched/guard_options.py",
    "hostsched/hint_book.py",
    "hostsched/hint_place.py",
    "hostsched/hint_wire.py",
    "hostsched/late_answers.py",
    "hostsched/learned.py",
    "hostsched/leases.py",
    "hostsched/live_view.py",
    "hostsched/liveliness.py",
    "hostsched/objective.py",
    "hostsched/orders.py",
    "hostsched/outgrown.py",
    "hostsched/own_need.py",
    "hostsched/own_time.py",
    "hostsched/pace.py",
    "hostsched/placement.py",
    "hostsched/policy_names.py",
    "hostsched/reactive.py",
    "hostsched/reactive_options.py",
    "hostsched/relief.py",
    "hostsched/roster.py",
    "hostsched/run_summary.py",
    "hostsched/scorer.py",
    "hostsched/scorer_network.py",
    "hostsched/selection.py",
    "hostsched/serving_forecast.py",
    "hostsched/serving_guard.py",
    "hostsched/serving_policies.py",
    "hostsched/serving_state.py",
    "hostsched/starvation.py",
    "hostsched/static_policy.py",
    "hostsched/task_id.py",
    "hostsched/task_life.py",
    "hostsched/timeline.py",
    "hostsched/trace_rows.py",
    "hostsched/trace_wire.py",
    "loadgen/answers.py",
    "loadgen/arrivals.py",
    "loadgen/capacity.py",
    "loadgen/endpoint.py",
    "loadgen/latency_plot.py",
    "loadgen/model_inputs.py",
    "loadgen/oip_request.py",
    "loadgen/outcomes.py",
    "loadgen/percentiles.py",
    "loadgen/proto_wire.py",
    "loadgen/results.py",
    "models/batch_axis.py",
    "models/macs.py",
    "models/model.py",
    "models/placement.py",
    "models/steps.py",
    "report/junit.py",
    "runtime/admission.py",
    "runtime/ailment.py",
    "runtime/batch_curve.py",
    "runtime/batcher.py",
    "runtime/buckets.py",
    "runtime/bytes_tensor.py",
    "runtime/chain.py",
    "runtime/curve_correction.py",
    "runtime/delivery.py",
    "runtime/doorbell.py",
    "runtime/facts.py",
    "runtime/fair_queue.py",
    "runtime/fallback.py",
    "runtime/gathering.py",
    "runtime/job.py",
    "runtime/outage.py",
    "runtime/outlet.py",
    "runtime/patience.py",
    "runtime/queue_lanes.py",
    "runtime/quota.py",
    "runtime/recovery.py",
    "runtime/replica_states.py",
    "runtime/reporter.py",
    "runtime/restart_policy.py",
    "runtime/router.py",
    "runtime/routing.py",
    "runtime/signature.py",
    "runtime/step_facts.py",
    "runtime/steps.py",
    "runtime/tenant_options.py",
    "runtime/text_tensor.py",
    "runtime/version_facts.py",
    "schedlab/comparison.py",
    "schedlab/correction.py",
    "schedlab/decisions.py",
    "schedlab/estimate_words.py",
    "schedlab/experiment_figures.py",
    "schedlab/experiment_goals.py",
    "schedlab/experiment_report.py",
    "schedlab/export_onnx.py",
    "schedlab/mixes.py",
    "schedlab/oracle.py",
    "schedlab/others.py",
    "schedlab/outcome.py",
    "schedlab/played.py",
    "schedlab/program_figures.py",
    "schedlab/program_outcome.py",
    "schedlab/program_report.py",
    "schedlab/recording.py",
    "schedlab/residual_samples.py",
    "schedlab/rival_names.py",
    "schedlab/rivals.py",
    "schedlab/schedule_file.py",
    "schedlab/serving_play.py",
    "schedlab/serving_simulator.py",
    "schedlab/simulated_play.py",
    "schedlab/stage_hints.py",
    "schedlab/switch_agreement.py",
    "schedlab/switch_demand.py",
    "schedlab/switch_onlooker.py",
    "schedlab/switch_picks.py",
    "schedlab/switch_replay.py",
    "schedlab/switch_trace.py",
    "schedlab/trace_pages.py",
    "schedlab/training_mixes.py",
    "schedlab/validation_cells.py",
    "schedlab/validation_plot.py",
    "schedlab/validation_report.py",
    "server/access.py",
    "server/artifact_peek.py",
    "server/classification.py",
    "server/cors.py",
    "server/datatypes.py",
    "server/device_plan.py",
    "server/engine_settings.py",
    "server/grpc_decode.py",
    "server/grpc_encode.py",
    "server/grpc_head.py",
    "server/grpc_messages.py",
    "server/grpc_status.py",
    "server/http2_connection.py",
    "server/http2_frames.py",
    "server/http2_headers.py",
    "server/http2_patience.py",
    "server/http2_sending.py",
    "server/http2_streams.py",
    "server/http_body.py",
    "server/http_head.py",
    "server/http_known.py",
    "server/http_response.py",
    "server/infer_json.py",
    "server/infer_plan.py",
    "server/infer_request.py",
    "server/infer_response.py",
    "server/infer_sources.py",
    "server/inference_pb.py",
    "server/load_request.py",
    "server/message_table.py",
    "server/model_life.py",
    "server/model_options.py",
    "server/openapi.py",
    "server/plan_cache.py",
    "server/recorder.py",
    "server/repository_layout.py",
    "server/serve_options.py",
    "server/statistics.py",
    "server/status.py",
    "server/version_policy.py",
    "server/version_signature.py",
    "server/version_spec.py",
    "server/warm_pool.py",
    "targets/report.py",
    "targets/rules.py",
    "telemetry/access_record.py",
    "telemetry/batch_table.py",
    "telemetry/folded_histogram.py",
    "telemetry/histogram_text.py",
    "telemetry/intake.py",
    "telemetry/live_figures.py",
    "telemetry/metric_catalogue.py",
    "telemetry/metrics.py",
    "telemetry/recent_sums.py",
    "telemetry/serving_snapshot.py",
    "telemetry/trace_options.py",
    "telemetry/traceparent.py",
    "telemetry/traces.py",
    "units.py",
    "vnpu/allocator.py",
    "vnpu/bit_flips.py",
    "vnpu/chance.py",
    "vnpu/climate.py",
    "vnpu/conditions.py",
    "vnpu/cores.py",
    "vnpu/crossing.py",
    "vnpu/device_events.py",
    "vnpu/device_telemetry.py",
    "vnpu/fault_plan.py",
    "vnpu/faults.py",
    "vnpu/figures.py",
    "vnpu/firmware.py",
    "vnpu/intruders.py",
    "vnpu/job_answers.py",
    "vnpu/jobs.py",
    "vnpu/life.py",
    "vnpu/liveness.py",
    "vnpu/machine.py",
    "vnpu/memory_plan.py",
    "vnpu/pacing.py",
    "vnpu/power.py",
    "vnpu/profile_sections.py",
    "vnpu/program.py",
    "vnpu/program_file.py",
    "vnpu/quote_file.py",
    "vnpu/run_queue.py",
    "vnpu/simulation.py",
    "vnpu/spec.py",
    "vnpu/tenancy.py",
    "vnpu/tensors.py",
    "vnpu/thermal.py",
    "vnpu/uevent_ring.py",
    "vnpu/versions.py",
    "vnpu/wire.py",
]
"""Judges and nouns: they know no clock, no socket, no process and no chance."""


def name(path: Path) -> str:
    return str(path.relative_to(SOURCE))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_file_stays_within_its_budget(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= FILE_LINES


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_function_stays_within_its_budget(path: Path) -> None:
    long = [
        f"{node.name}: {(node.end_lineno or 0) - node.lineno + 1} lines"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > FUNCTION_LINES
    ]
    assert long == []


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_says_what_it_is_and_has_a_name_of_our_field(path: Path) -> None:
    assert ast.get_docstring(tree(path)), "a module begins with its idea in a sentence"
    assert path.stem not in BANNED_NAMES
    assert len(path.relative_to(SOURCE).parts) <= 2, "folders are one deep"


@pytest.mark.parametrize("path", [path for path in MODULES if path.parent.name != "cli"], ids=name)
def test_first_party_imports_stand_at_the_top(path: Path) -> None:
    inside = [
        ast.unparse(node)
        for function in ast.walk(tree(path))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("npuops")
    ]
    assert inside == []


@pytest.mark.parametrize("file", PURE)
def test_a_pure_file_knows_no_time_no_socket_and_no_chance(file: str) -> None:
    assert imported(SOURCE / file) & IMPURE == set()


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_no_error_is_swallowed(path: Path) -> None:
    swallowed = [
        handler.lineno
        for handler in ast.walk(tree(path))
        if isinstance(handler, ast.ExceptHandler) and all(isinstance(statement, ast.Pass) for statement in handler.body)
    ]
    assert swallowed == []


def test_every_module_has_its_test_file_and_the_other_way_round() -> None:
    tests = {path.stem.removeprefix("test_") for path in (ROOT / "tests").glob("test_*.py")}
    modules = {path.stem for path in MODULES if path.stem != "__init__"}
    with_folder = {f"{path.parent.name}_{path.stem}" for path in MODULES}
    kinds = ("_example", "_benchmark", "_promise")
    house = {"house", "docs", "ci", "promises"} | {name for name in tests if name.endswith(kinds)}
    assert tests - modules - with_folder - house == set(), "a test file is named after the module it is about"


def test_no_registry_host_and_no_unfinished_word_is_committed() -> None:
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    names = (r"pypi\.o" + "rg", "pythonho" + "sted", r"debian\.o" + "rg", "npm" + "js", "artifac" + "tory")
    hosts = re.compile("|".join(names), re.IGNORECASE)
    unfinished = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|X" + r"XX)\b")
    found = []
    for line in listing.stdout.splitlines():
        path = ROOT / line
        if not path.is_file() or path.suffix in {".onnx", ".npz", ".png", ".tflite"}:
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        found += [f"{line}: {match.group()}" for match in [*hosts.finditer(text), *unfinished.finditer(text)]]
    assert found == []
