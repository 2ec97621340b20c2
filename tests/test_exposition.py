"""The text of a scrape: both formats, clean by Prometheus' own tool, and every metric documented."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from conftest import ROOT
from npuops.telemetry.exposition import Exposition, expose
from npuops.telemetry.intake import Intake
from npuops.telemetry.metric_catalogue import CATALOGUE, Kind
from npuops.telemetry.metrics import Metrics
from npuops.telemetry.serving_snapshot import ServingSnapshot
from serving_story import EVERY_FACT, HELD

ROW = re.compile(r"^\| `(?P<name>npu(?:ops)?_\w+)` \| (?P<kind>\w+) \| (?P<labels>[^|]*)\|", re.MULTILINE)
OPENMETRICS = "application/openmetrics-text; version=1.0.0, text/plain; version=0.0.4; q=0.5"


def scrape(accept: str = "", held: ServingSnapshot = HELD) -> Exposition:
    metrics = Metrics()
    observe = Intake([metrics])
    for fact in EVERY_FACT:
        observe(fact)
    observe.flush()
    return expose(metrics.take(2_000_000), held, accept)


def test_the_documentation_lists_exactly_what_is_exposed() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    documented = {
        match["name"]: (match["kind"], {label for label in match["labels"].strip().split(", ") if label})
        for match in ROW.finditer(page)
    }
    assert documented == {metric.name: (metric.kind.value, set(metric.labels)) for metric in CATALOGUE}
    families = {family.name: family for family in text_string_to_metric_families(scrape().body.decode())}
    exposed = {
        name + ("_total" if family.type == "counter" and not name.endswith("_total") else ""): family
        for name, family in families.items()
    }
    assert {name for name in exposed if name.startswith(("npuops_", "npu_"))} == set(documented)
    for name, family in exposed.items():
        if name.startswith(("npuops_", "npu_")):
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            assert (family.type, labels) == documented[name], name
        else:
            assert f"`{name}`" in page, name


def test_names_end_in_their_unit_and_counters_in_total() -> None:
    for metric in CATALOGUE:
        assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER), metric.name
        assert not re.search(r"_(us|ms|ns|mb|percent)(_|$)", metric.name), metric.name
    assert len({metric.name for metric in CATALOGUE}) == len(CATALOGUE)


def test_prometheus_own_tool_finds_nothing_to_say() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool here: install Debian's `prometheus` to have the metrics linted")
    done = subprocess.run([promtool, "check", "metrics"], input=scrape().body, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_the_queries_of_the_documentation_are_promql_about_metrics_that_exist(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    block = page.partition("```promql\n")[2].partition("```")[0]
    queries = [line for line in block.splitlines() if line and not line.startswith("#")]
    names = {metric.name for metric in CATALOGUE}
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"npu(?:ops)?_\w+", block)} <= names
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool here: install Debian's `prometheus` to have the queries parsed")
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries)]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "docs", "rules": rules}]}), encoding="utf-8")
    done = subprocess.run([promtool, "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_scraper_that_accepts_openmetrics_gets_it_and_others_get_text() -> None:
    found = scrape(OPENMETRICS)
    assert found.content_type.startswith("application/openmetrics-text")
    assert found.body.endswith(b"# EOF\n")
    names = {family.name for family in openmetrics.text_string_to_metric_families(found.body.decode())}
    assert "npuops_requests" in names
    for accept in ("", "*/*", "text/html", "garbage;;;q=,"):
        assert scrape(accept).content_type.startswith("text/plain; version=0.0.4")


def test_label_values_are_escaped() -> None:
    families = {family.name: family for family in text_string_to_metric_families(scrape().body.decode())}
    tenants = {sample.labels["tenant"] for sample in families["npuops_tenant_requests_shed"].samples}
    assert tenants == {'new"\n\\line'}


def test_what_is_unknown_is_absent_and_the_state_is_one_of_all() -> None:
    families = {family.name: family for family in text_string_to_metric_families(scrape().body.decode())}
    memory = families["npuops_worker_resident_memory_bytes"].samples
    assert [sample.labels["device"] for sample in memory] == ["npu0"]
    states = {(s.labels["device"], s.labels["state"]): s.value for s in families["npuops_device_state"].samples}
    assert states == {
        (device, state): float((device, state) in {("npu0", "ready"), ("cpu", "stopped")})
        for device in ("npu0", "cpu")
        for state in ("ready", "stopped", "sick")
    }
    health = {s.labels["health"]: s.value for s in families["npu_health"].samples}
    assert health == {"healthy": 0, "degraded": 1, "unhealthy": 0, "gone": 0, "unknown": 0}
    bare = scrape(held=ServingSnapshot()).body
    assert b"npu_" not in bare
    assert b"npuops_access_log_dropped_total" not in bare
    assert b"npuops_queue_requests" not in bare
