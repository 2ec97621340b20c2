"""Fit the bundled profiles to every published row that a graph stands for, and write their `[effective]` sections.

    python benchmarks/predictor/fit_profiles.py

Needs ../shared/data/npu_latency_published.csv (or NPUOPS_SHARED). Only derived rates and errors enter the project.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from published import load_rows, published_file, workload

import npuops.vnpu
from npuops.vnpu.fit_profile import Measured, fit_profile, with_effective
from npuops.vnpu.profile import profile_text, read_profile

LEAST_GRAPHS = 8
FOLDER = Path(npuops.vnpu.__file__).parent / "profiles"


def main() -> None:
    file = published_file()
    if file is None:
        sys.exit("SKIPPED: ../shared/data/npu_latency_published.csv is not there")
    rows = defaultdict(list)
    for row in load_rows(file):
        rows[row.chip].append(row)
    for chip, found in sorted(rows.items()):
        graphs = len({row.graph for row in found})
        if graphs < LEAST_GRAPHS:
            print(f"{chip}: {graphs} graphs are too few")
            continue
        text, where = profile_text(chip)
        measured = [
            Measured(workload=workload(row.graph), format=row.format, us=row.us, group=row.family) for row in found
        ]
        source = (
            f"fitted on {len(found)} published rows, benchmarks/predictor/fit_profiles.py, {datetime.now(UTC):%Y-%m-%d}"
        )
        effective = fit_profile(read_profile(text, where=where), measured, source=source)
        (FOLDER / f"{chip}.toml").write_text(with_effective(text, effective), encoding="utf-8")
        error = effective.error
        assert error is not None  # noqa: S101 - a fit always tells it
        print(f"{chip}: {error.rows} rows, MAPE {error.mape:.1%}, median {error.median:.1%}", flush=True)


if __name__ == "__main__":
    main()
