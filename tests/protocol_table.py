"""The calls of the protocol and what `npuops serve` answers: run by a test, and printed into docs/protocol.md."""

from __future__ import annotations

import json
from dataclasses import dataclass

_INFER = json.dumps(
    {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}, separators=(",", ":")
)


@dataclass(frozen=True)
class Row:
    """One call.

    Attributes:
        path: with the names of the tests' repository.
        answer: in a few words.
        shown: instead of the path, in the docs.
    """

    method: str
    path: str
    status: int
    answer: str
    body: str = ""
    shown: str = ""

    def line(self) -> str:
        """Of the table, in Markdown."""
        path = self.path.replace("models/wide", "models/M").replace("versions/1", "versions/V")
        call = self.shown or f"`{self.method} {path.replace('region/r/', 'region/R/')}`"
        return f"| {call} | {self.status} | {self.answer} |"


_SAME = "the same of one version"
_OFF = "400 unless `client_shared_memory` is on"
_LOGS = "logs are set in the server's configuration"
_TRACES = "traces are set in the server's configuration"
_REGION = '{"key":"/k","byte_size":8}'

ROWS = (
    Row("GET", "/v2", 200, "name, version, extensions"),
    Row("GET", "/v2/health/live", 200, '`{"live":true,"ready":…}`'),
    Row("GET", "/v2/health/ready", 200, "503 until every stable version answers; a canary does not count"),
    Row("GET", "/v2/models/wide", 200, "inputs and outputs; -1 is a free size"),
    Row("GET", "/v2/models/wide/versions/1", 200, _SAME),
    Row("GET", "/v2/models/wide/ready", 200, "503 while it loads, 404 where there is none"),
    Row("GET", "/v2/models/wide/versions/1/ready", 200, _SAME),
    Row("GET", "/v2/models/wide/config", 200, "in the words of Triton's model configuration"),
    Row("GET", "/v2/models/wide/versions/1/config", 200, _SAME),
    Row("GET", "/v2/models/wide/stats", 200, "counts and durations, as Triton's"),
    Row("GET", "/v2/models/wide/versions/1/stats", 200, _SAME),
    Row("GET", "/v2/models/stats", 200, "of all models"),
    Row("POST", "/v2/models/wide/infer", 200, "runs the default version", _INFER),
    Row("POST", "/v2/models/wide/versions/1/infer", 200, "runs one version", _INFER),
    Row("POST", "/v2/repository/index", 200, 'all versions; `{"ready":true}` for those that answer'),
    Row("POST", "/v2/repository/models/wide/unload", 200, "when its memory is given back"),
    Row("POST", "/v2/repository/models/wide/load", 200, "when it answers; `config` takes keys of model.toml"),
    Row("GET", "/v2/systemsharedmemory/status", 400, _OFF),
    Row("GET", "/v2/systemsharedmemory/region/r/status", 400, _OFF),
    Row("POST", "/v2/systemsharedmemory/region/r/register", 400, _OFF, _REGION),
    Row("POST", "/v2/systemsharedmemory/region/r/unregister", 400, _OFF),
    Row("POST", "/v2/systemsharedmemory/unregister", 400, f"{_OFF}; all regions"),
    Row("GET", "/v2/cudasharedmemory/status", 400, "not served: an NPU has no CUDA memory"),
    Row("GET", "/v2/logging", 501, _LOGS),
    Row("POST", "/v2/logging", 501, _LOGS, "{}"),
    Row("GET", "/v2/trace/setting", 501, _TRACES),
    Row("POST", "/v2/trace/setting", 501, _TRACES, "{}"),
    Row("GET", "/v2/models/wide/trace/setting", 501, _TRACES),
    Row("POST", "/v2/models/wide/trace/setting", 501, _TRACES, "{}"),
    Row("GET", "/openapi.json", 200, "all of this for programs"),
    Row("GET", "/metrics", 200, "Prometheus; see metrics.md"),
    Row("POST", "/v2/models/wide/ready", 405, "names the methods in `Allow`", shown="another method"),
    Row("GET", "/v3", 404, "names `/openapi.json`", shown="another path"),
)


def protocol_table() -> str:
    """In Markdown."""
    return "\n".join(["| Call | Status | Answer |", "|---|---|---|", *(row.line() for row in ROWS)]) + "\n"
