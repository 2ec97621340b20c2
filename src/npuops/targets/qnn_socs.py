"""Qualcomm chips with a Hexagon Tensor Processor: part name → id, architecture, VTCM, precisions.

Where the figures come from:

- `soc_model`, architecture and VTCM: ExecuTorch's backends/qualcomm/serialization/qc_schema.py (BSD-3-Clause);
  the ids of SC8380XP and QCS8550: Qualcomm's QnnTypes.h; of SC8480XP: contexts of that machine that people
  published (`"socModel": 88, "dspArch": 81`). `None` where none of these names the VTCM.
- precisions: each id was compiled for and run with onnxruntime-qnn 2.7.0 (QAIRT 2.51) on the x86 emulator, each
  in a process of its own, with a small float CNN. Quantized graphs work on all of them. FP16 failed ("inserted
  using the NHWC format …") on 45, 46, 58, 93, 95 and 96. On 30
  (SM8350) it answers to 1.7e-6 where every other chip is 5e-3 off: the emulator computed in float32, so it is not
  offered. BF16 worked on 88 only.

An architecture alone (`v73`) takes quantized graphs only: without an id the emulator computes floats in
float32, which no HTP can (largest difference to the CPU 1e-6, with an id 1e-3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from npuops.targets.protocol import Precision

QUANTIZED: Final = (Precision.A8W8, Precision.A16W8, Precision.MIXED)
ARCHITECTURES: Final = (68, 69, 73, 75, 79, 81)
"""Any other number is accepted by the vendor and silently becomes v68."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Soc:
    """One chip, or one architecture (`soc_model` None)."""

    name: str
    soc_model: int | None
    arch: int
    vtcm_mib: int | None
    precisions: tuple[Precision, ...]


def _chip(name: str, soc_model: int, arch: int, vtcm_mib: int | None, *more: Precision) -> Soc:
    precisions = (*QUANTIZED, *more)
    return Soc(name=name, soc_model=soc_model, arch=arch, vtcm_mib=vtcm_mib, precisions=precisions)


_CHIPS: Final = (
    _chip("qcm6490", 93, 68, 2),
    _chip("qcs6490", 93, 68, 2),  # the same die without a modem: the SDK has one id for both
    _chip("qcs8550", 66, 73, None, Precision.FP16),
    _chip("qcs9100", 77, 73, 8, Precision.FP16),
    _chip("sa8255", 52, 73, 8, Precision.FP16),
    _chip("sa8295", 39, 68, 8, Precision.FP16),
    _chip("sa8540", 62, 68, 8, Precision.FP16),
    _chip("sa8797", 72, 81, 16, Precision.FP16),
    _chip("sar2230p", 95, 81, 4),
    _chip("sc8380xp", 60, 73, None, Precision.FP16),
    _chip("sc8480xp", 88, 81, None, Precision.FP16, Precision.BF16),
    _chip("sm8350", 30, 68, 4),
    _chip("sm8450", 36, 69, 8, Precision.FP16),
    _chip("sm8475", 42, 69, 8, Precision.FP16),
    _chip("sm8550", 43, 73, 8, Precision.FP16),
    _chip("sm8650", 57, 75, 8, Precision.FP16),
    _chip("sm8750", 69, 79, 8, Precision.FP16),
    _chip("sm8845", 97, 81, 8, Precision.FP16),
    _chip("sm8850", 87, 81, 8, Precision.FP16),
    _chip("ssg2115p", 46, 73, 2),
    _chip("ssg2125p", 58, 73, 2),
    _chip("sw6100", 96, 81, 4),
    _chip("sxr1230p", 45, 73, 2),
    _chip("sxr2230p", 53, 69, 8, Precision.FP16),
    _chip("sxr2330p", 75, 79, 8, Precision.FP16),
)
_ARCHES: Final = tuple(
    Soc(name=f"v{arch}", soc_model=None, arch=arch, vtcm_mib=None, precisions=QUANTIZED) for arch in ARCHITECTURES
)

SOCS: Final[Mapping[str, Soc]] = {soc.name: soc for soc in (*_CHIPS, *_ARCHES)}


def chips_with(precision: Precision) -> tuple[str, ...]:
    """Names of the chips that can do `precision`, for advice."""
    return tuple(soc.name for soc in _CHIPS if precision in soc.precisions)
