"""W3C Trace Context: the rules of its recommendation, and nothing breaks on what clients send."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npuops.telemetry.traceparent import TraceParent, parse_traceparent

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def test_a_header_names_trace_span_and_whether_it_is_sampled() -> None:
    assert parse_traceparent(f"00-{TRACE}-{SPAN}-01") == TraceParent(trace_id=TRACE, span_id=SPAN, sampled=True)
    found = parse_traceparent(f"00-{TRACE}-{SPAN}-00")
    assert found is not None
    assert not found.sampled


def test_unknown_flags_are_ignored_and_a_later_version_may_say_more() -> None:
    assert parse_traceparent(f"00-{TRACE}-{SPAN}-fe") == TraceParent(trace_id=TRACE, span_id=SPAN, sampled=False)
    assert parse_traceparent(f"cc-{TRACE}-{SPAN}-01-what-the-future-brings") is not None
    assert parse_traceparent(f"cc-{TRACE}-{SPAN}-01") is not None


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"cc-{TRACE}-{SPAN}-01.more",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-\u0661\u0661",
        f"00-{TRACE}-{SPAN}-01\n",
    ],
)
def test_a_header_that_breaks_the_rules_is_ignored(header: str) -> None:
    assert parse_traceparent(header) is None


@given(st.text() | st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", fullmatch=True))
def test_whatever_is_accepted_can_be_written_and_read_again(header: str) -> None:
    found = parse_traceparent(header)
    if found is not None:
        assert parse_traceparent(str(found)) == found
