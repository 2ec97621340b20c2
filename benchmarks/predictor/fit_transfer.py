"""Learn how well a measurement on one chip tells of its siblings, and write `npuops/vnpu/transfer.toml`.

    python benchmarks/predictor/fit_transfer.py

Needs ../shared/data/npu_latency_published.csv (or NPUOPS_SHARED). Only derived figures enter the project.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from protocols import chips_of, seen_chip
from published import load_rows, published_file
from siblings import pairs_of

import npuops.vnpu
from npuops.vnpu.fit_profile import fit_error, interval_of
from npuops.vnpu.transfer import FILE, share_of


def main() -> None:
    file = published_file()
    if file is None:
        sys.exit("SKIPPED: ../shared/data/npu_latency_published.csv is not there")
    chips = chips_of(load_rows(file))
    seen = {chip.name: seen_chip(chip, [other for other in chips if other is not chip]) for chip in chips}
    tables = [f"# benchmarks/predictor/fit_transfer.py, {datetime.now(UTC):%Y-%m-%d}; [measured on.to predict for]\n"]
    for pair in sorted(pairs_of(seen), key=lambda pair: (pair.measured_on, pair.chip)):
        logs = np.array([np.log(answer.row.us / answer.us) for answer in pair.answers()])
        interval, error = interval_of(logs), fit_error(logs)
        figures = f"mape = {error.mape:.3f}, median = {error.median:.3f}, within_10 = {error.within_10:.2f}"
        tables.append(
            f"[{pair.measured_on}.{pair.chip}]\n"
            f"share = {share_of(pair.surprise, pair.sibling_surprise):.3g}\n"
            f"interval = {{ low = {interval.low:.3g}, high = {interval.high:.3g} }}\n"
            f'error = {{ {figures}, rows = {error.rows}, how = "{error.how}" }}\n'
        )
        print(f"{pair.measured_on} -> {pair.chip}: {error.rows} rows, MAPE {error.mape:.1%}", flush=True)
    (Path(npuops.vnpu.__file__).parent / FILE).write_text("\n".join(tables), encoding="utf-8")


if __name__ == "__main__":
    main()
