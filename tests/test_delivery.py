from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from npuops.errors import NpuopsError, RunError
from npuops.runtime.buckets import NO_PADDING, Bucket
from npuops.runtime.delivery import Delivery
from npuops.runtime.doorbell import Place, pack_places
from npuops.runtime.job import Completion, Job
from npuops.runtime.replica import Answer, Run
from npuops.runtime.signature import Port, Signature, form_of
from npuops.runtime.text_tensor import write_text

X = Port(name="x", dtype="float32", shape=(-1, 2))
SIGNATURE = Signature(inputs=(X,), outputs=(X,), batched=True, max_rows=16)


def handed_out(rows: list[int], padded: int, cancelled: set[int]) -> dict[int, tuple[list[float], object]]:
    got: dict[int, tuple[list[float], object]] = {}

    def receive(job: Job, what: Completion | NpuopsError) -> None:
        assert isinstance(what, Completion)
        got[job.context] = (np.frombuffer(what.outputs[0], np.float32).tolist(), what.shapes)

    jobs = [
        Job(form_of(SIGNATURE, [(count, 2)]), [b""], receive, 0, context=number) for number, count in enumerate(rows)
    ]
    for number in cancelled & set(range(len(jobs))):
        jobs[number].cancelled = True
    values = np.repeat(np.arange(padded, dtype=np.float32), 2)
    places = (Place(64, values.nbytes, (padded, 2)),)
    run = Run(1, jobs, sum(rows), Bucket(0, padded, ((2,),)), 0, 0, None)
    Delivery(SIGNATURE, NO_PADDING).hand_out(
        run, Answer(pack_places(places), places, 0, 0), memoryview(bytes(64) + values.tobytes()), "npu", fell_back=False
    )
    return got


@given(
    rows=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    more=st.integers(0, 5),
    cancelled=st.sets(st.integers(0, 3), max_size=2),
)
def test_each_gets_its_own_rows_and_who_cancelled_gets_none(rows: list[int], more: int, cancelled: set[int]) -> None:
    got = handed_out(rows, sum(rows) + more, cancelled)
    at = 0
    for number, count in enumerate(rows):
        if number in cancelled:
            assert number not in got
        else:
            values = [float(row) for row in range(at, at + count) for _ in range(2)]
            assert got[number] == (values, ((count, 2),))
        at += count


def test_an_answer_that_is_no_text_is_an_error() -> None:
    port = Port(name="t", dtype="string", shape=(-1,))
    signature = Signature(inputs=(port,), outputs=(port,), batched=True, max_rows=4)
    got: list[object] = []
    job = Job(form_of(signature, [(2,)]), [b""], lambda _, what: got.append(what), 0)
    run = Run(1, [job], 2, Bucket(0, 4, ((),)), 0, 0, None)
    whole = write_text(np.array(["a", "b", "", ""], dtype=object))
    for data in (whole, whole[:6]):
        places = (Place(0, len(data), (4,)),)
        Delivery(signature, NO_PADDING).hand_out(
            run, Answer(pack_places(places), places, 0, 0), memoryview(data), "npu", fell_back=False
        )
    good, bad = got
    assert isinstance(good, Completion)
    assert bytes(good.outputs[0]) == write_text(np.array(["a", "b"], dtype=object))
    assert isinstance(bad, RunError)
