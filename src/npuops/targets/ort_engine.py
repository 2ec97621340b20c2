"""One adapter for every execution provider of ONNX Runtime: libraries, devices, sessions, placement.

Plugin providers such as QNN share one API: register the library once per process, pick devices, add them to the
session options. The trap that shapes this file: ONNX Runtime's Python session moves to the CPU by itself
when a provider cannot be made, and again when one request fails. `enable_fallback=0` stops both, and
`_verified` proves it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from npuops.errors import MissingToolchainError, ToolchainError
from npuops.models.content import read_content
from npuops.models.onnx_file import external_files, parse_onnx, read_onnx
from npuops.models.placement import Placement, RunsOn
from npuops.targets.ort_values import with_bfloat16

CPU_PROVIDER: Final = "CPUExecutionProvider"

_registered: dict[str, Path] = {}
_registering = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """A plugin provider: a Python package that carries a shared library."""

    ep_name: str
    package: str
    library: str
    """File name without the platform's `lib` and `.so`."""
    install: str
    """What installs it, for advice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """How sessions are made: which provider, with which options."""

    target: str
    plugin: Plugin | None
    """None: ONNX Runtime's own CPU provider."""
    provider_options: Mapping[str, str] = field(default_factory=dict)
    level: str = "ORT_ENABLE_ALL"
    """Name of ONNX Runtime's graph optimization level."""
    threads: int = 0
    """Threads within an operator on the CPU provider; 0 lets ONNX Runtime choose."""

    @property
    def ep_name(self) -> str:
        """The provider's name in ONNX Runtime's words."""
        return CPU_PROVIDER if self.plugin is None else self.plugin.ep_name


def runtime() -> Any:
    """The `onnxruntime` module.

    Raises:
        MissingToolchainError: it does not import.
    """
    try:
        import onnxruntime  # noqa: PLC0415 - 0.1 s and 60 MB that `npuops targets` and `check` must not pay
    except ImportError as error:
        raise MissingToolchainError(
            f"onnxruntime does not import: {error}", advice="pip install --force-reinstall onnxruntime"
        ) from error
    return onnxruntime


def installed_version(distribution: str) -> str | None:
    """Version of an installed package by its metadata alone, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def package_folder(plugin: Plugin) -> Path:
    """Where the plugin's package lies; nothing of it is imported.

    Raises:
        MissingToolchainError: it is not installed.
    """
    spec = find_spec(plugin.package)
    places = list(spec.submodule_search_locations or []) if spec is not None else []
    if not places:
        raise MissingToolchainError(f"{plugin.package} is not installed", advice=plugin.install)
    return Path(places[0])


def is_pristine() -> bool:
    """Whether no plugin was loaded in this process yet: compilers keep counters that end up in their output."""
    return not _registered


def open_session(
    engine: Engine,
    path: Path,
    *,
    whole: bool,
    nameless: bool = False,
    adjust: Callable[[Any], None] | None = None,
) -> Any:
    """An ONNX Runtime session that really is on the engine's provider.

    Args:
        engine: the provider, its device and options.
        path: an ONNX file, or an EPContext file.
        whole: refuse a graph that does not run on the provider as a whole.
        nameless: keep the path from ONNX Runtime, which hashes it into the names of compiled subgraphs.
        adjust: changes the `SessionOptions` before they are used (to save the graph, to profile).

    Raises:
        MissingToolchainError: the plugin is not installed, or has no such device here.
        ToolchainError: ONNX Runtime's words in the message.
        UnsupportedModelError: an input is text and an output is bfloat16.
    """
    options = session_options(engine, whole=whole)
    if adjust is not None:
        adjust(options)
    providers = [CPU_PROVIDER] if engine.plugin is None else None
    source = graph_bytes(path) if nameless else str(path)
    try:
        session = runtime().InferenceSession(source, options, providers=providers, enable_fallback=0)
    except Exception as error:
        raise ToolchainError(f"{engine.target} cannot load {path.name}: {first_lines(error)}") from error
    return with_bfloat16(_verified(engine, session))


def graph_bytes(path: Path) -> bytes:
    """One message with all weights in it: what ORT writes would else point to external data beside the source.

    Raises:
        ModelError: not a model, or its external data is missing or outside of its folder.
    """
    content = read_content(path)
    proto = parse_onnx(content, path)
    return read_onnx(path).SerializeToString(deterministic=True) if external_files(proto, path) else content


def placement_of(engine: Engine, session: Any, reasons: Mapping[str, str] | None = None) -> tuple[Placement, ...]:
    """Where ONNX Runtime put each node, in its own (optimized) node names.

    `reasons` says why a node was not taken, where the vendor tells.
    """
    placed: list[Placement] = []
    for part in session.get_provider_graph_assignment_info():
        here = part.ep_name == engine.ep_name
        rule = f"{'taken' if here else 'not taken'} by {engine.ep_name}"
        for node in part.get_nodes():
            found = "" if here else (reasons or {}).get(node.name, f"runs on {part.ep_name}")
            runs_on = RunsOn.NPU if here else RunsOn.CPU
            placed.append(Placement(name=node.name, op=node.op_type, runs_on=runs_on, rule=rule, found=found))
    return tuple(placed)


def session_options(engine: Engine, *, whole: bool) -> Any:
    """`SessionOptions` that put a graph on the engine's provider, as a whole or in parts.

    Raises:
        MissingToolchainError: the plugin is not installed, or has no such device here.
        ToolchainError: the provider refuses its options.
    """
    ort = runtime()
    options = ort.SessionOptions()
    options.log_severity_level = 4  # every failure comes back as an exception too, and we word that
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, engine.level)
    options.intra_op_num_threads = engine.threads
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if engine.plugin is not None:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1" if whole else "0")
        devices = plugin_devices(engine)
        try:
            options.add_provider_for_devices(devices, dict(engine.provider_options))
        except Exception as error:
            raise ToolchainError(f"{engine.target}: {first_lines(error)}") from error
    return options


def plugin_devices(engine: Engine) -> list[Any]:
    """The plugin's first device; registers the library on the first call.

    Raises:
        MissingToolchainError: not installed, does not load, or no such device on this machine.
    """
    plugin = engine.plugin
    if plugin is None:
        return []
    ort = runtime()
    with _registering:
        if plugin.ep_name not in _registered:
            library = package_folder(plugin) / f"lib{plugin.library}.so"
            try:
                # The name must be the provider's own: sessions and contexts are known by it afterwards.
                ort.register_execution_provider_library(plugin.ep_name, str(library))
            except Exception as error:
                raise MissingToolchainError(
                    f"{library.name} does not load: {first_lines(error)}", advice=plugin.install
                ) from error
            _registered[plugin.ep_name] = library
    found = [device for device in ort.get_ep_devices() if device.ep_name == plugin.ep_name]
    if not found:
        raise MissingToolchainError(
            f"{plugin.ep_name} offers no device for {engine.target} on this machine",
            advice="npuops targets says why; choose another target",
        )
    return found[:1]


def _verified(engine: Engine, session: Any) -> Any:
    if session.get_providers()[0] != engine.ep_name:
        raise ToolchainError(
            f"ONNX Runtime put the session on {session.get_providers()}, not on {engine.ep_name}",
            advice="this must not happen with fallback disabled; report it with the versions of `npuops targets`",
        )
    return session


def first_lines(error: Exception) -> str:
    """The vendor's words without the empty lines; long ones are cut."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " | ".join(lines)[:1500]
