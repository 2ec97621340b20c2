"""The paths besides the protocol's: the live page and its figures, the metrics, the OpenAPI document."""

from __future__ import annotations

import asyncio
import re
from urllib.parse import parse_qs

from npuops import __version__
from npuops.errors import DataError
from npuops.server.dataplane import Dataplane
from npuops.server.http_routes import Answer, Asked, Route, answer_json
from npuops.server.openapi import openapi_document
from npuops.telemetry.instruments import Instruments
from npuops.telemetry.live_page import live_page


def pages(instruments: Instruments) -> tuple[Route, ...]:
    """Routes for `HttpApi`."""

    async def page(plane: Dataplane, asked: Asked) -> Answer:
        del plane, asked
        found = live_page()
        headers = dict(found.headers)
        return Answer(200, found.body, headers.pop("Content-Type"), headers)

    async def live(plane: Dataplane, asked: Asked) -> Answer:
        del plane
        return Answer(200, instruments.live_figures(_since(asked.head.query)), headers={"Cache-Control": "no-store"})

    async def metrics(plane: Dataplane, asked: Asked) -> Answer:
        del plane
        scrape = instruments.scrape()
        shown = await asyncio.to_thread(scrape.expose, asked.head.headers.get("accept", ""))
        return Answer(200, shown.body, shown.content_type)

    async def openapi(plane: Dataplane, asked: Asked) -> Answer:
        del plane, asked
        return answer_json(openapi_document(__version__))

    return (
        Route("GET", re.compile(""), page),
        Route("GET", re.compile("live\\.json"), live),
        Route("GET", re.compile("metrics"), metrics),
        Route("GET", re.compile("openapi\\.json"), openapi),
    )


def _since(query: str) -> int:
    words = parse_qs(query).get("since", ["0"])[-1]
    if not (words.isascii() and words.isdigit() and len(words) < 20):
        raise DataError(f"'since' is {words[:40]!r}, it must be a whole number")
    return int(words)
