"""The bundled zoo: small real models, trained by `examples/zoo/train.py`, with calibration and evaluation data.

Each model takes `image`, f32[1, 1, 8, 8] in 0..1, and gives `logits`, f32[1, 10].
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

import msgspec

from npuops.errors import IntegrityError, OptionError, nearest

SCHEMA: Final = "npuops.zoo/1"
PREFIX: Final = "zoo:"
"""Where a path is expected, this and a name mean a model of the zoo."""
_CARD: Final = "zoo.json"
_REINSTALL: Final = "install npuops again; its bundled files are incomplete or changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ZooModel:
    """One bundled model and its data; every file was compared with its digest in the card."""

    name: str
    summary: str
    model: Path
    """Float ONNX, batch 1."""
    calibration: Path
    """`.npz` for the sample loader: 64 training images under the input's name, with `labels`."""
    evaluation: Path
    """`.npz` of 360 labelled images that were never trained on."""
    labels: Path
    """One class name a line, in the order of the logits."""
    card: Path
    """`zoo.json`: seed, torch version, digests, accuracies, and the licence of the data."""
    sha256: str
    """Of the model file, in hex."""
    parameters: int
    accuracy: float
    """Top-1 on the evaluation set in float, as measured by the recipe."""

    def class_names(self) -> tuple[str, ...]:
        """The lines of `labels`."""
        return tuple(self.labels.read_text(encoding="utf-8").split("\n")[:-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    name: str
    summary: str
    model: str
    calibration: str
    evaluation: str
    labels: str
    parameters: int
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Card:
    schema: str
    sha256: Mapping[str, str]
    models: tuple[_Entry, ...]


def zoo(folder: Path | None = None) -> tuple[ZooModel, ...]:
    """All bundled models, in the order of the card.

    Args:
        folder: another folder with a `zoo.json`, as the recipe writes it; the bundled one when None.

    Raises:
        IntegrityError: a file is missing or differs from its digest, or the card cannot be read.
    """
    place = folder if folder is not None else Path(str(files("npuops.models") / "zoo_data"))
    card = _read_card(place / _CARD)
    for name, digest in card.sha256.items():
        _verify(place / name, digest)
    return tuple(_open(place, entry, card) for entry in card.models)


def zoo_model(name: str, folder: Path | None = None) -> ZooModel:
    """The bundled model of that name.

    Raises:
        OptionError: no such model; the nearest name is in the advice.
        IntegrityError: as `zoo`.
    """
    models = {model.name: model for model in zoo(folder)}
    if name not in models:
        raise OptionError(f"no model {name!r} in the zoo", advice=nearest(name, models))
    return models[name]


def _read_card(path: Path) -> _Card:
    try:
        card = msgspec.json.decode(path.read_bytes(), type=_Card)
    except OSError as error:
        raise IntegrityError(f"cannot read {path}: {error.strerror}", advice=_REINSTALL) from error
    except msgspec.DecodeError as error:
        raise IntegrityError(f"{path} is not the card of a zoo: {error}", advice=_REINSTALL) from error
    if card.schema != SCHEMA:
        raise IntegrityError(f"{path} has schema {card.schema!r}, not {SCHEMA!r}", advice=_REINSTALL)
    return card


def _verify(path: Path, digest: str) -> None:
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise IntegrityError(f"cannot read {path}: {error.strerror}", advice=_REINSTALL) from error
    if found != digest:
        raise IntegrityError(f"{path} differs from its digest in {_CARD}", advice=_REINSTALL)


def _open(folder: Path, entry: _Entry, card: _Card) -> ZooModel:
    # A name that is not in the card's digests was never verified; a path of its own could lead anywhere.
    unlisted = {entry.model, entry.calibration, entry.evaluation, entry.labels} - card.sha256.keys()
    if unlisted:
        raise IntegrityError(f"{_CARD} has no digest for {', '.join(sorted(unlisted))}", advice=_REINSTALL)
    return ZooModel(
        name=entry.name,
        summary=entry.summary,
        model=folder / entry.model,
        calibration=folder / entry.calibration,
        evaluation=folder / entry.evaluation,
        labels=folder / entry.labels,
        card=folder / _CARD,
        sha256=card.sha256[entry.model],
        parameters=entry.parameters,
        accuracy=entry.accuracy,
    )
