"""Latency against load, drawn."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np

from npuops.loadgen.latency_plot import HEIGHT, lines, svg_plot, text_plot
from npuops.loadgen.outcomes import Outcomes
from npuops.loadgen.results import Fold, Load, StageResult, Usage, fold


def stage(rate: float, latency_ms: float, count: int = 1000) -> StageResult:
    rows = Outcomes(
        started_s=np.zeros(count),
        latency_s=np.linspace(latency_ms / 2, latency_ms, count) / 1e3,
        lag_s=np.zeros(count),
        code=np.full(count, 200, np.int16),
        kind=np.zeros(count, np.int32),
    )
    usage = Usage(cpu_s=0, cpu_share=None, reconnects=0, received_bytes=None)
    load = Load(kind="open", rate=rate, arrivals="poisson")
    return fold(load, rows, Fold(begin_s=0, end_s=10, inputs=1), usage)


def closed(concurrency: int, rate: float, latency_ms: float) -> StageResult:
    load = Load(kind="closed", concurrency=concurrency)
    return replace(stage(rate, latency_ms), load=load, throughput=rate)


def test_the_text_has_both_axes_and_a_point_for_each_stage() -> None:
    drawn = text_plot([stage(100, 1), stage(200, 3), stage(400, 40)])
    body = drawn.splitlines()[1 : HEIGHT + 1]
    assert sum(line.count("#") for line in body) == 3
    assert "req/s" in drawn
    assert "400" in drawn
    assert body[0].count("#") or body[1].count("#"), "the worst is at the top"


def test_one_stage_is_no_curve() -> None:
    assert text_plot([stage(100, 1)]) == ""
    assert text_plot([]) == ""


def test_the_svg_is_well_formed_loads_nothing_and_escapes_its_title() -> None:
    drawn = svg_plot([stage(100, 1), stage(200, 3)], 'http://h/<"&>')
    root = ET.fromstring(drawn)  # noqa: S314 - we wrote it
    assert root.tag.endswith("svg")
    assert len(root.findall("{http://www.w3.org/2000/svg}circle")) == 6
    assert "href" not in drawn
    ET.fromstring(svg_plot([], "nothing"))  # noqa: S314 - as above


def test_a_closed_loops_curve_follows_its_concurrency_also_where_more_in_flight_means_less_answered() -> None:
    stages = [closed(1, 100, 1), closed(32, 800, 40), closed(8, 1000, 8)]
    (line, *_) = lines(stages)
    assert [load for load, _ in line.points] == [100, 1000, 800]
