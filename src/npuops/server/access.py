"""Who asks: the tenant and its share, found from a request's header fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakKeyDictionary

from npuops.errors import DataError, ForbiddenError, NpuopsError, UnauthenticatedError
from npuops.events import Observer
from npuops.runtime.facts import RequestShed, ShedReason
from npuops.runtime.fair_queue import LOWEST_PRIORITY
from npuops.runtime.job import DEFAULT_TENANT
from npuops.runtime.quota import QuotaState
from npuops.runtime.tenant_options import Tenants

TENANT_FIELD = "x-npuops-tenant"
KEY_FIELD = "x-api-key"
TIMEOUT_FIELD = "x-request-timeout-ms"


class No(Protocol):
    """Why a request is sent away."""

    @property
    def reason(self) -> ShedReason:
        """For the metrics."""
        ...

    def error(self) -> NpuopsError:
        """As the client gets it."""
        ...


class Share(Protocol):
    """What a tenant may use: a rate, and a number of requests at once."""

    def try_take(self, now_us: int) -> No | None:
        """One more request, unless the tenant has used its share up."""
        ...

    def give_back(self) -> None:
        """A request that was taken is answered."""
        ...


def take_share(share: Share, tenant: str, version: tuple[str, str], now_us: int, observe: Observer) -> None:
    """One more request of this tenant to a model's version.

    Raises:
        NpuopsError: the share is used up, or was revoked; `observe` is told.
    """
    no = share.try_take(now_us)
    if no is not None:
        observe(RequestShed(model=version[0], version=version[1], tenant=tenant, reason=no.reason))
        raise no.error()


@dataclass(slots=True, weakref_slot=True, eq=False)
class Access:
    """One client's rights. Front ends keep it with the head that it was found by; `TenantGate.follow` changes it there.

    Attributes:
        tenant: its name.
        priority: of its requests that ask for none, 0 first.
        share: None where it is not limited.
        admin: it may load and unload models.
    """

    tenant: str = DEFAULT_TENANT
    priority: int = 0
    share: Share | None = None
    admin: bool = False

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
            ForbiddenError: no such tenant, and only known ones may ask.
        """
        ...


@dataclass(frozen=True, slots=True)
class Revoked:
    """The share of a client that may not ask any more.

    Attributes:
        why: what it is told.
        before: the share that its requests under way were taken from.
    """

    why: NpuopsError
    before: Share | None
    reason: ShedReason = ShedReason.QUOTA

    def try_take(self, now_us: int) -> Revoked:
        """Nothing is left."""
        del now_us
        return self

    def give_back(self) -> None:
        """A request that came before is answered."""
        if self.before is not None:
            self.before.give_back()

    def error(self) -> NpuopsError:
        """As the client gets it."""
        return type(self.why)(self.why.message, advice=self.why.advice)


class TenantGate:
    """The tenants of the server's options."""

    def __init__(self, tenants: Tenants) -> None:
        """Everybody is known from here on; who is asked for later is looked up in `tenants`."""
        self._tenants = tenants
        self._given: WeakKeyDictionary[Access, tuple[str, str]] = WeakKeyDictionary()

    def access(self, tenant: str, key: str) -> Access:
        """As `Tenants.of`.

        Raises:
            UnauthenticatedError: the key is missing or unknown, or another tenant's.
            ForbiddenError: no such tenant, and only known ones may ask.
        """
        access = self._look_up(tenant, key)
        self._given[access] = (tenant, key)
        return access

    def follow(self, tenants: Tenants) -> None:
        """Other tenants, limits, rights and keys from now on, also for clients that are known."""
        self._tenants.follow(tenants)
        for access, (tenant, key) in list(self._given.items()):
            try:
                now = self._look_up(tenant, key)
            except NpuopsError as error:
                before = access.share.before if isinstance(access.share, Revoked) else access.share
                access.share, access.admin = Revoked(error, before), False
                continue
            if isinstance(access.share, QuotaState) and access.share is not now.share:
                access.share.under_way = 0  # what is under way is given back to the new share: nobody knows how much
            access.tenant, access.priority, access.share, access.admin = now.tenant, now.priority, now.share, now.admin

    def _look_up(self, tenant: str, key: str) -> Access:
        found = self._tenants.of(tenant, key)
        # Without keys a name proves nothing, so that a right of some names would keep nobody out.
        admin = found.options.admin or not self._tenants.need_key
        return Access(found.name, found.options.priority, found.quota, admin)


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


def require_admin(access: Access) -> None:
    """Refuse what only an administrator may do.

    Raises:
        ForbiddenError: this client is none.
    """
    if not access.admin:
        raise ForbiddenError(
            f"tenant {access.tenant!r} may not load or unload models",
            advice="use the API key of an administrator; whoever runs this server sets admin = true for a tenant",
        )


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
