"""Lets a policy set a served model's batch budget, queue limit and spill to slower devices by the load. Off by default.

Ten looks a second, beside the requests: what is set reaches an engine the way another `model.toml` does. Models without
an SLO (`[queue]` names no time, and `hint_slo_ms` is not set) are left alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final

from npuops.clock import Clock
from npuops.events import Event
from npuops.hostsched.serving_guard import ServingGuard
from npuops.hostsched.serving_policies import CurveScorer, ServingPolicy
from npuops.hostsched.serving_state import DeviceLoad, ServingFrame, ServingSetting
from npuops.runtime.batch_curve import BatchCurve, stepped
from npuops.runtime.engine import Engine
from npuops.runtime.engine_options import EngineOptions
from npuops.runtime.facts import BatchRan, RequestShed, ShedReason
from npuops.runtime.replica import Replica
from npuops.server.engine_settings import engine_options
from npuops.server.pipeline_launcher import PipelinedVersion
from npuops.server.served_version import ServedVersion
from npuops.server.version_spec import VersionSpec
from npuops.serving_gauges import engine_of

PERIOD_S: Final = 0.1
_MISSED: Final = frozenset({ShedReason.DEADLINE, ShedReason.QUEUE_FULL})
_log: Final = logging.getLogger(__name__)


@dataclass(slots=True)
class _Watched:
    engine: Engine
    spec: VersionSpec
    options: EngineOptions
    slo_us: float
    policy: ServingPolicy
    guard: ServingGuard
    setting: ServingSetting
    looked_us: int
    in_flight: int
    ended: list[int] = field(default_factory=lambda: [0, 0, 0])
    """In time, late, refused."""


class AdaptiveServing:
    """`run` it on the loop that answers requests, and let it observe."""

    def __init__(
        self,
        running: Callable[[], Collection[ServedVersion]],
        clock: Clock,
        *,
        slo_ms: float | None = None,
        make: Callable[[ServingSetting], ServingPolicy] = CurveScorer,
    ) -> None:
        """Nothing is set yet.

        Args:
            running: what is served now, each version once.
            clock: the server's.
            slo_ms: of models whose `[queue]` names no time; None: they are left alone.
            make: a policy, of the model's own setting.
        """
        self._running, self._clock, self._make = running, clock, make
        self._slo_us = None if slo_ms is None else slo_ms * 1000
        self._watched: dict[tuple[str, str], _Watched] = {}

    def settings(self) -> dict[tuple[str, str], ServingSetting]:
        """(model, version) → what is in force."""
        return {key: each.setting for key, each in self._watched.items()}

    def observe(self, event: Event) -> None:
        """Count what was answered in time, and what was not."""
        if not isinstance(event, BatchRan | RequestShed):
            return
        watched = self._watched.get((event.model, event.version))
        if watched is None:
            return
        if isinstance(event, BatchRan):
            late = sum(event.answered_us - each > watched.slo_us for each in event.arrived_us)
            watched.ended[0] += len(event.arrived_us) - late
            watched.ended[1] += late
        elif event.reason in _MISSED:
            watched.ended[2] += 1

    async def run(self) -> None:
        """Until it is cancelled; then everything is as the options say."""
        try:
            with suppress(asyncio.CancelledError):
                while True:
                    self.look()
                    await asyncio.sleep(PERIOD_S)
        except Exception:  # noqa: BLE001 - a defect here must cost the adaptation, and not the server
            _log.exception("batches and queues are not adapted any more")
        finally:
            for watched in self._watched.values():
                watched.engine.reconfigure(watched.options)
            self._watched.clear()

    def look(self) -> None:
        """One look at every model, and what follows of it."""
        present = {}
        for served in self._running():
            engine, spec = engine_of(served), _spec_of(served)
            slo_us = self._slo_of(spec)
            if engine is None or slo_us is None:
                continue
            key = (engine.model, engine.version)
            watched = self._watched.get(key)
            if watched is None or watched.engine is not engine or watched.spec is not spec:
                watched = self._begun(engine, spec, slo_us)
            present[key] = watched
        for key, left in self._watched.items():
            if key not in present:
                left.engine.reconfigure(left.options)
        self._watched = present
        for watched in present.values():
            self._decide(watched)

    def _begun(self, engine: Engine, spec: VersionSpec, slo_us: float) -> _Watched:
        options = engine_options(spec.options, spec.signature)
        own = ServingSetting(options.budget_us, options.limits.max_queue_requests)
        return _Watched(
            engine=engine,
            spec=spec,
            options=options,
            slo_us=slo_us,
            policy=self._make(own),
            guard=ServingGuard(own),
            setting=own,
            looked_us=self._clock.now_us(),
            in_flight=engine.in_flight,
        )

    def _decide(self, watched: _Watched) -> None:
        now_us, in_flight = self._clock.now_us(), watched.engine.in_flight
        in_time, late, refused = watched.ended
        watched.ended = [0, 0, 0]
        frame = ServingFrame(
            at_us=now_us,
            seconds=(now_us - watched.looked_us) / 1e6,
            slo_us=watched.slo_us,
            arrived=max(in_time + late + refused + in_flight - watched.in_flight, 0),
            in_time=in_time,
            late=late,
            refused=refused,
            waiting=watched.engine.queued,
            devices=tuple(_devices(watched.engine.replicas.all)) if watched.options.batching else (),
            setting=watched.setting,
        )
        watched.looked_us, watched.in_flight = now_us, in_flight
        expected = watched.policy.expected
        setting = watched.guard.allow(frame, watched.policy.decide(frame), expected)
        if setting != watched.setting:
            limits = replace(watched.options.limits, max_queue_requests=setting.queue_requests)
            watched.engine.reconfigure(
                replace(watched.options, budget_us=setting.budget_us, limits=limits, spill_us=setting.spill_us)
            )
            watched.setting = setting

    def _slo_of(self, spec: VersionSpec) -> float | None:
        told_ms = spec.options.queue.shortest_ms
        return self._slo_us if told_ms is None else told_ms * 1000


def _spec_of(served: ServedVersion) -> VersionSpec:
    return served.inner.spec if isinstance(served, PipelinedVersion) else served.spec


def _devices(replicas: Iterable[Replica]) -> list[DeviceLoad]:
    """Those that take requests and whose curve says something about all of them."""
    found = []
    for replica in replicas:
        curve = _curve_of(replica)
        if replica.ready and not replica.spec.fallback and curve is not None:
            found.append(DeviceLoad(curve, replica.pace))
    return found


def _curve_of(replica: Replica) -> BatchCurve | None:
    """None where it has several shapes: which one comes next, nobody knows."""
    curves, rows = replica.curves, [bucket.rows for bucket in replica.spec.buckets]
    if len(curves) == 1:
        return curves[0]
    if len(curves) != len(rows) or len(set(rows)) < len(rows):
        return None
    sizes = [each for each in rows if each is not None]
    if len(sizes) < len(rows):
        return None
    return stepped({size: curve.us(size) for size, curve in zip(sizes, curves, strict=True)})
