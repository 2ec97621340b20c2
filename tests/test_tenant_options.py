from __future__ import annotations

import hashlib
import tomllib

import pytest

from npuops.config import read_options
from npuops.errors import ForbiddenError, OptionError, UnauthenticatedError
from npuops.runtime.fair_queue import LOWEST_PRIORITY
from npuops.runtime.job import DEFAULT_TENANT
from npuops.runtime.tenant_options import MAX_TENANTS, TenantOptions, Tenants


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


CAMERA = TenantOptions(weight=3, priority=0, api_key_sha256=(digest("eye"), digest("lens")))
REINDEX = TenantOptions(priority=4, rate=100, concurrency=8, api_key_sha256=(digest("book"),))


def test_options_are_read_from_toml_and_an_unknown_key_is_refused() -> None:
    text = "weight = 2.5\npriority = 0\nrate = 50\nconcurrency = 4\n"
    options = read_options(TenantOptions, tomllib.loads(text), where="serve.toml [tenant.a]")
    assert options == TenantOptions(weight=2.5, priority=0, rate=50, concurrency=4)
    with pytest.raises(OptionError, match="unknown key 'wieght'") as caught:
        read_options(TenantOptions, {"wieght": 2}, where="serve.toml")
    assert "'weight'" in caught.value.advice


@pytest.mark.parametrize(
    "values",
    [
        {"weight": 0},
        {"weight": float("nan")},
        {"priority": -1},
        {"priority": LOWEST_PRIORITY + 1},
        {"rate": 0},
        {"concurrency": 0},
        {"api_key_sha256": ["secret"]},
    ],
)
def test_options_that_make_no_sense_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(OptionError):
        read_options(TenantOptions, values, where="serve.toml")


def test_without_options_everybody_is_the_default_tenant() -> None:
    tenants = Tenants()
    assert tenants.of("", "").name == DEFAULT_TENANT
    assert tenants.of("anybody", "").name == DEFAULT_TENANT
    assert tenants.of("", "").quota is None
    assert tenants.need_key is False


def test_a_named_tenant_has_its_own_weight_and_quota() -> None:
    tenants = Tenants({"reindex": TenantOptions(weight=0.5, rate=1), "default": TenantOptions(weight=2)})
    reindex = tenants.of("reindex", "")
    assert reindex is tenants.of("reindex", "")
    assert (tenants.weight("reindex"), tenants.weight("default"), tenants.weight("gone")) == (0.5, 2.0, 2.0)
    assert reindex.quota is not None
    assert reindex.quota.try_take(0) is None
    assert reindex.quota.try_take(0) is not None


def test_with_keys_the_key_decides() -> None:
    tenants = Tenants({"camera": CAMERA, "reindex": REINDEX})
    assert tenants.need_key
    assert tenants.of("", "eye").name == tenants.of("camera", "lens").name == "camera"
    assert tenants.of("", "book").name == "reindex"


@pytest.mark.parametrize(
    ("name", "key", "message"),
    [
        ("camera", "", "needs an API key"),
        ("", "", "needs an API key"),
        ("", "guess", "is unknown"),
        ("", "b\udcff\u00fc", "is unknown"),
        ("reindex", "eye", "does not belong"),
    ],
)
def test_without_the_right_key_nobody_gets_in(name: str, key: str, message: str) -> None:
    with pytest.raises(UnauthenticatedError, match=message):
        Tenants({"camera": CAMERA, "reindex": REINDEX}).of(name, key)


def test_unknown_names_share_have_their_own_or_are_refused() -> None:
    assert Tenants(unknown="share").of("eva", "").name == DEFAULT_TENANT
    assert Tenants(unknown="own").of("eva", "").name == "eva"
    with pytest.raises(ForbiddenError, match="only tenants that it knows") as caught:
        Tenants({"camera": TenantOptions()}, unknown="refuse").of("eva", "")
    assert "X-Npuops-Tenant" in caught.value.advice
    assert "camera" not in f"{caught.value} {caught.value.advice}", "others' names are nobody's business"


def test_a_name_of_ones_own_has_the_quota_of_the_default_for_itself() -> None:
    tenants = Tenants({"default": TenantOptions(concurrency=1)}, unknown="own")
    for name in ("eva", "tom"):
        quota = tenants.of(name, "").quota
        assert quota is not None
        assert quota.try_take(0) is None
        assert quota.try_take(0) is not None


def test_only_so_many_names_are_remembered() -> None:
    tenants = Tenants(unknown="own")
    for index in range(10_000):
        tenants.of(f"t{index}", "")
    assert len(tenants.names()) == MAX_TENANTS
    assert tenants.of("t0", "").name == "t0"
    assert tenants.of("t9999", "").name == DEFAULT_TENANT


@pytest.mark.parametrize("name", ["a b", "x" * 64, 'a"b', "ü", "-a", "../a", "a\n"])
def test_what_is_no_name_is_never_a_tenant(name: str) -> None:
    assert Tenants(unknown="own").of(name, "").name == DEFAULT_TENANT
    with pytest.raises(OptionError, match="no name of a tenant"):
        Tenants({name: TenantOptions()})


def test_two_tenants_cannot_have_the_same_key() -> None:
    with pytest.raises(OptionError, match="the same API key"):
        Tenants({"a": CAMERA, "b": CAMERA})


def test_a_request_may_ask_for_a_later_class_only() -> None:
    camera = Tenants({"camera": TenantOptions(priority=2)}).of("camera", "")
    assert [camera.priority_of(asked) for asked in (None, 0, 2, 5, 1 << 60)] == [2, 2, 2, 5, LOWEST_PRIORITY]
