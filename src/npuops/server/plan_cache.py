"""The plans of one model version, by what their requests look like.

Requests of one client differ in data and `id`, and hardly in anything else. `split_id` cuts the `id` off a head as
tritonclient and KServe's client write it, in front; what is left is the key. Whole JSON requests have a key of their
own (infer_json.py). The cache is bounded: a client that writes every head differently costs time, not memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import orjson

from npuops.errors import DataError
from npuops.runtime.signature import Signature
from npuops.server.infer_plan import InferPlan, plan_of, raw_plan
from npuops.server.infer_request import InferHead, read_head
from npuops.server.infer_sources import Labels

PLAN_LIMIT: Final = 1024
"""Plans of each kind; beyond, all are forgotten, and those in use come back with their next request."""

HEADER_LIMIT_BYTES: Final = 16 * 1024
"""A longer head is worked out each time: 1,024 such keys would hold too much."""

# Only characters that stand for themselves in JSON, so that the text can be echoed as it is.
_ID: Final = re.compile(rb'\{\s*"id"\s*:\s*("[ !#-\[\]-~]{0,256}")\s*,\s*(?=")')


def split_id(header: bytes) -> tuple[bytes, bytes]:
    """A JSON head without the `id` it begins with, and that `id` as JSON text.

    Heads that begin otherwise come back as they are, with an empty id.
    """
    found = _ID.match(header)
    if found is None:
        return header, b""
    return b"{" + header[found.end() :], found[1]


class PlanCache:
    """Of one model version.

    Attributes:
        by_header: the hot path: `plans.by_header.get(header) or plans.of_header(header)`.
    """

    def __init__(self, signature: Signature, *, max_request_bytes: int, labels: Labels | None = None) -> None:
        self.by_header: dict[bytes, InferPlan] = {}
        self._by_key: dict[tuple[object, ...], InferPlan] = {}
        self._by_size: dict[int, InferPlan] = {}
        self._signature = signature
        self._max_request_bytes = max_request_bytes
        self._labels = labels

    def of_header(self, header: bytes) -> InferPlan:
        """The plan of a JSON head in front of binary data.

        Where `plan.has_json`, the data of some input stand in the head: read it with `JsonReader`.

        Raises:
            DataError: not JSON, or not a request that fits the model.
            TooLargeError: the inputs have too many bytes.
        """
        found = self.by_header.get(header)
        if found is not None:
            return found
        try:
            document = orjson.loads(header)
        except orjson.JSONDecodeError as error:
            raise DataError(
                f"the head of the request is not valid JSON: {error}",
                advice="Inference-Header-Content-Length is the length of the JSON in bytes",
            ) from error
        head = read_head(document)
        plan = self._plan(head)
        if head.id:
            plan.id = orjson.dumps(head.id)
        elif len(header) <= HEADER_LIMIT_BYTES and not plan.has_json:
            if len(self.by_header) >= PLAN_LIMIT:
                self.by_header.clear()
            self.by_header[header] = plan
        return plan

    def of_key(self, key: tuple[object, ...], head: Callable[[], InferHead]) -> InferPlan:
        """The plan of whatever has this key; `head` is called only when it is not known yet.

        Raises:
            DataError: from `head`, or the request does not fit the model.
            TooLargeError: the inputs have too many bytes.
        """
        found = self._by_key.get(key)
        if found is None:
            found = self._plan(head())
            if sum(len(part) for part in key if isinstance(part, str | bytes)) <= HEADER_LIMIT_BYTES:
                if len(self._by_key) >= PLAN_LIMIT:
                    self._by_key.clear()
                self._by_key[key] = found
        return found

    def of_raw(self, body_bytes: int) -> InferPlan:
        """The plan of a body without a JSON head (`infer_plan.raw_plan`).

        Raises:
            DataError: the model has other than one input, or no shape fits the size.
            TooLargeError: too many bytes.
        """
        found = self._by_size.get(body_bytes)
        if found is None:
            found = raw_plan(self._signature, body_bytes, max_request_bytes=self._max_request_bytes)
            if len(self._by_size) >= PLAN_LIMIT:
                self._by_size.clear()
            self._by_size[body_bytes] = found
        return found

    def _plan(self, head: InferHead) -> InferPlan:
        return plan_of(head, self._signature, max_request_bytes=self._max_request_bytes, labels=self._labels)
