"""Three protocols: a seen chip and unseen architectures, a new chip with few anchors, a new vendor."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from published import Row, profile, workload

from npuops.vnpu.fit import Fitted, fit_chip
from npuops.vnpu.fit_profile import floor_of
from npuops.vnpu.perf import FORMAT_FACTORS, RATES, Floats, Table
from npuops.vnpu.predict import nominal_of
from npuops.vnpu.prior import Prior, common_ratios, prior_from, ratios_of
from npuops.vnpu.profile import geometry_of
from npuops.vnpu.work import Workload

DRAWS = 3
START = {
    "mac": 2.0,
    "mac.depthwise": 1.0,
    "mac.fully-connected": 8.0,
    "mac.attention": 5.0,
    "vector": 20.0,
    "memory.local": 50.0,
    "memory.spill": 2.0,
    "overhead.layer": 1.5,
    "overhead.inference": 100.0,
    **dict.fromkeys(FORMAT_FACTORS, 1.0),
}
"""Where the first round begins, rate by nominal rate."""
LEAST_LEFT = 5
"""A chip is judged with k anchors when at least so many graphs are left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What was predicted for a row, and what the plain rules say."""

    row: Row
    us: float
    plain_us: float
    """a + b x GOPs, or one scale for the sibling's table."""


@dataclass(slots=True)
class Chip:
    """The rows of one chip."""

    name: str
    rows: list[Row]
    whole: Fitted | None = field(default=None)
    """Fitted on all rows."""

    @property
    def us(self) -> Floats:
        return np.array([row.us for row in self.rows])

    @property
    def vendor(self) -> str:
        return profile(self.name).vendor

    @property
    def nominal(self) -> Floats:
        return nominal_of(profile(self.name))

    def fit(self, rows: Sequence[Row], prior: Prior) -> Fitted:
        us = np.array([row.us for row in rows])
        return fit_chip(cases(rows), us, geometry_of(profile(self.name)), prior, floor_of(profile(self.name)))

    def predict(self, rows: Sequence[Row], fitted: Fitted) -> Floats:
        return self.table(rows, fitted).case_us(fitted.log_rates)

    def table(self, rows: Sequence[Row], fitted: Fitted) -> Table:
        return Table(cases(rows), geometry_of(profile(self.name)).folding(fitted.folds))


def cases(rows: Sequence[Row]) -> list[tuple[Workload, str]]:
    return [(workload(row.graph), row.format) for row in rows]


def chips_of(rows: Sequence[Row], least: int = 8) -> list[Chip]:
    """Chips with enough rows, each fitted on all of them with the broadest prior."""
    by_chip = defaultdict(list)
    for row in rows:
        by_chip[row.chip].append(row)
    chips = [Chip(name, found) for name, found in sorted(by_chip.items()) if len({r.graph for r in found}) >= least]
    start = ratios_of({name: START.get(name, START.get(name.split(".")[0], 1.0)) for name in RATES})
    for _ in range(2):  # the first round finds what chips have in common, the second begins there
        for chip in chips:
            chip.whole = chip.fit(chip.rows, prior_from(chip.nominal, start, siblings=False))
        start = ratios(chips)
    return chips


def ratios(chips: Sequence[Chip]) -> Floats:
    """What the chips have in common."""
    used = [chip.table(chip.rows, chip.whole).used(chip.whole.log_rates) for chip in chips]
    return common_ratios([chip.whole.log_rates for chip in chips], [chip.nominal for chip in chips], used)


def seen_chip(chip: Chip, others: Sequence[Chip]) -> list[Answer]:
    """(a) Leave one architecture family out after the other; nothing of it is known of any chip."""
    prior = prior_from(chip.nominal, ratios(others), siblings=False)
    answers = []
    for family in sorted({row.family for row in chip.rows}):
        known = [row for row in chip.rows if row.family != family]
        asked = [row for row in chip.rows if row.family == family]
        predicted = chip.predict(asked, chip.fit(known, prior))
        answers += _answers(asked, predicted, line(known, asked))
    return answers


def new_chip(chip: Chip, others: Sequence[Chip], anchors: int, rng: np.random.Generator) -> list[Answer]:
    """(b) k anchor graphs of the new chip; siblings of its vendor are known whole, where there are any."""
    siblings = [other for other in others if other.vendor == chip.vendor]
    near = siblings or list(others)
    prior = prior_from(chip.nominal, ratios(near), siblings=len(siblings) > 1)
    graphs = sorted({row.graph for row in chip.rows})
    if len(graphs) < anchors + LEAST_LEFT:
        return []
    answers = []
    for _ in range(DRAWS if anchors else 1):
        drawn = set(rng.choice(graphs, anchors, replace=False))
        known = [row for row in chip.rows if row.graph in drawn]
        asked = [row for row in chip.rows if row.graph not in drawn]
        folds = near[0].whole.folds
        surprise = surprises(known + asked, near, siblings=bool(siblings))
        expected = [replace(row, us=row.us / surprise.get((row.graph, row.format), 1.0)) for row in known]
        fitted = chip.fit(expected, prior) if known else Fitted(log_rates=prior.mean, folds=folds, loss=0.0)
        predicted = chip.predict(asked, fitted) * np.array(
            [surprise.get((row.graph, row.format), 1.0) for row in asked]
        )
        answers += _answers(asked, predicted, scaled(known, asked, siblings))
    return answers


def new_vendor(chip: Chip, others: Sequence[Chip]) -> list[Answer]:
    """(c) Nothing but the data sheet, and what chips of other vendors have in common."""
    strangers = [other for other in others if other.vendor != chip.vendor]
    mean = prior_from(chip.nominal, ratios(strangers), siblings=False).mean
    fitted = Fitted(log_rates=np.maximum(mean, floor_of(profile(chip.name))), folds=strangers[0].whole.folds, loss=0.0)
    return _answers(chip.rows, chip.predict(chip.rows, fitted), np.full(len(chip.rows), np.nan))


def surprises(rows: Sequence[Row], near: Sequence[Chip], *, siblings: bool) -> dict[tuple[str, str], float]:
    """Graph and format → how much slower than the law siblings ran it; their compilers share their quirks."""
    if not siblings:
        return {}
    logs = defaultdict(list)
    for chip in near:
        for row, us in zip(chip.rows, chip.predict(chip.rows, chip.whole), strict=True):
            logs[row.graph, row.format].append(np.log(row.us / us))
    wanted = {(row.graph, row.format) for row in rows}
    return {key: float(np.exp(np.median(found))) for key, found in logs.items() if key in wanted}


def line(known: Sequence[Row], asked: Sequence[Row]) -> Floats:
    """a + b x GOPs for each number format, by least relative squares."""
    answers = np.full(len(asked), np.nan)
    for name in {row.format for row in asked}:
        train = [row for row in known if row.format == name]
        if len(train) < 3:
            continue
        us = np.array([row.us for row in train])
        design = np.stack([np.ones(len(train)), [workload(row.graph).macs for row in train]], axis=1) / us[:, None]
        fit = np.linalg.lstsq(design, np.ones(len(train)), rcond=None)[0]
        for index, row in enumerate(asked):
            if row.format == name:
                answers[index] = max(fit[0] + fit[1] * workload(row.graph).macs, 1.0)
    return answers


def scaled(known: Sequence[Row], asked: Sequence[Row], siblings: Sequence[Chip]) -> Floats:
    """The sibling's own latency times one scale, learnt from the anchors: the transfer baseline."""
    answers = np.full(len(asked), np.nan)
    for sibling in siblings:
        table = {(row.graph, row.format): row.us for row in sibling.rows}
        both = [np.log(row.us / table[row.graph, row.format]) for row in known if (row.graph, row.format) in table]
        if not both:
            continue
        scale = float(np.exp(np.median(both)))
        for index, row in enumerate(asked):
            if np.isnan(answers[index]) and (row.graph, row.format) in table:
                answers[index] = scale * table[row.graph, row.format]
    return answers


def _answers(rows: Sequence[Row], predicted: Floats, plain: Floats) -> list[Answer]:
    return [
        Answer(row=row, us=float(us), plain_us=float(simple))
        for row, us, simple in zip(rows, predicted, plain, strict=True)
    ]
