"""Facts of a server, made by hand for the tests of what is made of them."""

from __future__ import annotations

from collections.abc import Sequence

from npuops.runtime.facts import BatchRan


def batch_ran(
    *,
    model: str = "mobilenet",
    version: str = "1",
    device: str = "npu0",
    arrived_us: Sequence[int] = (1_000_000,),
    tenants: Sequence[str] = (),
    rows: int = 0,
    padded_rows: int = 0,
    elements: int = 0,
    padded_elements: int = 0,
    queue_us: int = 100,
    dma_in_us: int = 20,
    compute_us: int = 700,
    dma_out_us: int = 30,
    fell_back: bool = False,
    inline: bool = False,
) -> BatchRan:
    """A batch that left the queue `queue_us` after its last request came; one row for each request by default."""
    dispatched = max(arrived_us) + queue_us
    started = dispatched + dma_in_us
    computed = started + compute_us
    return BatchRan(
        model=model,
        version=version,
        device=device,
        fell_back=fell_back,
        inline=inline,
        arrived_us=tuple(arrived_us),
        tenants=tuple(tenants) or ("default",) * len(arrived_us),
        rows=rows or len(arrived_us),
        padded_rows=padded_rows,
        dispatched_us=dispatched,
        started_us=started,
        computed_us=computed,
        answered_us=computed + dma_out_us,
        elements=elements,
        padded_elements=padded_elements,
    )
