"""Which versions of a model are loaded, which one answers where a request names none, which ones readiness counts."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from npuops.errors import OptionError

VERSION: Final = re.compile(r"0|[1-9][0-9]{0,17}")
"""A whole number, written in one way only: `01` and `1` would be two folders for one version."""

ADVICE: Final = 'versions = "latest", "latest 2", "all", or a list such as ["1", "3"]'


@dataclass(frozen=True, slots=True)
class Latest:
    """The `count` highest."""

    count: int = 1


@dataclass(frozen=True, slots=True)
class All:
    """Every one."""


@dataclass(frozen=True, slots=True)
class Listed:
    """These, where they are there."""

    versions: tuple[str, ...]


VersionRule = Latest | All | Listed


def check_version(version: str) -> str:
    """The version itself.

    Raises:
        OptionError: it is no whole number.
    """
    if not VERSION.fullmatch(version):
        raise OptionError(f"version {version!r} is not a whole number", advice="versions are 1, 2, 3, …")
    return version


def read_rule(words: str | Collection[str]) -> VersionRule:
    """`latest`, `latest N`, `all`, or versions.

    Raises:
        OptionError: anything else.
    """
    if not isinstance(words, str):
        if not words:
            raise OptionError("a list of versions is empty", advice=ADVICE)
        return Listed(tuple(check_version(version) for version in words))
    if words == "all":
        return All()
    name, _, count = words.partition(" ")
    if name != "latest" or (count and not (count.isascii() and count.isdigit() and 0 < int(count) < 10_000)):
        raise OptionError(f"{words!r} is no rule for versions", advice=ADVICE)
    return Latest(int(count or 1))


def in_order(versions: Collection[str]) -> list[str]:
    """By number, the lowest first: 9 comes before 10."""
    return sorted(versions, key=int)


def wanted(rule: VersionRule, available: Collection[str], canary: Collection[str] = ()) -> frozenset[str]:
    """The versions that should be loaded: the rule chooses among the stable ones, canaries come besides."""
    stable = [version for version in in_order(available) if version not in canary]
    match rule:
        case Latest(count):
            chosen = stable[-count:]
        case All():
            chosen = stable
        case Listed(versions):
            chosen = [version for version in stable if version in versions]
    return frozenset(chosen) | (frozenset(available) & frozenset(canary))


def stand_in(
    rule: VersionRule, available: Collection[str], failed: Collection[str], canary: Collection[str] = ()
) -> str | None:
    """What is loaded where all of the latest versions have failed: the highest one below them that has not.

    A list says which versions may answer, and `all` has no others: there nothing stands in.

    Args:
        rule: of the model.
        available: versions on disk or in memory.
        failed: those that did not come up, and are not tried again before something of them changes.
        canary: they stand in for nobody.
    """
    if not isinstance(rule, Latest):
        return None
    stable = [version for version in in_order(available) if version not in canary]
    if any(version not in failed for version in stable[-rule.count :]):
        return None
    sound = [version for version in stable[: -rule.count] if version not in failed]
    return sound[-1] if sound else None


def keeps_all(rule: VersionRule, available: Collection[str], canary: Collection[str] = ()) -> bool:
    """A list of which nothing is there, beside stable versions that are: a slip of the pen, or a copy that comes later.

    Nobody who wants a model to go away says it like this, so that it must not take down what answers.
    """
    stable = set(available) - set(canary)
    return isinstance(rule, Listed) and bool(stable) and not stable & set(rule.versions)


def default_version(able: Collection[str], canary: Collection[str] = ()) -> str | None:
    """What a request gets that names no version: the highest stable one that can answer; None where none can.

    Args:
        able: versions that answer, or would after a cold start. A cold version keeps its rank: answers must not
            change because a model was idle.
        canary: never the default.
    """
    stable = [version for version in in_order(able) if version not in canary]
    return stable[-1] if stable else None


def kept(
    held: Collection[str], wanted: Collection[str], able: Collection[str], canary: Collection[str] = ()
) -> frozenset[str]:
    """Of the loaded versions that are no longer wanted, those that have to stay until a wanted one can answer.

    A version that does not come up must not take down the one that it was meant to replace.

    Args:
        held: loaded now.
        wanted: as `wanted` says; empty where nothing of the model is left on disk.
        able: versions that can answer.
        canary: they replace nobody.
    """
    stable = set(wanted) - set(canary)
    leaving = set(held) - set(wanted)
    return frozenset() if not stable or stable & set(able) else frozenset(leaving - set(canary))


def ready(
    versions: Mapping[str, bool], proven: Collection[str], canary: Collection[str] = (), *, started: bool
) -> bool:
    """Whether a model does what readiness promises.

    Args:
        versions: wanted version → it can answer now (a cold one can).
        proven: versions that could answer before.
        canary: not counted.
        started: the whole server was ready once. Until then every stable version counts; afterwards only those that
            have answered before: a bad new version on every machine of a fleet must not take all of them out of
            service, while the old version still answers.
    """
    stable = {version: able for version, able in versions.items() if version not in canary}
    return all(able for version, able in stable.items() if not started or version in proven)
