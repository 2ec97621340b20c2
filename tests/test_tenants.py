from __future__ import annotations

from npuops.devices.tenants import Tenant, with_ratios


def tenant(busy_seconds: float | None, *, pid: int = 1) -> Tenant:
    return Tenant(client="7", pid=pid, busy_seconds=busy_seconds)


def ratio(before: Tenant | None, now: Tenant, interval_s: float = 2.0) -> float | None:
    return with_ratios([now], {before.client: before} if before else {}, interval_s)[0].busy_ratio


def test_the_share_of_a_tenant_is_its_own_time_over_the_interval() -> None:
    assert ratio(tenant(10.0), tenant(10.5)) == 0.25
    assert ratio(tenant(10.0), tenant(19.0)) == 1.0


def test_a_share_that_is_not_known_is_none() -> None:
    assert ratio(None, tenant(1.0)) is None
    assert ratio(tenant(None), tenant(1.0)) is None
    assert ratio(tenant(2.0), tenant(1.0)) is None
    assert ratio(tenant(1.0), tenant(1.0), interval_s=0.0) is None


def test_a_number_that_another_process_has_now_is_another_tenant() -> None:
    assert ratio(tenant(1.0, pid=1), tenant(1.5, pid=2)) is None
