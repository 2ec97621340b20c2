from __future__ import annotations

from typing import Any

import pytest

from npuops.errors import OptionError
from npuops.server.load_request import read_load_request


def test_a_request_without_parameters_wants_what_lies_on_disk() -> None:
    assert read_load_request({}, uploads=False).is_plain


def test_config_is_json_text_with_keys_of_model_toml() -> None:
    request = read_load_request({"config": '{"versions": "all"}'}, uploads=False)
    assert request.override == {"versions": "all"}
    assert not request.is_plain


def test_files_are_taken_only_where_that_is_allowed() -> None:
    files = {"file:1/manifest.json": "e30="}
    assert read_load_request(files, uploads=True).files == files
    with pytest.raises(OptionError, match="cannot be uploaded") as caught:
        read_load_request(files, uploads=False)
    assert "file_uploads" in caught.value.advice


@pytest.mark.parametrize("parameters", [{"x": 1}, {"config": {"versions": "all"}}, {"config": "[]"}, {"k" * 500: ""}])
def test_anything_else_is_refused_in_a_few_words(parameters: dict[str, Any]) -> None:
    with pytest.raises(OptionError) as caught:
        read_load_request(parameters, uploads=True)
    assert len(caught.value.message) < 200
