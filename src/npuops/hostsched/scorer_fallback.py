"""A scorer on a device that may go away: then the network runs in this process, and that is told."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from npuops.errors import DeviceError, RunError
from npuops.events import Observer, Warned
from npuops.hostsched.scorer import Outlook, Scene
from npuops.hostsched.scorer_session import NumpyScorer, Scorer


class FallingBack:
    """The agent would end with its device, and an idle NPU may be taken away at any time."""

    def __init__(self, device: Scorer, host: NumpyScorer, observe: Observer) -> None:
        """Nothing is asked yet.

        Args:
            device: takes all questions until one fails.
            host: takes them from then on.
            observe: told of that.
        """
        self._now: Scorer = device
        self._host = host
        self._observe = observe

    @property
    def placement(self) -> str:
        """Where it runs now."""
        return self._now.placement

    def score(self, scene: Scene, levels: NDArray[np.intp]) -> Outlook:
        """As `Scorer.score`, but the device's own errors stay here; numbers that are not finite do not."""
        try:
            return self._now.score(scene, levels)
        except (DeviceError, RunError) as error:
            self._observe(
                Warned(
                    step="policy",
                    message=f"{error.message}; the network runs on {self._host.placement} from now on",
                    advice=error.advice,
                )
            )
            self._now.close()
            self._now = self._host
            return self._now.score(scene, levels)

    def close(self) -> None:
        """Give back what it runs on now."""
        self._now.close()
