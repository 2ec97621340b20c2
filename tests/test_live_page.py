"""The live page in a real browser: its charts, its narrow forms, and what it says when there is nothing to show."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest

from live_browser import console, find_browser, is_hidden, part, visit
from live_scenes import SECOND_US, UNIX_S, Answer, busy_live, crowded_live, overloaded_live, shown, snapshot
from npuops.telemetry.live import Live
from npuops.telemetry.live_page import live_page
from npuops.telemetry.serving_snapshot import ServingSnapshot
from npuops.testing import ManualClock

WIDTHS = (1280, 768, 390, 320)
LONG = "a-model-whose-name-has-no-blank-and-goes-on-for-longer-than-any-phone-is-wide-" * 2

PROBE = """<!doctype html><meta charset="utf-8">
<style>body{margin:0} iframe{border:0;display:block}</style><body><script>
const results = [];
async function measure(width) {
  const frame = document.createElement("iframe");
  frame.style.width = width + "px";
  frame.style.height = "900px";
  frame.src = "/";
  document.body.replaceChildren(frame);
  await new Promise(done => { frame.onload = done; });
  const inside = frame.contentDocument;
  for (let turn = 0; turn < 50 && inside.getElementById("status").textContent !== "live"; turn++)
    await new Promise(done => setTimeout(done, 100));
  const root = inside.documentElement;
  results.push({ width, scroll: root.scrollWidth, client: root.clientWidth,
    status: inside.getElementById("status").textContent,
    lines: inside.querySelectorAll("#charts path.line").length, sparks: inside.querySelectorAll(".card svg").length,
    wide: [...inside.querySelectorAll(".scroll")].some(one => one.scrollWidth > one.clientWidth),
    rows: inside.querySelectorAll("#models tbody tr").length, ...use(inside, frame.contentWindow) });
}
/* What a person does: point at a chart, choose a model. */
function use(inside, view) {
  const chart = inside.querySelector("#charts svg[role=img]"), box = chart.getBoundingClientRect();
  const point = { clientX: box.left + box.width / 2, clientY: box.top + 20, bubbles: true };
  chart.dispatchEvent(new view.PointerEvent("pointermove", point));
  const tip = chart.parentNode.querySelector(".tip"), at = tip.getBoundingClientRect();
  const words = tip.hidden ? "" : tip.textContent, inView = at.left >= box.left - 1 && at.right <= box.right + 1;
  chart.dispatchEvent(new view.PointerEvent("pointerleave"));
  const choice = inside.getElementById("model"), before = chart.getAttribute("aria-label");
  choice.value = "keyword-spotter";
  choice.dispatchEvent(new view.Event("change"));
  return { words, inView, gone: tip.hidden, before, after: chart.getAttribute("aria-label"),
    chosen: inside.querySelectorAll("#models tbody tr").length };
}
(async () => {
  try { for (const width of WIDTHS) await measure(width); }
  catch (error) { results.push({ error: String(error) }); }
  const out = document.createElement("pre");
  out.id = "results";
  out.textContent = JSON.stringify(results);
  document.body.replaceChildren(out);
})();
</script>""".replace("WIDTHS", str(list(WIDTHS)))


@pytest.fixture(scope="module")
def browser() -> str:
    return find_browser()


def steady(live: Live) -> Answer:
    return lambda since: (200, live.answer(since))


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mobilenet-v2", LONG], ids=["usual", "long name"])
def test_nothing_overflows_at_any_width_and_every_chart_has_its_lines(browser: str, tmp_path: Path, model: str) -> None:
    live = busy_live(model=model)
    with shown(steady(live), {"/probe": PROBE.encode()}) as url:
        done = visit(browser, tmp_path, url + "probe")
    match = re.search(r'<pre id="results">(.*?)</pre>', done.stdout, re.DOTALL)
    assert match, done.stdout[-2000:]
    results: list[dict[str, Any]] = json.loads(html.unescape(match.group(1)))
    assert [result.get("width") for result in results] == list(WIDTHS), results
    for result in results:
        assert result["scroll"] <= result["client"], result
        assert (result["status"], result["lines"], result["sparks"], result["rows"]) == ("live", 9, 5, 3), result
        assert result["width"] > 640 or not result["wide"], result
        assert re.search(r"answered \d+  not run \d+  failed \d+$", result["words"]), result
        assert (result["inView"], result["gone"]) == (True, True), result
        assert not result["before"].startswith("Requests per second: answered 0"), result
        assert result["after"].startswith("Requests per second: answered 0"), result
        assert result["chosen"] == 1, result
    assert console(done) == []


def test_the_figures_are_those_of_the_server(browser: str, tmp_path: Path) -> None:
    live = busy_live()
    last = json.loads(live.answer())["points"][-1]
    with shown(steady(live)) as url:
        done = visit(browser, tmp_path, url)
    label = re.search(r'aria-label="Requests per second: ([^"]*)"', done.stdout)
    assert label
    assert label.group(1).startswith(f"answered {last['requests']}, ")
    assert part(done.stdout, "status") == "live"
    assert is_hidden(done.stdout, "notice")
    assert "virtual NPU, Ethos-U85-512 · modelled" in done.stdout


def test_a_sick_device_and_an_overload_are_seen_with_their_reasons(browser: str, tmp_path: Path) -> None:
    with shown(steady(overloaded_live())) as url:
        done = visit(browser, tmp_path, url)
    assert console(done) == []
    models, devices = part(done.stdout, "models"), part(done.stdout, "devices")
    assert "the device said <img src=x onerror=" in models
    assert "<title>npuops live</title>" in done.stdout, "what a device says is text, never a part of the page"
    assert re.search(r"sick\s+the device said", models)
    assert re.search(r"75 %", models), "padding by elements"
    assert re.search(r"npu0\s+offline\s", devices)
    assert "the driver says 'offline'" in devices
    assert re.search(r"npu1\s+throttled", devices)
    assert "throttling temperature is 85 °C" in devices
    assert re.search(r"npu2\s+gone", devices)
    assert re.search(r"npu3\s+healthy", devices)
    tiles = part(done.stdout, "tiles")
    assert re.search(r"Not run/s\s+60", tiles)
    assert re.search(r"Queue\s+1024", tiles)


def test_a_crowd_of_models_is_shown_whole(browser: str, tmp_path: Path) -> None:
    live = crowded_live(300)
    assert len(live.answer()) < 8_000_000
    with shown(steady(live)) as url:
        done = visit(browser, tmp_path, url)
    assert console(done) == []
    assert part(done.stdout, "status") == "live"
    assert part(done.stdout, "models").count("model-") == 600
    label = re.search(r'aria-label="Queue: ([^"]*)"', done.stdout)
    assert label
    assert label.group(1) == "waiting 0, in flight 0"


def test_a_server_without_a_model_says_how_to_load_one(browser: str, tmp_path: Path) -> None:
    clock = ManualClock()
    live = Live(clock, UNIX_S * SECOND_US)
    clock.advance(3 * SECOND_US)
    live.sample(ServingSnapshot())
    with shown(steady(live)) as url:
        done = visit(browser, tmp_path, url)
    assert not is_hidden(done.stdout, "empty")
    assert "No model is loaded" in part(done.stdout, "empty")
    assert "/v2/repository/models/NAME/load" in part(done.stdout, "empty")
    assert console(done) == []


def test_a_server_that_nobody_asks_says_where_to_send_a_request(browser: str, tmp_path: Path) -> None:
    clock = ManualClock()
    live = Live(clock, UNIX_S * SECOND_US)
    clock.advance(3 * SECOND_US)
    live.sample(snapshot())
    with shown(steady(live)) as url:
        done = visit(browser, tmp_path, url)
    assert "/v2/models/mobilenet-v2/infer" in part(done.stdout, "empty")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "words"), [(503, "answered with status 503"), (401, "needs an API key")], ids=["broken", "refused"]
)
def test_figures_that_are_old_say_so(browser: str, tmp_path: Path, status: int, words: str) -> None:
    live = busy_live(30)
    asked: list[int] = []

    def answer(since: int) -> tuple[int, bytes]:
        asked.append(since)
        return (200, live.answer(since)) if len(asked) == 1 else (status, b"{}")

    with shown(answer) as url:
        done = visit(browser, tmp_path, url)
    assert asked[:2] == [0, UNIX_S + 29], "the second question asks only for what is new"
    assert part(done.stdout, "status") == "stale"
    assert words in part(done.stdout, "notice")
    assert "The figures are from" in part(done.stdout, "notice")


def test_a_restarted_server_is_noticed_and_its_past_is_dropped(browser: str, tmp_path: Path) -> None:
    before, after = busy_live(30), busy_live(10, model="second-life")
    late = json.loads(after.answer())
    late["started"] += 1
    asked: list[int] = []

    def answer(since: int) -> tuple[int, bytes]:
        asked.append(since)
        return 200, before.answer(since) if len(asked) < 3 else json.dumps(late).encode()

    with shown(answer) as url:
        done = visit(browser, tmp_path, url)
    assert 0 in asked[3:], "it asks anew from the beginning"
    assert "second-life / 3 / npu0" in done.stdout
    assert "mobilenet-v2 / 3" not in done.stdout


def test_the_page_loads_nothing_from_elsewhere_and_runs_no_script_but_its_own() -> None:
    page = live_page()
    assert re.findall(rb"(?:src|href)=\"(?!data:)", page.body) == []
    assert not re.search(rb"https?://(?!www\.w3\.org/2000/svg)", page.body)
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'; script-src 'sha256-" in policy
    assert "unsafe-eval" not in policy
    assert "script-src 'unsafe-inline'" not in policy


def test_a_hostile_name_stays_a_text(browser: str, tmp_path: Path) -> None:
    live = busy_live(30, model="<img src=x onerror=console.log(1)>")
    with shown(steady(live)) as url:
        done = visit(browser, tmp_path, url)
    assert "<img" not in done.stdout
    assert console(done) == []
