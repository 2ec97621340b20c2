"""What the protocol tells besides inference, as plain documents: HTTP writes them as JSON, gRPC as messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from npuops import __version__
from npuops.errors import DataError, NpuopsError
from npuops.runtime.signature import Port
from npuops.server.datatypes import datatype_of
from npuops.server.repository import Repository
from npuops.server.served_model import IndexEntry
from npuops.server.served_version import ServedVersion
from npuops.server.shared_memory import Regions
from npuops.server.statistics import Statistics

NAME: Final = "npuops"
EXTENSIONS: Final = (
    "classification",
    "model_repository",
    "model_repository(unload_dependents)",
    "model_configuration",
    "statistics",
    "binary_tensor_data",
    "parameters",
)

Document = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataplane:
    """Everything that both front ends ask.

    Attributes:
        regions: None where shared memory with clients is off.
    """

    repository: Repository[ServedVersion]
    statistics: Statistics
    regions: Regions | None

    def server_metadata(self) -> Document:
        """Name, version, extensions."""
        shared = ("system_shared_memory",) if self.regions is not None else ()
        return {"name": NAME, "version": __version__, "extensions": [*EXTENSIONS, *shared]}

    def is_ready(self) -> bool:
        """All stable versions answer."""
        return self.repository.ready

    def model_is_ready(self, name: str, version: str = "") -> bool:
        """This version answers.

        Raises:
            NotServedError: no such model or version.
        """
        return self.repository.model_ready(name, version)

    def model_metadata(self, name: str, version: str = "") -> Document:
        """Inputs and outputs; -1 is a free size.

        Raises:
            NpuopsError: it is not served.
        """
        spec = self.repository.spec(name, version)
        return {
            "name": name,
            "versions": self.repository.able(name),
            "platform": spec.platform,
            "inputs": [_tensor(port) for port in spec.signature.inputs],
            "outputs": [_tensor(port) for port in spec.signature.outputs],
        }

    def model_config(self, name: str, version: str = "") -> Document:
        """In the words of Triton's model configuration.

        Raises:
            NpuopsError: it is not served.
        """
        spec = self.repository.spec(name, version)
        signature = spec.signature
        batched = signature.batched
        config: Document = {
            "name": name,
            "platform": spec.platform,
            "backend": NAME,
            "max_batch_size": signature.max_rows if batched else 0,
            "input": [_config_tensor(port, batched=batched) for port in signature.inputs],
            "output": [_config_tensor(port, batched=batched) for port in signature.outputs],
            "version_policy": {"specific": {"versions": [int(each) for each in self.repository.able(name)]}},
        }
        if batched:
            config["dynamic_batching"] = {"max_queue_delay_microseconds": 0}
        return config

    def model_statistics(self, name: str = "", version: str = "") -> Document:
        """Of one model version, of all of a model, or of all.

        Raises:
            NpuopsError: it is not served.
        """
        if version:
            self.repository.spec(name, version)
            wanted = [(name, version)]
        elif name:
            wanted = [(name, number) for number in self.repository.able(name)]
        else:
            wanted = [(line.name, line.version) for line in self.repository.index(ready_only=True)]
        return {"model_stats": msgspec.to_builtins(self.statistics.of(wanted))}

    def index(self, *, ready_only: bool) -> list[Document]:
        """The repository's index."""
        return [_line(entry) for entry in self.repository.index(ready_only=ready_only)]

    async def load(self, name: str, parameters: Mapping[str, Any]) -> None:
        """Load a model, or load it anew.

        Raises:
            NpuopsError: there is no such model, or it does not load.
        """
        await self.repository.load(name, parameters)

    async def unload(self, name: str, parameters: Mapping[str, Any]) -> None:
        """Take a model away; with `unload_dependents` also the models that it is a chain of.

        Raises:
            NotServedError: there is no such model.
            DataError: an unknown parameter.
        """
        for key in parameters:
            if key != "unload_dependents":
                raise DataError(f"an unload request has no parameter {key[:80]!r}", advice="unload_dependents")
        members = self.repository.members(name) if parameters.get("unload_dependents") else ()
        for each in (name, *members):
            await self.repository.unload(each)

    def shared_memory(self) -> Regions:
        """The regions of clients.

        Raises:
            DataError: shared memory is off.
        """
        if self.regions is None:
            raise DataError(
                "shared memory with clients is off on this server",
                advice="start it with --client-shared-memory, on a machine whose users you trust",
            )
        return self.regions


def no_cuda() -> NpuopsError:
    """CUDA memory is not an NPU's."""
    return DataError("CUDA shared memory is not served", advice="use system shared memory, or send the tensors")


def _tensor(port: Port) -> Document:
    return {"name": port.name, "datatype": datatype_of(port.dtype).word, "shape": list(port.shape or (-1,))}


def _config_tensor(port: Port, *, batched: bool) -> Document:
    shape = list(port.shape or (-1,))
    word = datatype_of(port.dtype).word
    return {
        "name": port.name,
        "data_type": "TYPE_STRING" if word == "BYTES" else f"TYPE_{word}",
        "dims": shape[1:] if batched else shape,
    }


def _line(entry: IndexEntry) -> Document:
    """A line of the index; a model without a version has none."""
    line = {"name": entry.name, "version": entry.version, "state": entry.state, "reason": entry.reason}
    return line if entry.version else {key: value for key, value in line.items() if key != "version"}
