import numpy as np
import pytest

from npuops.eevdf import rules
from npuops.eevdf.rules import Rules
from npuops.errors import OptionError


@pytest.mark.parametrize(
    ("cpus", "slice_ns"), [(1, 1_400_000), (2, 1_400_000), (3, 1_400_000), (4, 2_100_000), (64, 2_800_000)]
)
def test_the_slice_follows_the_number_of_cpus_as_in_the_kernel(cpus: int, slice_ns: int) -> None:
    assert Rules().slice_ns(cpus) == slice_ns
    assert Rules(base_slice_ns=3_000_000).slice_ns(cpus) == 3_000_000


def test_the_table_has_every_rule_at_its_name() -> None:
    table = Rules(hz=1000, preempt_short=False, pick_buddy=False, switch_cost_ns=7, tick_jitter_ns=9).table(2)
    assert table.dtype == np.int64
    assert table[rules.TICK_NS] == 1_000_000
    assert (table[rules.PARITY], table[rules.PREEMPT_SHORT], table[rules.DELAY], table[rules.LAG]) == (1, 0, 1, 1)
    assert (table[rules.RELATIVE], table[rules.BUDDY]) == (1, 0)
    assert (table[rules.SWITCH_NS], table[rules.REFILL_NS], table[rules.JITTER_NS]) == (7, 20_000, 9)
    assert Rules(scheduler="cfs").table(2)[rules.CFS] == 1
    assert table[rules.CFS_LATENCY_NS] == 12_000_000


@pytest.mark.parametrize(
    "wrong",
    [{"kernel": "5.4"}, {"scheduler": "o1"}, {"hz": 0}, {"base_slice_ns": 1}, {"switch_cost_ns": -1}],
)
def test_rules_that_no_kernel_has_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(OptionError):
        Rules(**wrong)  # type: ignore[arg-type]
