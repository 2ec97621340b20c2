"""A trained policy on disk: its card, its weights, its network as ONNX, and what `npuops build` made of that.

`card.json` names every other file with its digest: a policy whose files do not fit its card is refused, as is one
that was trained on other features or levels than this npuops has.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from npuops.artifacts.disk import storage_errors
from npuops.errors import DataError, IncompatibleArtifactError, IntegrityError, OptionError
from npuops.hostsched.array_file import read_arrays
from npuops.hostsched.familiarity import Ranges
from npuops.hostsched.features import HISTORY, HOST_FEATURES, TASK_FEATURES
from npuops.hostsched.levels import LEVELS
from npuops.hostsched.objective import Trust
from npuops.hostsched.scorer_network import NetworkShape

SCHEMA: Final = "npuops.hostsched.policy/1"
CARD_NAME: Final = "card.json"
WEIGHTS_NAME: Final = "weights.npz"
ONNX_NAME: Final = "scorer.onnx"
RULE_NAME: Final = "reactive.toml"
"""Thresholds of the rule whose plan is one of the candidates, and one of the network's inputs."""
_LIMIT_BYTES: Final = 1 << 20
_GET_AGAIN: Final = "install npuops again, or take the policy's folder again from where it was trained"


class CardRanges(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`familiarity.Ranges` as a card holds them: columns of `TASK_FEATURES`, then those of `HOST_FEATURES`."""

    low: tuple[float, ...]
    high: tuple[float, ...]
    q05: tuple[float, ...]
    q95: tuple[float, ...]

    def ranges(self) -> Ranges:
        """For the guard.

        Raises:
            OptionError: not as many columns as there are features, or ends before beginnings.
        """
        with np.errstate(over="ignore"):  # beyond float32 is infinite, and refused as such
            return Ranges(*(np.array(row, np.float32) for row in (self.low, self.high, self.q05, self.q95)))


def card_ranges(ranges: Ranges) -> CardRanges:
    """The other way round."""
    low, high, q05, q95 = (tuple(row.tolist()) for row in (ranges.low, ranges.high, ranges.q05, ranges.q95))
    return CardRanges(low=low, high=high, q05=q05, q95=q95)


class Data(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What it was trained on.

    Attributes:
        source: in words: which mixes, of which kernel.
        digest: of the samples.
        states: in training and validation together.
        candidates: scored for each state.
        mixes: from which the states came.
    """

    source: str
    digest: str
    states: int
    candidates: int
    mixes: int


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What makes the policy again, with the card's version of npuops.

    Attributes:
        commit: of the source; None where it was no checkout.
        options: of `npuops hostsched train`, all of them, by their names in `TrainingOptions`.
    """

    commit: str | None
    options: Mapping[str, Any]


class Trained(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a policy came to be, as its trainer says it.

    Attributes:
        data: what it was trained on.
        seed: of weights, order and split.
        metrics: by name; validation if not said otherwise.
        ranges: of the features.
        recipe: None in cards that do not tell.
    """

    data: Data
    seed: int
    metrics: Mapping[str, float]
    ranges: CardRanges
    recipe: Recipe | None = None


SCALE_BOUNDS: Final = (0.5, 2.0)
SHIFT_BOUNDS_MISS: Final = (-2.0, 2.0)
SHIFT_BOUNDS_PROGRESS: Final = (-0.3, 0.3)
"""Beyond these it is not a bias that was measured, but another network that is needed: fit and card keep them."""


class Line(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A forecast's correction, `scale` times it plus `shift`, and why it is believed.

    Attributes:
        scale: 1 where nothing is corrected.
        shift: 0 likewise.
        samples: that it was fitted to.
        before: mean loss of plays that were left out of the fit, uncorrected; None with too few plays.
        after: the same with what the other plays say; nothing is corrected if that is not surely less.
    """

    scale: Annotated[float, Meta(ge=SCALE_BOUNDS[0], le=SCALE_BOUNDS[1])] = 1.0
    shift: Annotated[float, Meta(ge=SHIFT_BOUNDS_MISS[0], le=SHIFT_BOUNDS_MISS[1])] = 0.0
    samples: int = 0
    before: float | None = None
    after: float | None = None

    @property
    def is_identity(self) -> bool:
        """Nothing is corrected."""
        return self.scale == 1.0 and self.shift == 0.0


class Correction(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What plays on a real kernel said of the forecasts; the weights hold it already.

    Attributes:
        miss: of the logit of a task's miss share.
        progress: of a task's progress.
        plays: that were measured.
        unclean: of these, those that others disturbed.
        kernel: release, as in `uname -r`.
    """

    miss: Line
    progress: Line
    plays: int
    unclean: int
    kernel: str

    def __post_init__(self) -> None:
        """Progress is bounded closer than the logit that `Line` allows for.

        Raises:
            OptionError: it is shifted too far.
        """
        low, high = SHIFT_BOUNDS_PROGRESS
        if not low <= self.progress.shift <= high:
            raise OptionError(f"progress is shifted by {self.progress.shift:g}: it takes {low:g} to {high:g}")

    @property
    def is_identity(self) -> bool:
        """Nothing is corrected."""
        return self.miss.is_identity and self.progress.is_identity


class PolicyCard(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The content of `card.json`.

    Attributes:
        schema: of this file.
        name: of the policy.
        npuops: version that trained it.
        trained: how it came to be.
        shape: of the network.
        candidates: that its ONNX file and its artifacts take at once.
        trust: that was best in training, where the policy must guess for whom somebody waits.
        trust_told: the same where it is told of every task.
        task_features, history, host_features, levels: names of the inputs' columns.
        files: name → sha256 in hex, of all other files in the folder.
        artifacts: target → name of a file among `files`.
        correction: that its weights hold; None if it was never measured on a kernel, and then not in the file.
    """

    schema: str
    name: str
    npuops: str
    trained: Trained
    shape: NetworkShape
    candidates: int
    trust: Trust
    trust_told: Trust
    task_features: tuple[str, ...]
    history: tuple[str, ...]
    host_features: tuple[str, ...]
    levels: tuple[str, ...]
    files: Mapping[str, str]
    artifacts: Mapping[str, str]
    correction: Correction | None = None


@dataclass(frozen=True, slots=True)
class PolicyFolder:
    """A policy whose files all have the digests that its card says.

    Attributes:
        root: the folder.
        card: its card.
        weights: by name, checked against the network's shape.
    """

    root: Path
    card: PolicyCard
    weights: Mapping[str, NDArray[np.float32]] = field(repr=False)

    @property
    def onnx(self) -> Path:
        """The network, float32."""
        return self.root / ONNX_NAME

    @property
    def rule(self) -> Path | None:
        """Thresholds of the rule that proposes to it; None: the rule's own figures."""
        return self.root / RULE_NAME if RULE_NAME in self.card.files else None

    def artifact(self, target: str) -> Path | None:
        """The policy as `npuops build` made it for a target; None if it was not built for that."""
        name = self.card.artifacts.get(target)
        return None if name is None else self.root / name


def card_of(  # noqa: PLR0913 - what a card is made of
    *,
    name: str,
    version: str,
    trained: Trained,
    shape: NetworkShape,
    candidates: int,
    trust: tuple[Trust, Trust],
    root: Path,
    artifacts: Mapping[str, str],
    correction: Correction | None = None,
) -> PolicyCard:
    """The card for the files that lie in `root`: weights, ONNX, artifacts, and the rule's thresholds if there are any.

    Raises:
        StorageError: one cannot be read.
    """
    rule = (RULE_NAME,) if (root / RULE_NAME).is_file() else ()
    names = sorted({WEIGHTS_NAME, ONNX_NAME, *rule, *artifacts.values()})
    return PolicyCard(
        schema=SCHEMA,
        name=name,
        npuops=version,
        trained=trained,
        shape=shape,
        candidates=candidates,
        trust=trust[0],
        trust_told=trust[1],
        task_features=TASK_FEATURES,
        history=HISTORY,
        host_features=HOST_FEATURES,
        levels=tuple(level.name for level in LEVELS),
        files={each: _sha256(root / each) for each in names},
        artifacts=dict(sorted(artifacts.items())),
        correction=correction,
    )


def write_card(root: Path, card: PolicyCard) -> Path:
    """Write `card.json`: keys sorted, two spaces, a newline at the end.

    Raises:
        StorageError: the disk does not take it.
    """
    path = root / CARD_NAME
    with storage_errors("write", path):
        path.write_bytes(msgspec.json.format(msgspec.json.encode(card, order="sorted"), indent=2) + b"\n")
    return path


def read_card(root: Path) -> PolicyCard:
    """Read `card.json` alone.

    Raises:
        StorageError: it cannot be read.
        IntegrityError: it is no card.
        IncompatibleArtifactError: of another version, or trained on other features or levels.
    """
    path = root / CARD_NAME
    with storage_errors("read", path), path.open("rb") as file:
        data = file.read(_LIMIT_BYTES + 1)
    if len(data) > _LIMIT_BYTES:
        raise IntegrityError(f"{path}: over a megabyte is no policy's card", advice=_GET_AGAIN)
    try:
        schema = msgspec.json.decode(data, type=dict[str, msgspec.Raw]).get("schema", msgspec.Raw(b'""'))
        if bytes(schema) != f'"{SCHEMA}"'.encode():
            found = bytes(schema).decode(errors="replace")[:60]
            raise IncompatibleArtifactError(f"{path}: schema is {found}, not {SCHEMA}", advice=_GET_AGAIN)
        card = msgspec.json.decode(data, type=PolicyCard)
    except (msgspec.DecodeError, UnicodeDecodeError, DataError, OptionError) as error:
        raise IntegrityError(f"{path} is not a policy's card: {error}", advice=_GET_AGAIN) from error
    _check_inputs(card, path)
    return card


def open_policy(root: Path) -> PolicyFolder:
    """Read a policy and prove that its files are those of its card.

    Raises:
        StorageError: a file cannot be read.
        IntegrityError: a file differs from the card, or is no such file.
        IncompatibleArtifactError: of another version, or trained on other features or levels.
    """
    card = read_card(root)
    for name, wanted in card.files.items():
        if Path(name).name != name or name in {"", ".", ".."}:
            raise IntegrityError(f"{root}: the card names {name!r}, which is no file of its folder", advice=_GET_AGAIN)
        if _sha256(root / name) != wanted:
            raise IntegrityError(f"{root / name} differs from its card", advice=_GET_AGAIN)
    stray = [name for name in (WEIGHTS_NAME, ONNX_NAME, *card.artifacts.values()) if name not in card.files]
    if stray:
        raise IntegrityError(f"{root}: the card has no digest of {', '.join(stray)}", advice=_GET_AGAIN)
    return PolicyFolder(root, card, read_weights(root / WEIGHTS_NAME, card.shape))


def read_weights(path: Path, shape: NetworkShape) -> dict[str, NDArray[np.float32]]:
    """Weights from an `.npz` file.

    Raises:
        StorageError: it cannot be read.
        IntegrityError: it is no such file, or of another network.
    """
    try:
        found = read_arrays(path)
        shape.check(found)
    except DataError as error:
        raise IntegrityError(f"{path}: {error.message}", advice=_GET_AGAIN) from error
    return {name: array.astype(np.float32, copy=False) for name, array in found.items()}


def bundled_policy() -> Path:
    """The folder of the policy that ships with npuops; it may be absent."""
    return Path(str(files("npuops.hostsched"))) / "policy"


def _check_inputs(card: PolicyCard, path: Path) -> None:
    ours = (TASK_FEATURES, HISTORY, HOST_FEATURES)
    if (card.task_features, card.history, card.host_features) != ours:
        raise IncompatibleArtifactError(f"{path}: trained on other features than this npuops has", advice=_GET_AGAIN)
    if card.levels != tuple(level.name for level in LEVELS)[: len(card.levels)] or not card.levels:
        raise IncompatibleArtifactError(f"{path}: trained on other levels than this npuops has", advice=_GET_AGAIN)
    wanted = (1 + len(TASK_FEATURES) + 1, len(HISTORY), len(HOST_FEATURES), len(card.levels))
    if (card.shape.features, card.shape.history, card.shape.host, card.shape.levels) != wanted:
        raise IntegrityError(f"{path}: its network does not take the features that it names", advice=_GET_AGAIN)
    try:
        card.trained.ranges.ranges()
    except OptionError as error:
        raise IntegrityError(f"{path}: {error.message}", advice=_GET_AGAIN) from error


def _sha256(path: Path) -> str:
    with storage_errors("read", path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
