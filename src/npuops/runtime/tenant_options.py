"""Who shares the server: names, weights, priorities, quotas and API keys."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from npuops.errors import ForbiddenError, OptionError, UnauthenticatedError
from npuops.runtime.fair_queue import LOWEST_PRIORITY
from npuops.runtime.job import DEFAULT_TENANT
from npuops.runtime.quota import Quota, QuotaState

Unknown = Literal["share", "own", "refuse"]

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
"""Names become labels of metrics and fields of logs."""

MAX_TENANTS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantOptions:
    """One `[tenant.NAME]`.

    Attributes:
        weight: share of the devices, against the others' weights, while both wait.
        priority: class of its requests, 0 first; a request may ask for a later one, not for an earlier one.
        rate: requests a second; None is no limit.
        burst: requests at once after a pause; None is a second's worth.
        concurrency: requests that are not answered yet; None is no limit.
        api_key_sha256: hex digests of its API keys. Only digests: a configuration file is read by many. Keys are long
            and random, so a fast digest does (`printf %s "$KEY" | sha256sum`).
        admin: its keys may load and unload models. Where no tenant has a key, everybody may.
    """

    weight: float = 1.0
    priority: int = 1
    rate: float | None = None
    burst: float | None = None
    concurrency: int | None = None
    api_key_sha256: tuple[str, ...] = ()
    admin: bool = False

    def __post_init__(self) -> None:
        if not 0.001 <= self.weight <= 1000:
            raise OptionError(f"weight = {self.weight:g} is not within 0.001 to 1000")
        if not 0 <= self.priority <= LOWEST_PRIORITY:
            raise OptionError(f"priority = {self.priority} is not within 0 to {LOWEST_PRIORITY}", advice="0 goes first")
        for digest in self.api_key_sha256:
            if not re.fullmatch(r"[0-9a-f]{64}", digest):
                raise OptionError(
                    "api_key_sha256 holds what is no SHA-256 digest in lower-case hex",
                    advice='printf %s "$KEY" | sha256sum prints it; the key itself does not belong here',
                )
        _ = self.quota

    @property
    def quota(self) -> Quota:
        """Its limits."""
        return Quota(rate=self.rate, burst=self.burst, concurrency=self.concurrency)


class Tenant:
    """A tenant while the server runs.

    Attributes:
        name: in metrics, logs and shares.
        options: its own, or the default's.
        quota: what it has used; None where nothing is limited.
    """

    __slots__ = ("name", "options", "quota")

    def __init__(self, name: str, options: TenantOptions) -> None:
        self.name = name
        self.options = options
        self.quota = QuotaState(options.quota) if options.quota.is_limited else None

    def priority_of(self, asked: int | None) -> int:
        """The class of a request that asks for one."""
        own = self.options.priority
        return own if asked is None else min(max(asked, own), LOWEST_PRIORITY)

    def follow(self, options: TenantOptions) -> None:
        """Other options from now on; what it has used of its limits still counts."""
        self.options = options
        if not options.quota.is_limited:
            self.quota = None
        elif self.quota is None:
            self.quota = QuotaState(options.quota)
        elif self.quota.quota != options.quota:
            self.quota.follow(options.quota)


class Tenants:
    """All tenants of a server.

    Names come from outside, so only a bounded number of them is ever remembered.
    """

    def __init__(
        self,
        options: Mapping[str, TenantOptions] | None = None,
        unknown: Unknown = "share",
        max_tenants: int = MAX_TENANTS,
    ) -> None:
        """`options` of the named tenants; those of `default` hold for all others.

        Args:
            options: by name.
            unknown: what becomes of other names: `share`, all are the one tenant `default`; `own`, each is a tenant
                of its own with the options of `default`, until `max_tenants` are known; `refuse`.
            max_tenants: beyond them new names are the tenant `default`; those with options always have their place.

        Raises:
            OptionError: a name that is none, or an API key of two tenants.
        """
        options = options or {}
        self._default_options = options.get(DEFAULT_TENANT, TenantOptions())
        self._unknown = unknown
        self._max_tenants = max(max_tenants, len(options) + 1)
        self._by_name = {name: Tenant(name, each) for name, each in options.items()}
        self._by_name.setdefault(DEFAULT_TENANT, Tenant(DEFAULT_TENANT, self._default_options))
        self._by_digest: dict[str, Tenant] = {}
        for name, tenant in self._by_name.items():
            if not NAME.fullmatch(name):
                raise OptionError(
                    f"{name!r} is no name of a tenant", advice="letters, digits, '.', '_' and '-', at most 63"
                )
            for digest in tenant.options.api_key_sha256:
                other = self._by_digest.setdefault(digest, tenant)
                if other is not tenant:
                    raise OptionError(f"tenants {other.name!r} and {name!r} have the same API key")

    def follow(self, other: Tenants) -> None:
        """Become like another one, which nobody uses any further; what was used of the limits still counts."""
        for name, tenant in other._by_name.items():
            known = self._by_name.get(name)
            if known is not None:
                known.follow(tenant.options)
        others = {name: self._by_name.get(name, tenant) for name, tenant in other._by_name.items()}
        self._by_digest = {digest: others[tenant.name] for digest, tenant in other._by_digest.items()}
        self._by_name, self._default_options = others, other._default_options
        self._unknown, self._max_tenants = other._unknown, other._max_tenants

    @property
    def need_key(self) -> bool:
        """Whether only who has an API key gets in."""
        return bool(self._by_digest)

    def of(self, name: str, key: str) -> Tenant:
        """The tenant of a request. With API keys in the options every request needs one, and it alone decides.

        Args:
            name: that the request gives; may be empty.
            key: its API key; may be empty.

        Raises:
            UnauthenticatedError: the key is missing or unknown, or belongs to another tenant than the one named.
            ForbiddenError: no such tenant, and the options refuse unknown ones.
        """
        if not self._by_digest:
            return self.named(name)
        # What is looked up is a digest, so how long that takes tells nothing about the keys.
        tenant = (
            self._by_digest.get(hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()) if key else None
        )
        if tenant is None:
            raise UnauthenticatedError(
                "this server needs an API key" if not key else "the API key is unknown",
                advice="send it as `Authorization: Bearer KEY` or `X-Api-Key: KEY`",
            )
        if name and name != tenant.name:
            raise UnauthenticatedError(f"the API key does not belong to tenant {name!r}", advice="leave the name away")
        return tenant

    def named(self, name: str) -> Tenant:
        """The tenant of that name, or who stands in for it.

        Raises:
            ForbiddenError: no such tenant, and the options refuse unknown ones.
        """
        tenant = self._by_name.get(name or DEFAULT_TENANT)
        if tenant is not None:
            return tenant
        if self._unknown == "refuse":
            # The names of others are nobody's business: no `did you mean`.
            raise ForbiddenError(
                "this server takes only tenants that it knows",
                advice="send your tenant's name as X-Npuops-Tenant; whoever runs this server knows it",
            )
        if self._unknown == "share" or len(self._by_name) >= self._max_tenants or not NAME.fullmatch(name):
            return self._by_name[DEFAULT_TENANT]
        tenant = self._by_name[name] = Tenant(name, self._default_options)
        return tenant

    def weight(self, name: str) -> float:
        """Of a tenant, for the fair queue."""
        tenant = self._by_name.get(name)
        return self._default_options.weight if tenant is None else tenant.options.weight

    def names(self) -> tuple[str, ...]:
        """Of all that are known now."""
        return tuple(self._by_name)
