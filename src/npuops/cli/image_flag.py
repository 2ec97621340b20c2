"""`--image KEY=VALUE`: how pixels become numbers, as `build` records it and `run` and `profile` repeat it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from npuops.artifacts.manifest import Manifest
from npuops.config import read_options
from npuops.errors import OptionError, UsageError
from npuops.models.preprocessing import ImagePreprocessing

ImageFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--image",
        help="How pixels become numbers: scale=, mean=R,G,B, std=R,G,B, channels=rgb|bgr, resize=. Can be repeated.",
    ),
]


def parse_image_options(words: Sequence[str] | None) -> ImagePreprocessing:
    """`["mean=0.5", "std=0.5"]` → options; the defaults map pixels to 0..1.

    Raises:
        OptionError: no `=`, a key given twice, an unknown key, a value that is no number, an impossible value.
    """
    return read_options(ImagePreprocessing, _values(words), where="--image")


def image_of_artifact(manifest: Manifest, words: Sequence[str] | None) -> ImagePreprocessing:
    """What the artifact was calibrated with; where it records nothing, what the words say.

    Raises:
        OptionError: as `parse_image_options`.
        UsageError: a word contradicts the artifact.
    """
    given = parse_image_options(words)
    recorded = manifest.image
    if recorded is None:
        return given
    for key in _values(words):
        if getattr(given, key) != getattr(recorded, key):
            raise UsageError(
                f"--image {key} contradicts the artifact, which was built for {recorded.words}",
                advice="leave --image out, or build the artifact again with --image",
            )
    return recorded


def _values(words: Sequence[str] | None) -> dict[str, object]:
    values: dict[str, object] = {}
    for word in words or ():
        key, equals, value = word.partition("=")
        if not equals:
            raise OptionError(f"--image {word!r} has no value", advice="write for example --image mean=0.5")
        if key in values:
            raise OptionError(f"--image names {key!r} twice", advice="for each channel: mean=0.485,0.456,0.406")
        try:
            values[key] = _value(key, value)
        except ValueError as error:
            raise OptionError(f"--image {word!r}: {error}") from error
    return values


def _value(key: str, text: str) -> object:
    match key:
        case "channels":
            return text
        case "mean" | "std":
            values = tuple(float(part) for part in text.split(","))
            # The same for every channel is one value: `0.5,0.5,0.5` must not contradict `0.5`.
            return values[:1] if len(values) == 3 and len(set(values)) == 1 else values
        case _:
            return float(text)
