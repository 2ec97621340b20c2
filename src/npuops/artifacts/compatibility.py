"""Can this artifact run on that toolchain, driver and chip, and if not, what to do.

The answer compares what the artifact was built with (`Manifest.toolchain`, `Manifest.compatibility`) with what is
here. It never loads anything: vendors' own loaders do not enforce it (Qualcomm's emulator runs a binary for another
chip without a word).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from npuops.artifacts.evidence import Verdict, common_verdict
from npuops.artifacts.manifest import Manifest


class Span(StrEnum):
    """How far ahead of the version that an artifact was built with a package may be. Behind is never fine."""

    EXACT = "the same"
    MAJOR = "newer within the same major version"
    MINOR = "newer within the same minor version"
    BUILD_ONLY = "not needed to run"


POLICIES: Final[Mapping[str, Span]] = {
    "npuops": Span.MAJOR,  # what it writes is versioned by the manifest's schema
    "onnxruntime": Span.MAJOR,  # graphs and plugin API stay readable for later versions of ORT 1
    "onnxruntime-qnn": Span.MAJOR,  # Qualcomm keeps the API of QNN 2 backwards compatible from release to release
    "qairt": Span.MAJOR,
    "openvino": Span.EXACT,  # an exported blob belongs to one release
    "ethos-u-vela": Span.BUILD_ONLY,  # the command stream is complete; the driver on the device runs it
    "tflite": Span.BUILD_ONLY,
    "tosa-tools": Span.BUILD_ONLY,
    "tosa-converter-for-tflite": Span.BUILD_ONLY,
    "ai-edge-litert": Span.BUILD_ONLY,
    "onnx": Span.BUILD_ONLY,
    "numpy": Span.BUILD_ONLY,
    "processor": Span.BUILD_ONLY,  # it matters to some graphs of ORT, whose compatibility string says so
}
"""Package → how far ahead it may be; a package that is not named here follows `DEFAULT_SPAN`."""

DEFAULT_SPAN: Final = Span.MINOR

QNN_HTP_BACKEND: Final = 6
"""QNN_BACKEND_ID_HTP in Qualcomm's QnnHtpCommon.h."""

_PLAIN: Final = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18})*")
_ORT: Final = re.compile(r"ort:([^:]*):(\w+):([^:]*)", re.ASCII)
_QNN: Final = re.compile(r"v2:(\d{1,9}):([\d.]+):([\d.]+):(\d{1,9}):(\d{1,9}):(\d{1,9}):(\d{1,9})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chip:
    """A Hexagon chip, as far as it is known."""

    soc: int | None = None
    """Qualcomm's number of the SoC, for example 57 for SM8650."""
    arch: int | None = None
    """Hexagon architecture, for example 75."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QnnCompatibility:
    """What Qualcomm's compiler writes into a context binary: `v2:<backend>:<sdk>:<backend api>:<arch>:<soc>:0:0`."""

    backend: int
    sdk: str
    backend_api: str
    arch: int | None
    """None where the compiler was not told one (it writes 0)."""
    soc: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Compatibility:
    """The answer. Inconclusive: something that decides is not known here."""

    verdict: Verdict
    reasons: tuple[str, ...]
    """Why not `pass`; with `pass`, which differences do no harm."""
    advice: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Finding:
    verdict: Verdict
    reason: str = ""
    advice: str = ""


def compatible(
    manifest: Manifest, toolchain_here: Mapping[str, str], *, target_here: str | None = None, chip: Chip | None = None
) -> Compatibility:
    """Whether an artifact can run here.

    Args:
        manifest: of a verified artifact.
        toolchain_here: package, driver or firmware → version, as `Target.probe` gives it.
        target_here: the full name of the target that is to run it, if it is to be another than it was built for.
        chip: the chip that is to run it, for artifacts with Qualcomm's compatibility string.
    """
    findings = [
        *_target(manifest, target_here),
        *_toolchain(manifest, toolchain_here),
        *_ort(manifest, toolchain_here),
        *_openvino(manifest),
        *_qnn(manifest, toolchain_here, chip or Chip()),
    ]
    return Compatibility(
        verdict=common_verdict(tuple(finding.verdict for finding in findings)),
        reasons=tuple(finding.reason for finding in findings if finding.reason),
        advice=tuple(dict.fromkeys(finding.advice for finding in findings if finding.advice)),
    )


def parse_qnn(text: str) -> QnnCompatibility | None:
    """Read Qualcomm's compatibility string; None for anything else."""
    match = _QNN.fullmatch(text)
    if match is None:
        return None
    backend, sdk, backend_api, arch, soc, _, _ = match.groups()
    return QnnCompatibility(
        backend=int(backend), sdk=sdk, backend_api=backend_api, arch=int(arch) or None, soc=int(soc) or None
    )


def _target(manifest: Manifest, target_here: str | None) -> Iterator[_Finding]:
    if target_here is not None and target_here != manifest.target:
        yield _Finding(
            Verdict.FAIL,
            f"it was built for {manifest.target}, not for {target_here}",
            f"build it for this target: npuops build MODEL --target {target_here}",
        )


def _toolchain(manifest: Manifest, here: Mapping[str, str]) -> Iterator[_Finding]:
    if not manifest.toolchain:
        yield _Finding(
            Verdict.INCONCLUSIVE, "it does not say what it was built with", f"build it again: {_rebuild(manifest)}"
        )
        return
    spans = {package: POLICIES.get(package, DEFAULT_SPAN) for package in sorted(manifest.toolchain)}
    needed = {package: span for package, span in spans.items() if span is not Span.BUILD_ONLY}
    for package, span in needed.items():
        yield _package(manifest, package, manifest.toolchain[package], here.get(package), span)
    if not needed:
        yield _Finding(
            Verdict.INCONCLUSIVE,
            f"the driver and firmware of the device decide, and this machine does not know them ({manifest.target})",
            "compare the versions on the device with what the vendor's compiler supports: "
            + ", ".join(f"{package} {manifest.toolchain[package]}" for package in spans),
        )


def _package(manifest: Manifest, package: str, built: str, here: str | None, span: Span) -> _Finding:
    if here == built:
        return _Finding(Verdict.PASS)
    if here is None:
        return _Finding(
            Verdict.FAIL, f"{package} is not here; it was built with {built}", f"install {package} {built} here"
        )
    words = f"{package} {here} is here; it was built with {built}"
    if not (_PLAIN.fullmatch(here) and _PLAIN.fullmatch(built)):
        return _Finding(
            Verdict.INCONCLUSIVE, f"{words}: these versions have no order", f"install {package} {built} here"
        )
    return _ordered(manifest, package, (built, here), span, words)


def _ordered(manifest: Manifest, package: str, versions: tuple[str, str], span: Span, words: str) -> _Finding:
    built, here = (_numbers(version) for version in versions)
    rebuild = _rebuild(manifest)
    if here < built:
        return _Finding(
            Verdict.FAIL,
            f"{words}: older",
            f"upgrade {package} here to {versions[0]}, or build it again with {package} {versions[1]}: {rebuild}",
        )
    same = {Span.EXACT: 4, Span.MINOR: 2, Span.MAJOR: 1}[span]
    if here[:same] == built[:same]:
        return _Finding(Verdict.PASS, f"{words}: {span}, which is fine")
    return _Finding(
        Verdict.FAIL,
        f"{words}: it may only be {span}",
        f"build it again with {package} {versions[1]}: {rebuild}; or install {package} {versions[0]} here",
    )


def _ort(manifest: Manifest, here: Mapping[str, str]) -> Iterator[_Finding]:
    """`ort:<version>:<level>:<where>`: standard ONNX runs anywhere; other levels hold ORT's own operators."""
    match = _ORT.fullmatch(manifest.compatibility)
    if match is None or match[2] in {"disabled", "basic"}:
        return
    version, level, where = match.groups()
    found = here.get("onnxruntime")
    if found is not None and found != version:
        yield _Finding(
            Verdict.FAIL,
            f"optimized at level {level!r} it has operators of onnxruntime {version} alone, and {found} is here",
            f"build it again: {_rebuild(manifest)}; or install onnxruntime {version} here",
        )
    processor = here.get("processor")
    if processor is not None and processor != where and processor.partition("+")[0] != where:
        yield _Finding(
            Verdict.FAIL,
            f"optimized at level {level!r} it is for the processor {where}, and this is {processor}",
            f"build it on this kind of processor: {_rebuild(manifest)}",
        )


def _openvino(manifest: Manifest) -> Iterator[_Finding]:
    """A blob is for one instruction set too, which only OpenVINO itself can name; its session compares on opening."""
    if manifest.target.partition(":")[0] == "openvino" and manifest.compatibility:
        words = f"it needs the processor that it was compiled on ({manifest.compatibility}); opening it checks that"
        yield _Finding(Verdict.PASS, words)


def _qnn(manifest: Manifest, here: Mapping[str, str], chip: Chip) -> Iterator[_Finding]:
    if manifest.target.partition(":")[0] != "qnn-htp" or not manifest.compatibility:
        return
    known = parse_qnn(manifest.compatibility)
    if known is None:
        yield _Finding(
            Verdict.INCONCLUSIVE,
            f"its compatibility string {manifest.compatibility!r} is of an unknown form",
            "use a newer npuops, which may know it",
        )
        return
    if known.backend != QNN_HTP_BACKEND:
        yield _Finding(
            Verdict.FAIL, f"it is for QNN backend {known.backend}, not for HTP ({QNN_HTP_BACKEND})", _rebuild(manifest)
        )
    if "qairt" in here and "qairt" not in manifest.toolchain:
        yield _package(manifest, "qairt", known.sdk, here["qairt"], POLICIES["qairt"])
    for what, built, found in (("SoC", known.soc, chip.soc), ("Hexagon architecture", known.arch, chip.arch)):
        if built is not None and found is not None and built != found:
            yield _Finding(
                Verdict.FAIL,
                f"it was compiled for {what} {built}, and this is {what} {found}",
                f"build it for this chip: npuops build MODEL --target qnn-htp:<this {what}>",
            )


def _rebuild(manifest: Manifest) -> str:
    return f"npuops build MODEL --target {manifest.target}"


def _numbers(version: str) -> tuple[int, ...]:
    """At least three numbers, and zeros at the end do not count: `2.7` is `2.7.0`."""
    numbers = [int(part) for part in version.split(".")]
    while len(numbers) > 3 and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers + [0] * (3 - len(numbers)))
