"""What a server holds at one moment, read off its engines for the telemetry; and what its chips say, told to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from npuops.runtime.engine import Engine
from npuops.runtime.replica import Replica
from npuops.runtime.replica_states import State
from npuops.server.pipeline_launcher import PipelinedVersion
from npuops.server.served_version import ServedVersion
from npuops.serving_chips import Chips, ChipUser
from npuops.telemetry.serving_snapshot import (
    ChipReading,
    DeviceGauges,
    PreprocessingGauges,
    ServingSnapshot,
    VersionGauges,
)

_PAGE_BYTES = 4096


def gauges(
    served: Iterable[ServedVersion],
    connections: Mapping[str, int],
    log_records_dropped: int | None,
    spans_dropped: int | None,
    chips: tuple[ChipReading, ...] = (),
    preprocessing: PreprocessingGauges | None = None,
) -> ServingSnapshot:
    """Everything; costs a file read for each worker."""
    return ServingSnapshot(
        versions=tuple(_version(each) for each in served),
        device_states=tuple(State),
        connections=connections,
        log_records_dropped=log_records_dropped,
        spans_dropped=spans_dropped,
        chips=chips,
        preprocessing=preprocessing,
    )


def chip_users(served: Iterable[ServedVersion]) -> list[ChipUser]:
    """The devices of all versions, to find their chips by."""
    engines = [engine_of(each) for each in served]
    return [
        ChipUser(replica.spec.name, replica.pid)
        for engine in engines
        if engine is not None
        for replica in engine.replicas.all
    ]


def heed_chips(served: Iterable[ServedVersion], chips: Chips) -> None:
    """Let the devices rest whose chips are not well, and those work again that are."""
    engines = [engine for engine in map(engine_of, served) if engine is not None]
    users = {
        engine: {replica.spec.name: ChipUser(replica.spec.name, replica.pid) for replica in engine.replicas.all}
        for engine in engines
    }
    ailing = chips.ailments([user for each in users.values() for user in each.values()])
    for engine, each in users.items():
        engine.replicas.heed({name: ailing[user] for name, user in each.items() if user in ailing})


def engine_of(served: ServedVersion) -> Engine | None:
    """What runs a version on devices; None for a chain, whose models have their own."""
    engine = served.inner.engine if isinstance(served, PipelinedVersion) else served.engine
    return engine if isinstance(engine, Engine) else None


def _version(served: ServedVersion) -> VersionGauges:
    engine = engine_of(served)
    if engine is None:
        return VersionGauges(
            model=served.name, version=served.version, ready=served.ready, queue_requests=0, queue_bytes=0
        )
    states = engine.replicas.states()
    ratios = cpu_ops_ratios(served)
    return VersionGauges(
        model=served.name,
        version=served.version,
        ready=served.ready,
        queue_requests=engine.queued,
        queue_bytes=engine.queued_bytes,
        devices=tuple(
            _device(replica, *states[replica.spec.name], ratios.get(replica.spec.target))
            for replica in engine.replicas.all
        ),
    )


def cpu_ops_ratios(served: ServedVersion) -> dict[str, float]:
    """Target → operators that its compiler left to the CPU, to all; the most of any of its artifacts."""
    found: dict[str, float] = {}
    for artifact in served.spec.artifacts:
        manifest = artifact.manifest
        found[manifest.target] = max(found.get(manifest.target, 0.0), manifest.placement.fallback_ratio.ops)
    return found


def _device(replica: Replica, state: State, why: str, cpu_ops_ratio: float | None) -> DeviceGauges:
    return DeviceGauges(
        device=replica.spec.name,
        state=state.value,
        why=why,
        cpu_ops_ratio=cpu_ops_ratio,
        in_flight=sum(len(run.jobs) for run in replica.under_way.values()),
        slots_held=len(replica.under_way),
        slots=replica.geometry.slots,
        resident_bytes=resident_bytes(replica.pid) if replica.ready else None,
    )


def resident_bytes(pid: int) -> int | None:
    """Resident set size of a process; None where it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError, ValueError):
        return None
