from __future__ import annotations

import pytest

from npuops.errors import OptionError
from npuops.server.model_options import ModelOptions, read_model_options, read_override
from npuops.server.version_policy import Listed

FULL = """
versions = [1, "2"]
canary = [3]
fallback = "budget=0.2"
inline = "never"
shard = "user"
max_request_bytes = 1000
run_limit_s = 5
open_limit_s = 60
patience_s = 2.5

[batching]
enabled = "off"
max_rows = 16
budget_ms = 5

[queue]
max_requests = 10
max_bytes = 1000
default_timeout_ms = 100
max_timeout_ms = 1000

[[device]]
target = "vnpu:rk3588"
name = "npu0"
instances = 2

[[device]]
artifact = "cpu"
fallback = true

[idle]
keep_alive_s = 300
prewarm = false

[padding]
rows = true

[padding.values]
ids = 0

[[padding.crop]]
output = "logits"
axis = 1
input = "ids"
input_axis = 1
"""


def test_a_model_without_a_file_has_defaults() -> None:
    assert read_model_options(None) == read_model_options("") == ModelOptions()


def test_every_key_is_read() -> None:
    options = read_model_options(FULL)
    assert options.rule == Listed(("1", "2"))
    assert options.canary == ("3",)
    assert [device.instances for device in options.device] == [2, 1]
    assert options.device[1].fallback
    assert options.padding.rows
    assert (options.run_limit_s, options.open_limit_s, options.patience_s) == (5, 60, 2.5)
    assert options.padding.values == {"ids": 0.0}
    assert options.padding.crop[0].axis == 1
    assert (options.queue.max_requests, options.idle.keep_alive_s) == (10, 300.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("version = 'all'", "did you mean 'versions'?"),
        ("[batching]\nbudget = 5", "did you mean 'budget_ms'?"),
        ("[[device]]\ntarget = 'x'\ninstance = 2", "did you mean 'instances'?"),
        ("[[padding.crop]]\noutput = 'y'\naxes = 1", "did you mean 'axis'?"),
    ],
)
def test_an_unknown_key_names_the_nearest(text: str, words: str) -> None:
    with pytest.raises(OptionError, match=r"model\.toml") as caught:
        read_model_options(text)
    assert caught.value.advice == words


@pytest.mark.parametrize(
    "text",
    [
        "versions = 'newest'",
        "versions = []",
        "versions = [1.5]",
        "versions = [true]",
        "canary = ['x']",
        "fallback = 'never'",
        "fallback = 'budget=2'",
        "inline = 'yes'",
        "run_limit_s = 0",
        "run_limit_s = nan",
        "open_limit_s = 0",
        "patience_s = -1",
        "[padding]\nrows = 'yes'",
        "[batching]\nmax_rows = 0",
        "[batching]\nenabled = 'on'",
        "[batching]\nbudget_ms = inf",
        "[queue]\nmax_requests = 0",
        "[queue]\nmax_timeout_ms = -1",
        "[idle]\nkeep_alive_s = 0",
        "[[device]]\ninstances = 2",
        "[[device]]\ntarget = 'a'\nartifact = 'b'",
        "[[device]]\ntarget = 'a'\ninstances = 0",
        "not toml",
    ],
)
def test_impossible_values_are_refused(text: str) -> None:
    with pytest.raises(OptionError):
        read_model_options(text)


def test_an_override_replaces_keys_table_by_table() -> None:
    options = read_model_options(FULL, read_override('{"queue": {"max_requests": 3}, "versions": "all", "device": []}'))
    assert (options.queue.max_requests, options.queue.max_bytes) == (3, 1000)
    assert (options.versions, options.device) == ("all", ())


@pytest.mark.parametrize("text", ["", "[1]", "3", '{"queues": {}}', '{"queue": 3}', "[" * 100_000])
def test_a_wrong_override_is_refused(text: str) -> None:
    with pytest.raises(OptionError):
        read_override(text)


@pytest.mark.parametrize(
    ("text", "launch"),
    [
        ("", False),
        ("canary = [3]", False),
        ("fallback = 'forbid'", False),
        ("[queue]\nmax_requests = 3", False),
        ("[batching]\nbudget_ms = 3", False),
        ("[idle]\nkeep_alive_s = 3", False),
        ("[batching]\nmax_rows = 3", True),
        ("[batching]\nenabled = 'off'", True),
        ("run_limit_s = 3", False),
        ("open_limit_s = 3", True),
        ("patience_s = 3", True),
        ("[padding]\nrows = true", True),
        ("shard = 'shape'", False),
        ("inline = 'never'", True),
        ("max_request_bytes = 5", True),
        ("[[device]]\ntarget = 'toy'", True),
        ("[padding.values]\nx = 0", True),
    ],
)
def test_only_what_decides_how_workers_start_needs_a_new_launch(text: str, launch: bool) -> None:
    assert ModelOptions().needs_reload(read_model_options(text)) == launch
