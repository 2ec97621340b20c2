"""A gate as JUnit XML, which every CI server reads: one test case per rule."""

from __future__ import annotations

import re
from typing import Final
from xml.etree import ElementTree as ET  # only written here, never parsed

from npuops.artifacts.evidence import Gate, GateRule, Verdict

_ELEMENT: Final = {Verdict.FAIL: "failure", Verdict.ERROR: "error", Verdict.INCONCLUSIVE: "skipped"}
_NOT_XML: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold, not even escaped; a tensor's name may contain them."""


def junit_xml(gate: Gate, *, suite: str, class_name: str = "npuops.gate") -> str:
    """The document, in UTF-8 with a declaration. `suite` names the artifact."""
    count = {verdict: sum(rule.verdict is verdict for rule in gate.rules) for verdict in Verdict}
    attributes = {
        "name": _clean(suite),
        "tests": str(len(gate.rules)),
        "failures": str(count[Verdict.FAIL]),
        "errors": str(count[Verdict.ERROR]),
        "skipped": str(count[Verdict.INCONCLUSIVE]),
    }
    root = ET.Element("testsuites", {key: attributes[key] for key in ("tests", "failures", "errors", "skipped")})
    element = ET.SubElement(root, "testsuite", attributes)
    for rule in gate.rules:
        _add_case(element, rule, class_name)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _add_case(suite: ET.Element, rule: GateRule, class_name: str) -> None:
    case = ET.SubElement(suite, "testcase", {"classname": class_name, "name": _clean(rule.name), "time": "0"})
    sentence = _clean(f"wanted: {rule.wanted}; found: {rule.found}")
    if rule.verdict is Verdict.PASS:
        ET.SubElement(case, "system-out").text = sentence
        return
    answer = ET.SubElement(case, _ELEMENT[rule.verdict], {"message": sentence})
    if rule.verdict is not Verdict.INCONCLUSIVE:
        answer.set("type", f"npuops.{rule.verdict}")
        answer.text = sentence


def _clean(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)
