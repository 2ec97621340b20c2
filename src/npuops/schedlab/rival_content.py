"""What the rivals that are agents decide by, as digests: plays that were made with something else do not compare."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from npuops.errors import OptionError
from npuops.hostsched.policy_card import CARD_NAME, bundled_policy, open_policy, read_card
from npuops.hostsched.reactive_options import ReactiveOptions, load_reactive
from npuops.schedlab.agent_policy import is_missing
from npuops.schedlab.line_up import line_up
from npuops.schedlab.rival_names import LEARNED, TUNED
from npuops.schedlab.rivals import ByAgent

_NAMED_BY: Final = {TUNED: "--thresholds", LEARNED: "--policy-folder"}
_SHOWN: Final = 12
_BEGIN_ANOTHER: Final = "begin another one with --out"


def contents(*, thresholds: Path | None, folder: Path | None) -> dict[str, str]:
    """By rival: sha256 in hex of its figures, or of the card that names its files; "" where nobody made one yet.

    Args:
        thresholds: of the tuned reactive rule; None: those that ship.
        folder: of the learned policy; None: the one that ships.

    Raises:
        OptionError: the thresholds cannot be read, or are none.
        StorageError: the policy that is named cannot be read.
        IntegrityError: it is damaged.
        IncompatibleArtifactError: it is of another npuops.
    """
    if thresholds is not None:
        load_reactive(thresholds)
    if folder is not None:
        read_card(folder)
    rivals = line_up(("all",), {}, {}, thresholds=thresholds, folder=folder)
    return {rival.name: _content(rival) for rival in rivals if isinstance(rival, ByAgent)}


def demand_same(path: Path, then: Mapping[str, str] | None, now: Mapping[str, str], names: Iterable[str]) -> None:
    """Whoever plays on decides by what the log was begun with.

    Args:
        path: of the log.
        then: contents when it was begun; None: they were not kept.
        now: contents of now.
        names: of the rivals that play; only they count.

    Raises:
        OptionError: one decides by something else, or nobody knows.
    """
    playing = [name for name in now if name in set(names)]
    if playing and then is None:
        words = f"{path} does not say by what policy and thresholds its plays were made: an older npuops began it"
        raise OptionError(words, advice=_BEGIN_ANOTHER)
    for name in playing:
        before = (then or {}).get(name, "")
        if before == now[name]:
            continue
        what = f"another {_NAMED_BY[name]}" if name in _NAMED_BY else "other figures of the rule"
        raise OptionError(
            f"{path} was begun with {what} for {name}: {_shown(before)}, now it is {_shown(now[name])}",
            advice=f"name the one that it was begun with, or {_BEGIN_ANOTHER}" if name in _NAMED_BY else _BEGIN_ANOTHER,
        )


def _content(rival: ByAgent) -> str:
    if is_missing(rival):
        return ""
    if rival.policy == LEARNED:
        root = rival.folder or bundled_policy()
        open_policy(root)  # its files are those of its card
        return hashlib.sha256((root / CARD_NAME).read_bytes()).hexdigest()
    options = ReactiveOptions() if rival.thresholds is None else load_reactive(rival.thresholds)
    return hashlib.sha256(options.to_toml().encode()).hexdigest()


def _shown(digest: str) -> str:
    return f"sha256 {digest[:_SHOWN]}…" if digest else "none"
