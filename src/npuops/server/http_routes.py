"""The paths of the REST protocol, and what answers each of them (all but inference, which has a file of its own)."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

import msgspec
import orjson

from npuops.errors import DataError, NotServedError
from npuops.runtime.job import Bytes
from npuops.server.dataplane import Dataplane, no_cuda
from npuops.server.http_head import Head
from npuops.server.http_response import JSON, MethodError, NotOfferedError

_MODEL: Final = r"v2/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+))?"
_SETTINGS: Final = ("v2/logging", "v2/trace/setting", "v2/models/(?P<model>[^/]+)/trace/setting")
_REGION: Final = r"v2/(?P<kind>system|cuda)sharedmemory(?:/region/(?P<region>[^/]+))?"


@dataclass(frozen=True, slots=True)
class Answer:
    """A response that is not an inference."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that is not an inference: its head, the names in its path, its body."""

    head: Head
    names: Mapping[str, str]
    body: Bytes


Handler = Callable[[Dataplane, Asked], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Route:
    """One path and method; `admin`: only for who may load and unload models."""

    method: str
    pattern: re.Pattern[str]
    handler: Handler
    admin: bool = False


def answer_json(document: object, status: int = 200) -> Answer:
    """A document as the response."""
    return Answer(status, orjson.dumps(document, option=orjson.OPT_NON_STR_KEYS))


def find_route(routes: tuple[Route, ...], head: Head) -> tuple[Route, dict[str, str]]:
    """The route of a head, and the names in its path, percent-decoded.

    Raises:
        NotServedError: no such path.
        MethodError: not with this method.
    """
    path = head.path.strip("/")
    others = []
    for route in routes:
        match = route.pattern.fullmatch(path)
        if match is None:
            continue
        if route.method == head.method or (route.method == "GET" and head.method == "HEAD"):
            return route, {key: unquote(value) for key, value in match.groupdict().items() if value is not None}
        others.append(route.method)
    if others:
        raise MethodError(head.path, head.method, tuple(sorted(set(others))))
    raise NotServedError(f"there is no {head.path[:200]} here", advice="GET /openapi.json lists all paths")


async def _live(plane: Dataplane, asked: Asked) -> Answer:
    del asked
    return answer_json({"live": True, "ready": plane.is_ready()})


async def _ready(plane: Dataplane, asked: Asked) -> Answer:
    del asked
    ready = plane.is_ready()
    return answer_json({"live": True, "ready": ready}, 200 if ready else 503)


async def _server(plane: Dataplane, asked: Asked) -> Answer:
    del asked
    return answer_json(plane.server_metadata())


async def _model(plane: Dataplane, asked: Asked) -> Answer:
    return answer_json(plane.model_metadata(asked.names["model"], asked.names.get("version", "")))


async def _model_ready(plane: Dataplane, asked: Asked) -> Answer:
    name, version = asked.names["model"], asked.names.get("version", "")
    ready = plane.model_is_ready(name, version)
    return answer_json({"name": name, "ready": ready}, 200 if ready else 503)


async def _config(plane: Dataplane, asked: Asked) -> Answer:
    return answer_json(plane.model_config(asked.names["model"], asked.names.get("version", "")))


async def _statistics(plane: Dataplane, asked: Asked) -> Answer:
    return answer_json(plane.model_statistics(asked.names.get("model", ""), asked.names.get("version", "")))


async def _index(plane: Dataplane, asked: Asked) -> Answer:
    wish = _document(asked.body).get("ready", False)
    if not isinstance(wish, bool):
        raise DataError("'ready' must be true or false")
    return answer_json(plane.index(ready_only=wish))


async def _load(plane: Dataplane, asked: Asked) -> Answer:
    await plane.load(asked.names["model"], _parameters(asked.body))
    return Answer(200, b"")


async def _unload(plane: Dataplane, asked: Asked) -> Answer:
    await plane.unload(asked.names["model"], _parameters(asked.body))
    return Answer(200, b"")


async def _region_status(plane: Dataplane, asked: Asked) -> Answer:
    _only_system(asked.names)
    return answer_json(msgspec.to_builtins(plane.shared_memory().status(asked.names.get("region", ""))))


async def _register(plane: Dataplane, asked: Asked) -> Answer:
    _only_system(asked.names)
    wish = _document(asked.body)
    if "region" not in asked.names:
        raise NotServedError("a region is registered by its name", advice="…/region/NAME/register")
    plane.shared_memory().register(
        asked.names["region"], _text(wish, "key"), _whole(wish, "offset", 0), _whole(wish, "byte_size", None)
    )
    return Answer(200, b"")


async def _unregister(plane: Dataplane, asked: Asked) -> Answer:
    _only_system(asked.names)
    plane.shared_memory().unregister(asked.names.get("region", ""))
    return Answer(200, b"")


async def _not_settable(plane: Dataplane, asked: Asked) -> Answer:
    del plane, asked
    raise NotOfferedError(
        "traces and logs are not set over the network", advice="set them in the server's configuration file"
    )


def _route(method: str, pattern: str, handler: Handler, *, admin: bool = False) -> Route:
    return Route(method, re.compile(pattern), handler, admin)


PROTOCOL_ROUTES: Final = (
    _route("GET", "v2", _server),
    _route("GET", "v2/health/live", _live),
    _route("GET", "v2/health/ready", _ready),
    _route("GET", "v2/models/stats", _statistics),
    _route("GET", _MODEL, _model),
    _route("GET", _MODEL + "/ready", _model_ready),
    _route("GET", _MODEL + "/config", _config),
    _route("GET", _MODEL + "/stats", _statistics),
    _route("POST", "v2/repository/index", _index),
    _route("POST", "v2/repository/models/(?P<model>[^/]+)/load", _load, admin=True),
    _route("POST", "v2/repository/models/(?P<model>[^/]+)/unload", _unload, admin=True),
    _route("GET", _REGION + "/status", _region_status),
    _route("POST", _REGION + "/register", _register),
    _route("POST", _REGION + "/unregister", _unregister),
    *(_route(method, pattern, _not_settable) for method in ("GET", "POST") for pattern in _SETTINGS),
)
INFER: Final = re.compile(_MODEL + "/infer")


def _document(body: Bytes) -> dict[str, Any]:
    if not len(body):
        return {}
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise DataError(f"the body is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise DataError("the body is not a JSON object")
    return found


def _parameters(body: Bytes) -> dict[str, Any]:
    found = _document(body).get("parameters", {})
    if not isinstance(found, dict):
        raise DataError("'parameters' is not a JSON object")
    return found


def _only_system(names: Mapping[str, str]) -> None:
    if names["kind"] == "cuda":
        raise no_cuda()


def _text(found: Mapping[str, Any], key: str) -> str:
    value = found.get(key)
    if not isinstance(value, str):
        raise DataError(f"{key!r} must be a string")
    return value


def _whole(found: Mapping[str, Any], key: str, default: int | None) -> int:
    value = found.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise DataError(f"{key!r} must be a whole number, not negative")
    return value
