"""JUnit XML that a CI server can read, whatever the names are."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from npuops.artifacts.evidence import Gate, GateRule, Verdict
from npuops.report.junit import junit_xml


def gate_of(*verdicts: Verdict, found: str = "4 %") -> Gate:
    rules = tuple(
        GateRule(name=f"rule{index}", verdict=verdict, wanted="≤ 1 %", found=found)
        for index, verdict in enumerate(verdicts)
    )
    return Gate(verdict=Verdict.FAIL, rules=rules)


def test_each_rule_is_a_case_with_the_element_of_its_verdict() -> None:
    text = junit_xml(gate_of(Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.ERROR), suite="art")
    suite = ET.fromstring(text.encode())[0]  # noqa: S314 - we wrote it
    counts = {key: suite.get(key) for key in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "4", "failures": "1", "errors": "1", "skipped": "1"}
    assert [case[0].tag for case in suite] == ["system-out", "failure", "skipped", "error"]
    assert suite[1][0].get("message") == "wanted: ≤ 1 %; found: 4 %"


def test_names_that_xml_cannot_hold_are_escaped_or_replaced() -> None:
    hostile = 'a"<b>&]]>\x00\x1b[31m\ud800\uffff'
    text = junit_xml(gate_of(Verdict.FAIL, found=hostile), suite=hostile)
    root = ET.fromstring(text.encode())  # noqa: S314 - we wrote it
    assert root[0].get("name") == 'a"<b>&]]>\ufffd\ufffd[31m\ufffd\ufffd'
