"""A batch curve that was measured on a busy host, put right by the runs that follow. Pure.

What disturbs a measurement only makes it longer, so that several runs in a row which were clearly shorter prove a point
of the curve wrong. A device's pace would follow them as well, but it is forgotten while the device has nothing to do,
and a device that is believed to be slow has nothing to do. The other way round proves nothing: runs that take longer
than the curve says are what the pace is for.
"""

from __future__ import annotations

from typing import Final

from npuops.runtime.batch_curve import BatchCurve

CLEARLY: Final = 0.8
"""A run shorter than this share of what the curve says."""
RUNS: Final = 8
"""In a row; the longest of them is what the curve says from then on."""


class CurveCorrection:
    """Of all devices of one model version."""

    __slots__ = ("_shorter",)

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._shorter: dict[tuple[str, int, int], tuple[int, float]] = {}

    def ran(
        self, device: str, index: int, curves: tuple[BatchCurve, ...], rows: int, took_us: float
    ) -> tuple[BatchCurve, ...] | None:
        """The device's curves as they are known now; None where they stay as they are.

        Args:
            device: its name.
            index: of the artifact that was run.
            curves: of each artifact.
            rows: that were computed. They prove something for the largest measured size that is not larger.
            took_us: of the run.
        """
        curve = curves[index]
        size = max((point for point, _ in curve.points if point <= rows), default=0)
        if not size:
            return None
        key = (device, index, size)
        if took_us >= CLEARLY * curve.us(size):
            self._shorter.pop(key, None)
            return None
        count, longest_us = self._shorter.get(key, (0, 0.0))
        count, longest_us = count + 1, max(longest_us, took_us)
        if count < RUNS:
            self._shorter[key] = (count, longest_us)
            return None
        del self._shorter[key]
        points = tuple((point, longest_us if point == size else us) for point, us in curve.points)
        return (*curves[:index], BatchCurve(points), *curves[index + 1 :])
