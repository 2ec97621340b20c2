"""The HTML report of an artifact: one file that answers "may this go out, and why?" to a reader without npuops."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path

from npuops.artifacts.evidence import Verdict
from npuops.artifacts.latency_figures import latency_figures
from npuops.artifacts.manifest import Artifact, Manifest
from npuops.build.gate import compiled_bytes
from npuops.models.placement import RunsOn
from npuops.report.against_fp32 import worst_cosine
from npuops.report.compare import tensor_words
from npuops.report.output_file import refuse_output, write_output
from npuops.report.report_evidence import gate_section, parity_section, verdict_pill
from npuops.report.report_page import Markup, element, page, pairs, section, table
from npuops.report.report_placement import placement_section, profile_section, side_names
from npuops.targets.protocol import Profile
from npuops.units import Basis, format_bytes, format_count, format_us


def render_report(artifact: Artifact, profile: Profile | None = None, *, name: str = "ARTIFACT") -> str:
    """The page as HTML text.

    Args:
        artifact: verified, or being built (then without a digest of its own).
        profile: its per-operator costs; the page says how to get them when None.
        name: what the artifact is called in the commands at the end.
    """
    manifest = artifact.manifest
    return page(
        f"{manifest.model.name} for {manifest.target}",
        _header(manifest),
        gate_section(manifest),
        parity_section(manifest),
        placement_section(manifest),
        profile_section(profile, manifest.target),
        _quantization(manifest),
        _identity(manifest),
        _toolchain(manifest),
        _files(manifest),
        _reproduce(manifest, name),
        element("footer", f"Written by npuops {manifest.npuops}. This page loads nothing from elsewhere."),
    )


def write_report(artifact: Artifact, path: Path, *, profile: Profile | None = None, name: str | None = None) -> Path:
    """Write the page to a file outside of the artifact, whole or not at all.

    Args:
        artifact: verified.
        path: replaced if it exists.
        profile: as for `render_report`.
        name: what the artifact is called in the page; by default the name of its folder.

    Raises:
        UsageError: the path lies inside of the artifact, which would not verify any more.
        StorageError: it cannot be written.
    """
    refuse_output(path, artifact.root)
    write_output(path, render_report(artifact, profile, name=name or artifact.root.name).encode())
    return path


def _header(manifest: Manifest) -> Markup:
    gate, parity = manifest.gate, manifest.parity
    verdict = gate.verdict if gate else parity.verdict if parity else None
    judge = "gate" if gate else "parity"
    pill = verdict_pill(verdict, f"{judge}: {verdict or 'not judged'}", big=True)
    precision = f"{manifest.precision} on {manifest.target}"
    lead = f"{precision}, built {manifest.created}"
    names = element(
        "div",
        element("h1", manifest.model.name),
        element("p", lead, class_="lead"),
        *(element("p", line, class_="lead why") for line in _why(manifest)),
    )
    tiles = (
        element("div", element("dt", name), element("dd", value, element("span", under, class_="under")), class_="tile")
        for name, value, under in _tiles(manifest)
    )
    return element("header", element("div", names, pill, class_="top"), element("dl", *tiles, class_="tiles"))


def _why(manifest: Manifest) -> Iterable[str]:
    """The rules that kept the verdict from being a pass, in the reader's first glance."""
    for verdict, words in ((Verdict.ERROR, "Error"), (Verdict.FAIL, "Not met"), (Verdict.INCONCLUSIVE, "Not decided")):
        names = [rule.name for rule in manifest.gate.rules if rule.verdict is verdict] if manifest.gate else []
        if names:
            yield f"{words}: {', '.join(names)}"


def _tiles(manifest: Manifest) -> Iterable[tuple[str, str, str]]:
    ratio = manifest.placement.fallback_ratio
    macs = "MACs unknown" if ratio.macs is None else f"{1 - ratio.macs:.1%} of MACs"
    yield f"On {side_names(manifest.target)[RunsOn.NPU]}", f"{1 - ratio.ops:.1%}", f"of operators, {macs}"
    accuracy = manifest.accuracy
    if accuracy is not None:
        under = f"{accuracy.metric}; fp32 {accuracy.fp32:.4g}, {accuracy.samples} samples"
        yield "Accuracy", f"{accuracy.artifact:.4g}", under
    cosine = worst_cosine(manifest)
    if cosine is not None:
        yield "Cosine to fp32", f"{cosine:.5f}", "of the worst output"
    yield "Compiled size", format_bytes(compiled_bytes(manifest)), "all files that the compiler wrote"
    for figure in latency_figures(manifest):
        yield "One inference", format_us(figure.us), f"{figure.basis}: {_meaning(figure.basis)}"


def _meaning(basis: Basis) -> str:
    return {
        Basis.MEASURED: "a clock on the build host",
        Basis.EMULATED: "an emulator's clock, not silicon",
        Basis.VENDOR_ESTIMATE: "the compiler's own model",
        Basis.MODELLED: "our model",
    }[basis]


def _quantization(manifest: Manifest) -> Markup:
    found = manifest.quantization
    if found is None:
        return section("Quantization", element("p", f"None: the model runs in {manifest.precision}."))
    facts = pairs(
        (
            ("Method", f"{found.method}, {'per channel' if found.per_channel else 'per tensor'}"),
            ("Activations", found.activations),
            ("Weights", found.weights),
            ("Calibration", f"{found.calibration_samples} samples"),
            ("Calibration digest", element("span", found.calibration_digest, class_="mono")),
            ("16-bit tensors", str(len(found.tensors_16bit))),
        )
    )
    if not found.tensors_16bit:
        return section("Quantization", facts)
    names = element("p", ", ".join(found.tensors_16bit), class_="mono")
    return section("Quantization", facts, element("h3", "Activations kept at 16 bits"), names)


def _identity(manifest: Manifest) -> Markup:
    model = manifest.model
    macs = "unknown" if model.macs is None else format_count(model.macs)
    facts: list[tuple[str, str]] = [
        ("Model digest", element("span", model.digest, class_="mono")),
        ("Format", model.format if model.opset is None else f"{model.format}, opset {model.opset}"),
        ("MACs", macs),
        ("Weights", f"{format_bytes(model.weight_bytes)} in the source model"),
        ("Inputs", ", ".join(tensor_words(tensor) for tensor in manifest.inputs)),
        ("Outputs", ", ".join(tensor_words(tensor) for tensor in manifest.outputs)),
    ]
    if manifest.labels is not None:
        facts.append(("Labels", f"{len(manifest.labels)} classes"))
    if manifest.digest:
        facts.append(("Artifact digest", element("span", manifest.digest, class_="mono")))
    return section("Identity", pairs(facts))


def _toolchain(manifest: Manifest) -> Markup:
    record = manifest.compile
    rows = [(name, manifest.toolchain[name]) for name in sorted(manifest.toolchain)]
    facts = [
        ("Compiled in", f"{record.seconds:.2f} s"),
        ("Cache key", element("span", record.cache_key, class_="mono")),
        ("Compatibility", element("span", manifest.compatibility or "no string given", class_="mono")),
    ]
    parts: list[str] = [pairs(facts), table("Versions", ("Package", "Version"), rows)]
    if record.vendor_options:
        parts.append(table("Vendor options", ("Option", "Value"), sorted(record.vendor_options.items())))
    if record.notes:
        parts.append(table("What the compiler reported", ("Figure", "Value"), sorted(record.notes.items())))
    return section("Toolchain", *parts)


def _files(manifest: Manifest) -> Markup:
    rows = [
        (
            f"{record.name} (entry)" if record.name == manifest.entry else record.name,
            record.role,
            format_bytes(record.bytes),
            element("span", record.sha256, class_="mono"),
        )
        for record in manifest.files
    ]
    return section(
        "Files", table("Every file with its digest", ("File", "Role", "Size", "SHA-256"), rows, numbers=(2,))
    )


def _reproduce(manifest: Manifest, artifact: str) -> Markup:
    name = shlex.quote(artifact)
    build = f"npuops build MODEL --target {shlex.quote(manifest.target)} --precision {shlex.quote(manifest.precision)}"
    calibration = " --calibration DATA" if manifest.quantization is not None else ""
    commands = "\n".join(
        (
            f"npuops verify {name}",
            f"npuops gate {name} --policy gate.toml",
            f"npuops profile {name} -o report.html",
            f"{build}{calibration} -o {name}",
        )
    )
    words = "MODEL is the file with the model digest above" + (
        ", DATA the set with the calibration digest." if calibration else "."
    )
    return section("Reproduce", element("pre", commands), element("p", words, class_="note"))
