"""How the end of a job is told to who submitted it. Pure."""

from __future__ import annotations

from npuops.errors import DeviceLostError
from npuops.vnpu.device_events import ContextLost, JobCompleted, JobFailed
from npuops.vnpu.wire import Completed


def completed(request: int, event: JobCompleted) -> Completed:
    """The reply to the request."""
    return Completed(
        id=request,
        submitted_us=event.submitted_us,
        started_us=event.started_us,
        finished_us=event.at_us,
        busy_us=event.busy_us,
        energy_mj=event.energy_mj,
        preemptions=event.preemptions,
    )


def lost(event: JobFailed | ContextLost) -> DeviceLostError:
    """Why there will be no answer, and what helps."""
    if isinstance(event, ContextLost):
        return DeviceLostError("the driver crashed, and the context with it", advice="connect again")
    return DeviceLostError(
        f"{event.failure}: {event.message}", advice="submit it again; if that fails, load the program again"
    )
