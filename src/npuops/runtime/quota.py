"""What a tenant may use at most: a rate of requests, and a number of them at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from npuops.errors import OptionError
from npuops.runtime.admission import Refusal, retry_after_s
from npuops.runtime.facts import ShedReason

CONCURRENCY_RETRY_S: Final = 0.1
"""Nobody knows when one of a tenant's own requests ends; its client does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """Limits of one tenant; None is no limit.

    Attributes:
        rate: requests a second.
        burst: requests that may come at once after a pause; None is a second's worth, and at least one.
        concurrency: requests that are not answered yet.
    """

    rate: float | None = None
    burst: float | None = None
    concurrency: int | None = None

    def __post_init__(self) -> None:
        if self.rate is not None and not 0 < self.rate < float("inf"):
            raise OptionError(f"rate = {self.rate:g} requests a second: it must be above 0")
        if self.burst is not None and self.rate is None:
            raise OptionError("burst without a rate limits nothing", advice="set rate, in requests a second")
        if self.burst is not None and not 1 <= self.burst < float("inf"):
            raise OptionError(f"burst = {self.burst:g}: with less than one request none would ever pass")
        if self.concurrency is not None and self.concurrency < 1:
            raise OptionError(f"concurrency = {self.concurrency}: it must be at least 1")

    @property
    def is_limited(self) -> bool:
        """Whether it limits anything."""
        return self.rate is not None or self.concurrency is not None

    @property
    def bucket(self) -> float:
        """Tokens that a full bucket holds."""
        return max(self.rate or 0.0, 1.0) if self.burst is None else self.burst


class QuotaState:
    """A token bucket, and the count of requests under way, of one tenant."""

    __slots__ = ("_filled_us", "_tokens", "quota", "under_way")

    def __init__(self, quota: Quota) -> None:
        """The bucket is full."""
        self.quota = quota
        self.under_way = 0
        self._tokens = quota.bucket
        self._filled_us: int | None = None

    def try_take(self, now_us: int) -> Refusal | None:
        """One more request; a refused one uses nothing up. Each that passes is given back once, by `give_back`."""
        quota = self.quota
        if quota.concurrency is not None and self.under_way >= quota.concurrency:
            told = f"{self.under_way} requests of this tenant are under way, which is its limit"
            return Refusal(ShedReason.CONCURRENCY, CONCURRENCY_RETRY_S, told)
        if quota.rate is not None:
            passed_us = 0 if self._filled_us is None else max(now_us - self._filled_us, 0)
            self._filled_us = now_us if self._filled_us is None else max(now_us, self._filled_us)
            self._tokens = min(self._tokens + passed_us * quota.rate / 1e6, quota.bucket)
            # The clock ticks in microseconds: who comes exactly on time may be one early.
            if self._tokens < 1 - quota.rate / 1e6 - 1e-9:
                after_s = retry_after_s((1 - self._tokens) / quota.rate * 1e6)
                told = f"this tenant may send {quota.rate:g} requests a second"
                return Refusal(ShedReason.QUOTA, after_s, told)
            self._tokens -= 1
        self.under_way += 1
        return None

    def give_back(self) -> None:
        """A request that passed is answered, or nobody waits for it any more."""
        # One that came before its tenant had any limit was never counted.
        self.under_way = max(self.under_way - 1, 0)

    def follow(self, quota: Quota) -> None:
        """Other limits from now on; what is under way still counts."""
        self.quota = quota
        self._tokens = min(self._tokens, quota.bucket)
