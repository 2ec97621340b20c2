"""What a load request of the repository extension says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from npuops.errors import OptionError
from npuops.server.model_options import read_override

PREFIX: Final = "file:"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRequest:
    """One request.

    Attributes:
        override: `config`: keys of `model.toml` for this load; None where it says nothing.
        files: `file:<version>/<file>` → its content: an artifact in place of the folder's.
    """

    override: Mapping[str, Any] | None = None
    files: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_plain(self) -> bool:
        """It wants what lies on disk, by the options there."""
        return self.override is None and not self.files


def read_load_request(parameters: Mapping[str, Any], *, uploads: bool) -> LoadRequest:
    """Understand the parameters of a load request.

    Args:
        parameters: as they came.
        uploads: files are taken here.

    Raises:
        OptionError: a parameter that does not exist, or holds what it must not.
    """
    override = None
    files = {key: value for key, value in parameters.items() if key.startswith(PREFIX)}
    if files and not uploads:
        advice = "copy the artifact into the repository, or set file_uploads = true in serve.toml"
        raise OptionError("files cannot be uploaded here", advice=advice)
    for key in set(parameters) - set(files):
        value = parameters[key]
        if key != "config" or not isinstance(value, str):
            kind = type(value).__name__
            raise OptionError(
                f"a load request has no parameter {key[:80]!r} of type {kind}", advice="`config`, as JSON text"
            )
        override = read_override(value)
    return LoadRequest(override=override, files=files)
