"""A policy's folder without training; its INT8 artifact, if asked for, is really built."""

from __future__ import annotations

from pathlib import Path

from made_samples import made_samples
from made_weights import noisy_weights
from npuops.hostsched.familiarity import ranges_of
from npuops.hostsched.objective import Trust
from npuops.hostsched.policy_card import Data, PolicyFolder, Trained, card_ranges, open_policy
from npuops.hostsched.scorer import SHAPE, STATE_COLUMNS
from npuops.schedlab.build_policy import build_here

TRAINED = Trained(
    data=Data(source="a made-up world", digest="sha256:0", states=40, candidates=8, mixes=4),
    seed=1,
    metrics={"loss": 0.5},
    ranges=card_ranges(ranges_of(made_samples(4, 2, 2).tasks[0][:2, STATE_COLUMNS], made_samples(4, 2, 2).host)),
)


def made_policy(folder: Path, *targets: str, candidates: int = 8) -> PolicyFolder:
    samples = made_samples(40, 8, 4)
    vendor = {"ort-cpu": {"graph_optimization_level": "basic", "intra_op_num_threads": "1"}}
    chosen = {target: vendor.get(target, {}) for target in targets}
    build_here(
        folder,
        noisy_weights(SHAPE, 3),
        SHAPE,
        samples,
        samples,
        TRAINED,
        "made",
        chosen,
        candidates,
        (Trust(), Trust()),
    )
    return open_policy(folder)
