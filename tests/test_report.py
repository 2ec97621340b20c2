"""The HTML report: it says all that matters, escapes what it is told, and reads well in a real browser."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from manifest_examples import artifact, comparison, manifest, output, parity, placement, profile
from npuops.artifacts.evidence import Divergence, Gate, GateRule, Verdict
from npuops.artifacts.manifest import Artifact, CompileRecord, Manifest
from npuops.models.placement import Placement, RunsOn
from npuops.report.report import render_report
from npuops.targets.protocol import OpCost

HOSTILE = "</title><script>alert(1)</script><img src=x onerror=alert(2)>\"'&\u202e"


def failed() -> Manifest:
    """A manifest with every optional part filled."""
    rules = (
        GateRule(name="parity", verdict=Verdict.FAIL, wanted="verdict pass", found="verdict fail"),
        GateRule(name="latency", verdict=Verdict.INCONCLUSIVE, wanted="≤ 5 ms (measured)", found="no measured figure"),
    )
    return manifest(
        gate=Gate(verdict=Verdict.FAIL, rules=rules),
        parity=parity(
            comparison(outputs=(output(cosine=0.2, sqnr_db=-3.5, max_abs=7.25, top1_agreement=0.1),)),
            verdict=Verdict.FAIL,
            reasons=("output 'probabilities': cosine 0.2",),
            first_divergence=(Divergence(node="features.3/clip", tensor="clip_out_3", sqnr_db=4.2, cosine=0.71),),
        ),
        compile=CompileRecord(
            seconds=0.35,
            cache_key="sha256:" + "77" * 32,
            vendor_options={"htp_performance_mode": "burst"},
            notes={"inference_us": "5020.0", "sram_bytes": "262144"},
        ),
        labels=("cat", "dog"),
    )


class Page(HTMLParser):
    """Texts, and tags with their attributes, of a page; unclosed tags are an error."""

    VOID = frozenset({"meta", "link", "img", "rect"})

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "link"}:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_every_value_that_matters_is_in_the_page() -> None:
    found = Page(render_report(Artifact(Path("art"), failed()), profile(), name="art")).text
    facts = failed()
    wanted = [
        facts.model.name,
        facts.model.digest,
        facts.digest,
        facts.target,
        facts.precision,
        facts.created,
        facts.compatibility,
        facts.compile.cache_key,
        *(value for record in facts.files for value in (record.name, record.sha256, record.role)),
        *(value for pair in facts.toolchain.items() for value in pair),
        *(value for pair in facts.compile.vendor_options.items() for value in pair),
        *(value for pair in facts.compile.notes.items() for value in pair),
        *(value for rule in (facts.gate.rules if facts.gate else ()) for value in (rule.name, rule.wanted, rule.found)),
        *(facts.quantization.tensors_16bit if facts.quantization else ()),
        facts.quantization.calibration_digest if facts.quantization else "",
        *("0.200000", "-3.5 dB", "7.25", "10.0%", "output 'probabilities': cosine 0.2"),
        *("clip_out_3", "4.2 dB", "0.710000"),
        *("0.7183", "0.7121", "+0.0062", "500"),
        *("stride must be 1 to 3", "stride 4", "features.31/clip", "5 islands", "3 CPU islands"),
        *("emulator ticks (emulated)", "not those of silicon", "x float32[1×3×224×224]", "2 classes"),
        *("5.02 ms", "vendor-estimate", "41.25 ms", "npuops verify art"),
    ]
    assert [value for value in wanted if str(value) not in found] == []


def test_the_header_says_what_kept_the_gate_from_passing() -> None:
    found = Page(render_report(Artifact(Path("art"), failed()))).text
    assert "✗ gate: fail" in found
    assert "Not met: parity" in found
    assert "Not decided: latency" in found


def test_an_artifact_that_nobody_judged_is_not_shown_as_a_pass() -> None:
    found = render_report(artifact(gate=None, parity=None, accuracy=None, quantization=None, digest=""))
    assert "not judged" in found
    assert "✓" not in found
    assert "No parity was measured." in found


def test_an_output_that_is_nan_is_reported_and_not_hidden_behind_the_others() -> None:
    nan = output(output="boxes", cosine=None, sqnr_db=None, max_abs=None, top1_agreement=None, finite=False)
    proof = parity(comparison(outputs=(output(), nan)), verdict=Verdict.FAIL, skipped=("tosa: cannot open it",))
    found = Page(render_report(artifact(parity=proof))).text
    assert found.count("not finite") == 3  # cosine, SQNR, max abs
    assert "Cosine to fp32" not in found
    assert "tosa: cannot open it" in found


def test_absent_figures_are_said_to_be_absent_and_never_zero() -> None:
    ratio = replace(manifest().placement.fallback_ratio, macs=None)
    unknown = replace(manifest().placement, fallback_ratio=ratio)
    found = Page(render_report(artifact(placement=unknown, accuracy=None))).text
    assert "MACs unknown" in found
    assert "Not profiled yet" in found


def test_hostile_names_stay_text() -> None:
    facts = failed()
    node = Placement(name=HOSTILE, op=HOSTILE, runs_on=RunsOn.CPU, rule=HOSTILE, found=HOSTILE)
    evil = replace(
        facts,
        target=HOSTILE,
        created=HOSTILE,
        model=replace(facts.model, name=HOSTILE, digest=HOSTILE, format=HOSTILE),
        inputs=tuple(replace(tensor, name=HOSTILE) for tensor in facts.inputs),
        files=tuple(replace(record, name=HOSTILE) for record in facts.files),
        toolchain={HOSTILE: HOSTILE},
        compile=replace(facts.compile, vendor_options={HOSTILE: HOSTILE}, notes={HOSTILE: HOSTILE}),
        placement=replace(facts.placement, nodes=(*facts.placement.nodes, node)),
        gate=Gate(
            verdict=Verdict.FAIL,
            rules=(GateRule(name=HOSTILE, verdict=Verdict.FAIL, wanted=HOSTILE, found=HOSTILE),),
        ),
        quantization=replace(facts.quantization, tensors_16bit=(HOSTILE,)) if facts.quantization else None,
    )
    costs = replace(profile(), ops=(OpCost(name=HOSTILE, op=HOSTILE, runs_on=RunsOn.NPU, cost=1.0),), source=HOSTILE)
    found = Page(render_report(Artifact(Path(HOSTILE), evil), costs, name=HOSTILE))
    assert {tag for tag, _ in found.tags} & {"script", "img", "iframe", "object"} == set()
    assert not any(name.startswith("on") for _, attributes in found.tags for name in attributes)
    assert "\u202e" not in found.text


def test_nothing_is_loaded_from_elsewhere() -> None:
    found = Page(render_report(artifact(), profile()))
    links = [value for _, attributes in found.tags for name, value in attributes.items() if name in {"src", "href"}]
    assert links == ["data:,"]
    assert "url(" not in render_report(artifact(), profile())


def test_every_picture_has_a_text_alternative() -> None:
    found = Page(render_report(artifact(), profile()))
    pictures = [attributes for tag, attributes in found.tags if tag == "svg"]
    assert pictures
    assert all(picture.get("aria-label") or picture.get("aria-hidden") == "true" for picture in pictures)


def test_a_graph_of_thousands_of_nodes_stays_small() -> None:
    nodes = placement(5000, cpu=tuple(range(0, 5000, 100)))
    source = render_report(artifact(placement=nodes), profile(5000))
    assert len(source) < 200_000
    assert "99 nodes on qnn-htp" in source


PROBE = """<!doctype html><meta charset="utf-8"><body style="margin:0"><script>
const results = [];
async function measure(width) {
  const frame = document.createElement("iframe");
  frame.style.cssText = `width:${width}px;height:900px;border:0`;
  const loaded = new Promise(done => { frame.onload = done; });
  frame.src = "report.html";
  document.body.append(frame);
  await loaded;
  const inside = frame.contentDocument, view = frame.contentWindow, root = inside.documentElement;
  const parts = "h1, h2, p, li, dd, dt, pre, .stack caption, .stack th, .stack td, .verdict";
  const lost = [...inside.querySelectorAll(parts)]
    .filter(e => e.getBoundingClientRect().right > root.clientWidth + 1)
    .map(e => e.tagName + ": " + e.textContent.slice(0, 40));
  const bar = inside.querySelector(".bars svg").getBoundingClientRect();
  const wide = [...inside.querySelectorAll(".scroll")].filter(e => e.scrollWidth > e.clientWidth)
    .map(e => e.getAttribute("aria-label"));
  results.push({ width, wide, scroll: root.scrollWidth, client: root.clientWidth, lost, bar: bar.width,
    sections: inside.querySelectorAll("section").length, ink: view.getComputedStyle(inside.body).color });
}
(async () => {
  try { for (const width of [1200, 768, 390, 320]) await measure(width); }
  catch (error) { results.push({ error: String(error) }); }
  const out = document.createElement("pre");
  out.id = "results";
  out.textContent = JSON.stringify(results);
  document.body.replaceChildren(out);
})();
</script>"""


@pytest.fixture(scope="module")
def browser() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium here: install Debian's `chromium` to have the report laid out by a real browser")
    return found


def chromium(browser: str, folder: Path, page: str, *extra: str) -> subprocess.CompletedProcess[str]:
    quiet = (
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
        *("--disable-background-networking", "--disable-component-update", "--allow-file-access-from-files"),
        *("--enable-logging=stderr", "--virtual-time-budget=10000", f"--user-data-dir={folder / 'profile'}"),
    )
    command = [browser, *quiet, *extra, f"file://{folder / page}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


def long_names() -> Artifact:
    """Names without a blank, as exporters write them."""
    name = "/model/encoder/layers.11/self_attention/output/dense/MatMul_output_0_DequantizeLinear_Output"
    facts = failed()
    nodes = tuple(replace(node, name=f"{name}_{index}") for index, node in enumerate(facts.placement.nodes))
    return Artifact(
        Path("art"),
        replace(
            facts,
            model=replace(facts.model, name=name),
            placement=replace(facts.placement, nodes=nodes),
            quantization=replace(facts.quantization, tensors_16bit=(name,) * 9) if facts.quantization else None,
        ),
    )


@pytest.mark.slow
@pytest.mark.parametrize("subject", ["usual", "long names"])
def test_nothing_overflows_at_any_width_and_the_console_is_silent(browser: str, tmp_path: Path, subject: str) -> None:
    shown = Artifact(Path("art"), failed()) if subject == "usual" else long_names()
    (tmp_path / "report.html").write_text(render_report(shown, profile()), encoding="utf-8")
    (tmp_path / "probe.html").write_text(PROBE, encoding="utf-8")
    done = chromium(browser, tmp_path, "probe.html", "--window-size=1300,1000", "--dump-dom")
    match = re.search(r'<pre id="results">(.*?)</pre>', done.stdout, re.DOTALL)
    assert match, done.stdout[-2000:]
    results: list[dict[str, Any]] = json.loads(html.unescape(match.group(1)))
    assert [result.get("width") for result in results] == [1200, 768, 390, 320], results
    for result in results:
        assert result["lost"] == [], result
        # On the narrowest screens a table with bars scrolls by itself, the page never does.
        assert result["width"] < 390 or result["wide"] == [], result
        assert result["scroll"] <= result["client"], result
        assert result["sections"] == 9
        assert result["bar"] >= 50
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
