"""Apply the safe rewrites to a model, one by one, and prove after each that the results are the same.

A rewrite that cannot be proved equal on the samples is rolled back and reported as refused; where only some of
its sites are at fault, the others are kept. Every proof is against the *original* model, so that
small differences cannot add up unseen.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

from npuops.errors import OptionError, RunError, UnsupportedModelError, UsageError, nearest
from npuops.evaluate.equality import Difference, all_equal, compare
from npuops.evaluate.reference import run_reference
from npuops.evaluate.samples import Samples
from npuops.events import Observer, StepProgressed, ignore
from npuops.models.onnx_file import INLINE_BYTES, read_onnx, write_onnx
from npuops.models.open import open_model
from npuops.models.shapes import fix_shapes
from npuops.private_folder import private_folder
from npuops.rewrite.analyse import analyse
from npuops.rewrite.patterns import PATTERNS
from npuops.rewrite.proof_samples import proof_samples
from npuops.rewrite.rewrite_graph import Graph
from npuops.rewrite.rewrite_table import REWRITES, Rewrite, rewrite_model
from npuops.targets.protocol import Target

MAX_TRIED_SITES = 32
"""A rewrite that fails as a whole is tried site by site, up to this many."""

Outputs = Mapping[str, NDArray[Any]]


class FixVerdict(StrEnum):
    """What became of a rewrite."""

    APPLIED = "applied"
    PARTLY = "partly"
    """Some sites were proved equal and kept, others were rolled back."""
    REFUSED = "refused"
    """Not proved equal, or the result was not a valid model: rolled back."""
    ABSENT = "absent"
    """Asked for by name, but the model has no such pattern."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fix:
    """One rewrite and its proof."""

    name: str
    verdict: FixVerdict
    nodes: tuple[str, ...]
    """Nodes of the rewritten sites; of the refused ones when nothing was kept."""
    sites: int
    """How many places were rewritten."""
    why: str = ""
    """Why not, or why not everywhere."""
    proof: tuple[Difference, ...] = ()
    """Every output after this rewrite against the original model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FixReport:
    """What `apply_fixes` did."""

    model: str
    out: str
    target: str
    samples: int
    samples_source: str
    fixes: tuple[Fix, ...]
    constant_outputs: tuple[str, ...] = ()
    """Outputs that are the same for all samples: the proof says little about them."""

    @property
    def applied(self) -> tuple[str, ...]:
        """Names of the rewrites that are in the new file, wholly or partly."""
        return tuple(fix.name for fix in self.fixes if fix.verdict in {FixVerdict.APPLIED, FixVerdict.PARTLY})


def apply_fixes(
    path: Path,
    out: Path,
    *,
    target: Target,
    only: Collection[str] | None = None,
    samples: Samples | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    observe: Observer = ignore,
) -> FixReport:
    """Write `out`: the model in `path` with every rewrite that helps the target and is proved equal.

    Args:
        path: an ONNX file.
        out: the file to write; the source is never overwritten.
        target: whose known-bad patterns are cured.
        only: names of rewrites, whether the target needs them or not; None: those that it needs.
        samples: inputs of the proof; None: seeded random ones in the ranges that the graph admits.
        shapes: sizes for dynamic inputs; they are fixed in `out`.
        observe: gets a `StepProgressed` per rewrite.

    Raises:
        OptionError: an unknown rewrite.
        UsageError: `out` is the source.
        RunError: the reference cannot run the original model, so nothing can be proved.
    """
    if out.resolve() == path.resolve():
        raise UsageError(f"{out} is the source model", advice="name another file: the source is never overwritten")
    proto = fix_shapes(read_onnx(path), shapes or {})
    names = _wanted(proto, path, target, only, shapes)
    samples = samples or proof_samples(proto)
    proof = Proof(proto, samples)
    fixes: list[Fix] = []
    for done, name in enumerate(names):
        observe(StepProgressed(step="fix", done=done, total=len(names), detail=name))
        proto, fix = _fix(proto, REWRITES[name], proof)
        if fix.verdict is not FixVerdict.ABSENT or only is not None:
            fixes.append(fix)
    write_onnx(proto, out)
    return FixReport(
        model=path.name,
        out=str(out),
        target=target.name,
        samples=len(samples),
        samples_source=samples.source,
        fixes=tuple(fixes),
        constant_outputs=proof.constant_outputs() if fixes else (),
    )


class Proof:
    """Runs rewritten graphs on the samples and compares them with the original's outputs."""

    def __init__(self, original: onnx.ModelProto, samples: Samples) -> None:
        self._original = original
        self._samples = samples

    @cached_property
    def wanted(self) -> Outputs:
        """The original's outputs; computed when the first rewrite is judged, for they may take minutes.

        Raises:
            RunError: the reference cannot run the original.
        """
        return _run(self._original, self._samples)

    def run(self, proto: onnx.ModelProto) -> Outputs:
        """Outputs of a rewritten graph.

        Raises:
            RunError: the reference refuses it.
        """
        return _run(proto, self._samples)

    def constant_outputs(self) -> tuple[str, ...]:
        """Outputs that do not depend on the sample."""
        several = len(self._samples) > 1
        return tuple(name for name, rows in self.wanted.items() if several and (rows == rows[:1]).all())


def _run(proto: onnx.ModelProto, samples: Samples) -> Outputs:
    if proto.ByteSize() <= INLINE_BYTES:
        return run_reference(proto, samples)
    with private_folder() as folder:
        path = folder / "model.onnx"
        write_onnx(proto, path)
        return run_reference(path, samples)


def _wanted(
    proto: onnx.ModelProto,
    path: Path,
    target: Target,
    only: Collection[str] | None,
    shapes: Mapping[str, tuple[int, ...]] | None,
) -> tuple[str, ...]:
    """Names of the rewrites to try, in the order of the table."""
    for name in only or ():
        if name not in REWRITES:
            raise OptionError(f"no fix {name!r}", advice=nearest(name, REWRITES))
    if only is not None:
        return tuple(name for name in REWRITES if name in only)
    report = analyse(open_model(path, shapes=shapes), target, proto=proto)
    advised = {advice.fix for advice in report.advice}
    # One rewrite can uncover another pattern, so those that always matter to the target are tried as well.
    advised |= {pattern.fix for pattern in PATTERNS if pattern.scope.holds(target) and not pattern.on_cpu_only}
    return tuple(name for name in REWRITES if name in advised)


def _fix(proto: onnx.ModelProto, rewrite: Rewrite, proof: Proof) -> tuple[onnx.ModelProto, Fix]:
    sites = tuple(site.names for site in rewrite.find(Graph(proto)))
    if not sites:
        return proto, _report(rewrite, FixVerdict.ABSENT, (), why="the model has no such pattern")
    whole = _attempt(proto, rewrite, proof, None)
    if whole.kept:
        return whole.proto, _report(rewrite, FixVerdict.APPLIED, whole.sites, proof=whole.proof)
    if len(sites) == 1 or not whole.proof:  # an invalid result is not a matter of single places
        return proto, _report(rewrite, FixVerdict.REFUSED, sites, why=whole.why, proof=whole.proof)
    kept: list[tuple[str, ...]] = []
    last = whole
    for names in sites[:MAX_TRIED_SITES]:
        one = _attempt(proto, rewrite, proof, frozenset({names}))
        if one.kept:
            proto, last = one.proto, one
            kept += one.sites
    if not kept:
        return proto, _report(rewrite, FixVerdict.REFUSED, sites, why=whole.why, proof=whole.proof)
    why = f"{len(sites) - len(kept)} of {len(sites)} places left alone: {whole.why}"
    return proto, _report(rewrite, FixVerdict.PARTLY, tuple(kept), why=why, proof=last.proof)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempt:
    kept: bool
    proto: onnx.ModelProto
    sites: tuple[tuple[str, ...], ...] = ()
    why: str = ""
    proof: tuple[Difference, ...] = ()


def _attempt(
    proto: onnx.ModelProto, rewrite: Rewrite, proof: Proof, wanted: frozenset[tuple[str, ...]] | None
) -> _Attempt:
    try:
        result, sites = rewrite_model(proto, rewrite, wanted=wanted)
    except UnsupportedModelError as error:
        return _Attempt(kept=False, proto=proto, why=_first_line(error))
    if not sites:
        return _Attempt(kept=False, proto=proto, why="the pattern was not there any more")
    wanted_outputs = proof.wanted  # outside of the try: when the original itself does not run, that is no refusal
    try:
        differences = compare(proof.run(result), wanted_outputs, rewrite.tolerance)
    except RunError as error:
        return _Attempt(kept=False, proto=proto, why=_first_line(error))
    if all_equal(differences):
        return _Attempt(kept=True, proto=result, sites=sites, proof=differences)
    worst = next(difference for difference in differences if not difference.equal)
    return _Attempt(kept=False, proto=proto, why=f"output {worst.output}: {worst.why}", proof=differences)


def _report(
    rewrite: Rewrite,
    verdict: FixVerdict,
    sites: tuple[tuple[str, ...], ...],
    *,
    why: str = "",
    proof: tuple[Difference, ...] = (),
) -> Fix:
    nodes = tuple(dict.fromkeys(name for names in sites for name in names))
    return Fix(name=rewrite.name, verdict=verdict, nodes=nodes, sites=len(sites), why=why, proof=proof)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", maxsplit=1)[0][:300]
