from __future__ import annotations

import math
from typing import Any

import pytest

from npuops.errors import OptionError
from npuops.models.preprocessing import ImagePreprocessing


@pytest.mark.parametrize(
    "values",
    [
        {"channels": "rbg"},
        {"resize": 0.5},
        {"std": (1.0, 0.0, 1.0)},
        {"mean": (0.1, 0.2)},
        {"mean": ()},
        {"scale": math.nan},
        {"std": (math.inf,)},
    ],
)
def test_an_impossible_value_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        ImagePreprocessing(**values)
