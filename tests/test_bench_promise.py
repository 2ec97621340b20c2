"""What docs/bench.md promises about the JSON of `npuops bench`."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from npuops.loadgen.outcomes import TRANSPORT
from npuops.loadgen.percentiles import LatencySummary, PercentileRow
from npuops.loadgen.results import (
    Agreement,
    BenchReport,
    Capacity,
    ClientCost,
    Load,
    StageResult,
    TenantResult,
    TensorForm,
)

SECTION = (Path(__file__).parent.parent / "docs" / "bench.md").read_text(encoding="utf-8").partition("## JSON")[2]


@pytest.mark.parametrize(
    "part",
    [
        *(Agreement, BenchReport, Capacity, ClientCost, Load, StageResult, TenantResult, TensorForm),
        *(LatencySummary, PercentileRow),
    ],
)
def test_every_key_of_the_json_is_in_the_documented_schema(part: type) -> None:
    words = set(re.findall(r"\w+", SECTION))
    assert {field.name for field in fields(part)} <= words  # type: ignore[arg-type]


def test_every_way_to_end_without_an_answer_is_in_the_documented_schema() -> None:
    assert {f'"{word}"' for word in TRANSPORT.values()} <= set(re.findall(r'"[^"]+"', SECTION))
