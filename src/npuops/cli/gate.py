"""`npuops gate`: judge an artifact by a policy; exit code 0 or 1, JUnit and JSON for CI servers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from npuops.artifacts.evidence import Gate, GateRule, Verdict
from npuops.artifacts.folder import opened
from npuops.artifacts.manifest import Artifact
from npuops.artifacts.signature import TrustPolicy, enforce
from npuops.build.gate import GateAnswer, SignatureFinding, compiled_bytes, judge
from npuops.build.policy import GatePolicy, SignaturePolicy
from npuops.cli.artifact_argument import ArtifactArgument
from npuops.cli.screen import verdict_text
from npuops.cli.show import EXIT_NO, JsonFlag, console, print_json
from npuops.config import load_options
from npuops.errors import ArtifactError, SignatureError
from npuops.report.junit import junit_xml
from npuops.report.output_file import refuse_output, write_output


def command(
    artifact: ArtifactArgument,
    policy: Annotated[
        Path | None, typer.Option("--policy", "-p", help="TOML file; without one, only parity and finite outputs.")
    ] = None,
    junit: Annotated[Path | None, typer.Option("--junit", help="Also write JUnit XML to this file.")] = None,
    allow_inconclusive: Annotated[
        bool, typer.Option("--allow-inconclusive", help="Exit with 0 where evidence is absent but nothing failed.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Verify the artifact, judge it, say why."""
    demands = GatePolicy() if policy is None else load_options(GatePolicy, policy)
    if junit is not None:
        refuse_output(junit, artifact)
    try:
        with opened(artifact) as found:
            signature = _signature(found, demands.signature, (policy or Path()).parent)
            manifest = found.manifest
    except ArtifactError as error:
        if junit is not None:
            write_output(junit, junit_xml(_refused(error), suite=artifact.name).encode())
        raise
    gate = judge(manifest, demands, size_bytes=compiled_bytes(manifest), signature=signature)
    if junit is not None:
        write_output(junit, junit_xml(gate, suite=artifact.name).encode())
    if as_json:
        print_json(
            GateAnswer(
                artifact=str(artifact),
                digest=manifest.digest,
                target=manifest.target,
                verdict=gate.verdict,
                rules=gate.rules,
                policy=demands,
            )
        )
    else:
        _table(gate, f"{artifact.name} for {manifest.target}")
    allowed = {Verdict.PASS, Verdict.INCONCLUSIVE} if allow_inconclusive else {Verdict.PASS}
    if gate.verdict not in allowed:
        raise typer.Exit(EXIT_NO)


def _signature(artifact: Artifact, policy: SignaturePolicy, folder: Path) -> SignatureFinding:
    """A refused signature is a finding of the gate, not an error of the program."""
    keys = tuple(folder / key for key in policy.trusted_keys)
    try:
        verified = enforce(artifact, TrustPolicy(require_signature=policy.required, trusted_keys=keys))
    except SignatureError as error:
        return SignatureFinding(trusted=False, words=error.message)
    if verified.trusted:
        return SignatureFinding(trusted=True, words=f"signed by {', '.join(key[:16] for key in verified.trusted)}")
    return SignatureFinding(trusted=not policy.required, words="not signed; no signature is required")


def _refused(error: ArtifactError) -> Gate:
    rule = GateRule(name="integrity", verdict=Verdict.ERROR, wanted="a whole artifact", found=error.message)
    return Gate(verdict=Verdict.ERROR, rules=(rule,))


def _table(gate: Gate, title: str) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("rule", "verdict", "wanted", "found"):
        table.add_column(heading, overflow="fold")
    for rule in gate.rules:
        table.add_row(rule.name, verdict_text(rule.verdict), rule.wanted, rule.found)
    console().print(table)
    console().print(Text.assemble(verdict_text(gate.verdict, bold=True), f": {title}"))
