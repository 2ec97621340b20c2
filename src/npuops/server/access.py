"""Who asks: the tenant and its share, found from a request's header fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from npuops.errors import DataError, UnauthenticatedError
from npuops.runtime.admission import Refusal
from npuops.runtime.fair_queue import LOWEST_PRIORITY
from npuops.runtime.job import DEFAULT_TENANT
from npuops.runtime.tenant_options import Tenants

TENANT_FIELD = "x-npuops-tenant"
KEY_FIELD = "x-api-key"
TIMEOUT_FIELD = "x-request-timeout-ms"


class Share(Protocol):
    """What a tenant may use: a rate, and a number of requests at once."""

    def try_take(self, now_us: int) -> Refusal | None:
        """One more request, unless the tenant has used its share up."""
        ...

    def give_back(self) -> None:
        """A request that was taken is answered."""
        ...


@dataclass(frozen=True, slots=True)
class Access:
    """One client's rights.

    Attributes:
        tenant: its name.
        priority: of its requests that ask for none, 0 first.
        share: None where it is not limited.
    """

    tenant: str = DEFAULT_TENANT
    priority: int = 0
    share: Share | None = None

    def priority_of(self, asked: int) -> int:
        """The class of a request: no earlier than the tenant's own.

        Args:
            asked: by the protocol's count: 1 first, 0 for none.
        """
        return min(max(asked - 1, self.priority), LOWEST_PRIORITY) if asked else self.priority


class Gate(Protocol):
    """Knows the tenants."""

    def access(self, tenant: str, key: str) -> Access:
        """What this name and API key may do; both may be empty.

        Raises:
            UnauthenticatedError: a key is needed, and this is none of them.
            NotServedError: no such tenant.
        """
        ...


class TenantGate:
    """The tenants of the server's options."""

    def __init__(self, tenants: Tenants) -> None:
        """Everybody is known from here on; who is asked for later is looked up in `tenants`."""
        self._tenants = tenants

    def access(self, tenant: str, key: str) -> Access:
        """As `Tenants.of`.

        Raises:
            UnauthenticatedError: the key is missing or unknown, or another tenant's.
            NotServedError: no such tenant.
        """
        found = self._tenants.of(tenant, key)
        return Access(found.name, found.options.priority, found.quota)


def access_of(gate: Gate, headers: Mapping[str, str]) -> Access:
    """From `X-Npuops-Tenant`, and `Authorization: Bearer` or `X-Api-Key`.

    Raises:
        UnauthenticatedError: as the gate says, or another scheme of authorization.
    """
    key = headers.get(KEY_FIELD, "")
    authorization = headers.get("authorization", "")
    if authorization:
        scheme, _, word = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise UnauthenticatedError(f"authorization {scheme[:20]!r} is not taken", advice="Bearer, or X-Api-Key")
        key = word.strip()
    return gate.access(headers.get(TENANT_FIELD, ""), key)


def timeout_us_of(headers: Mapping[str, str]) -> int:
    """From `X-Request-Timeout-Ms`; 0 where there is none.

    Raises:
        DataError: not a positive number.
    """
    words = headers.get(TIMEOUT_FIELD)
    if words is None:
        return 0
    try:
        value = float(words)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e12:
        raise DataError(f"header {TIMEOUT_FIELD} is {words[:40]!r}, it must be a positive number of milliseconds")
    return max(1, int(value * 1000))  # 0 would be no limit at all
