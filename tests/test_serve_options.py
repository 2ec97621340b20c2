from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path

import pytest

from npuops.errors import OptionError
from npuops.server.serve_options import ServeOptions, read_serve_options

EXAMPLE = Path(__file__).resolve().parent.parent / "docs" / "serve.toml"


def test_flags_win_over_the_file_and_the_file_over_defaults() -> None:
    options = read_serve_options("http_port = 1\ngrpc_port = 2\n", {"http_port": 3, "host": None})
    assert (options.http_port, options.grpc_port, options.host) == (3, 2, "127.0.0.1")
    assert read_serve_options(None) == ServeOptions()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("htp_port = 1", "did you mean 'http_port'?"),
        ("[limits]\nbody_byte = 1", "did you mean 'body_bytes'?"),
        ("[tls]\ncert = 'a'\nkeys = 'b'", "did you mean 'key'?"),
        ("[tenant.camera]\nwait = 2", "did you mean 'weight'?"),
    ],
)
def test_an_unknown_key_names_the_nearest(text: str, words: str) -> None:
    with pytest.raises(OptionError, match=r"serve\.toml") as caught:
        read_serve_options(text)
    assert caught.value.advice == words


@pytest.mark.parametrize(
    "text",
    [
        "http_port = 65536",
        "http_port = 8001",
        "max_loaded = 0",
        "step_processes = 0",
        "poll_s = 0",
        "drain_s = inf",
        "hint_slo_ms = 0",
        "[limits]\nbody_bytes = 0",
        "[tls]\ncert = 'a'",
        "otlp_endpoint = 'collector:4318'",
        "[tenant.camera]\nweight = 0",
        "[tenant.camera]\napi_key_sha256 = ['secret']",
        "unknown_tenants = 'ban'",
    ],
)
def test_impossible_values_are_refused(text: str) -> None:
    with pytest.raises(OptionError):
        read_serve_options(text)


def test_api_keys_are_known_by_their_hash_alone() -> None:
    digest = hashlib.sha256(b"other").hexdigest()
    options = read_serve_options(f"api_key_env = {{a = 'KEY_A'}}\n[tenant.b]\napi_key_sha256 = ['{digest}']\n")
    tenants = options.tenants({"KEY_A": "secret"})
    assert tenants.need_key
    assert [tenants.of("", key).name for key in ("secret", "other")] == ["a", "b"]
    assert "secret" not in repr(options)
    with pytest.raises(OptionError, match="KEY_A"):
        options.tenants({})
    with pytest.raises(OptionError, match="same API key"):
        options.tenants({"KEY_A": "other"})


def test_the_example_in_the_docs_is_read_and_shows_every_key() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    read_serve_options(text)
    every = "\n".join(
        line.removeprefix("# ") if line.startswith("# ") and "=" in line else line for line in text.splitlines()
    )
    shown = set(tomllib.loads(every))
    assert set(ServeOptions.__dataclass_fields__) <= shown
