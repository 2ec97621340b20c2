"""All rivals by name, with the static settings that a search found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from npuops.errors import OptionError, nearest
from npuops.hostsched.policy_card import RULE_NAME, bundled_policy
from npuops.schedlab import oracle
from npuops.schedlab.rival_names import (
    AGAIN,
    BOUND,
    DEFAULT,
    FAIR,
    FAIR_HERE,
    LEARNED,
    NAMES,
    ORACLE,
    ORACLE_IDLE,
    REACTIVE,
    RESERVE,
    STATIC,
    STATIC_HERE,
    TUNED,
)
from npuops.schedlab.rivals import ByAgent, Rival, Scripted, StaticRule, by_rule, left_alone, reserved
from npuops.schedlab.scene import Scene
from npuops.schedlab.static_search import Place, search

SEARCHED: Final = (STATIC, FAIR)
SEARCHED_HERE: Final = (STATIC_HERE, FAIR_HERE)

Statics = dict[str, StaticRule]


def line_up(
    names: Sequence[str],
    statics: Mapping[str, StaticRule],
    here: Mapping[str, Mapping[str, StaticRule]],
    *,
    thresholds: Path | None = None,
    folder: Path | None = None,
) -> tuple[Rival, ...]:
    """The rivals of these names, in the order of tables; the default is always among them.

    Args:
        names: as in `NAMES`; `all` for all of them.
        statics: static rules, by rival.
        here: static rules of single mixes, by rival and mix.
        thresholds: of the tuned reactive rule; None: those that ship.
        folder: of the learned policy; None: the one that ships.

    Raises:
        OptionError: no rival of that name.
    """
    for name in names:
        if name not in (*NAMES, "all"):
            raise OptionError(f"no rival is called {name!r}", advice=nearest(name, NAMES))
    chosen = set(NAMES if "all" in names else names) | {DEFAULT}
    found = _all(statics, here, thresholds or bundled_policy() / RULE_NAME, folder)
    return tuple(found[name] for name in NAMES if name in chosen)


def _all(
    statics: Mapping[str, StaticRule],
    here: Mapping[str, Mapping[str, StaticRule]],
    thresholds: Path,
    folder: Path | None,
) -> dict[str, Rival]:
    rivals: list[Rival] = [
        Scripted(name=DEFAULT, levels=left_alone, note="everything as the kernel sets it"),
        Scripted(name=AGAIN, levels=left_alone, note="the same a second time: what differs is noise"),
        *(_static(name, statics.get(name, StaticRule()), {}) for name in SEARCHED),
        *(_static(name, StaticRule(), here.get(name, {})) for name in SEARCHED_HERE),
        Scripted(
            name=RESERVE,
            levels=reserved,
            reserves=True,
            note="SCHED_DEADLINE, 1 ms in every 2 ms for the apps, as many as the kernel admits",
        ),
        ByAgent(name=REACTIVE, policy="reactive", note="the hand-written rule, its figures set by hand"),
        ByAgent(name=TUNED, policy="reactive", thresholds=thresholds, note="the same, its figures found by CMA-ES"),
        ByAgent(
            name=LEARNED,
            policy="learned",
            folder=folder,
            note="the network",
        ),
        Scripted(name=ORACLE, levels=oracle.others_last, note="knows who serves when: all others at nice 19"),
        Scripted(name=ORACLE_IDLE, levels=oracle.others_idle, note="likewise: who serves at nice -10, others idle"),
        Scripted(name=BOUND, levels=oracle.serving_first, note="likewise: who serves is SCHED_FIFO; an upper bound"),
    ]
    return {rival.name: rival for rival in rivals}


def _static(name: str, rule: StaticRule, rules: Mapping[str, StaticRule]) -> Scripted:
    best = "the best static setting" if "fair" not in name else "the best static setting that is fair to all batch"
    where = (
        "searched on this very mix, in hindsight" if name in SEARCHED_HERE else f"searched on training mixes: {rule}"
    )
    return Scripted(name=name, levels=by_rule(rules, rule), note=f"{best}, {where}")


def search_statics(
    names: Sequence[str],
    scenes: Sequence[Scene],
    places: Mapping[str, Sequence[Place]],
    rules: Sequence[StaticRule] = (),
    told: Callable[[int, int], None] = lambda _done, _all: None,
) -> tuple[Statics, dict[str, Statics]]:
    """What the static rivals among `names` set.

    Args:
        names: of all rivals; a search is made only for those who need it.
        scenes: of training.
        places: where the rivals of single mixes are searched, by mix.
        rules: which are tried; all if none is given.
        told: hears how many rules are tried, of how many; begins again with each search.
    """
    statics: Statics = {}
    here: dict[str, Statics] = {}
    everybody = "all" in names
    if everybody or set(names) & set(SEARCHED):
        found = search([Place(one.mix, one.seed, one.rules) for one in scenes], rules, told)
        statics = {STATIC: found.best.rule, FAIR: found.best_fair.rule}
    if everybody or set(names) & set(SEARCHED_HERE):
        here = {STATIC_HERE: {}, FAIR_HERE: {}}
        for mix, these in places.items():
            found = search(these, rules, told)
            here[STATIC_HERE][mix], here[FAIR_HERE][mix] = found.best.rule, found.best_fair.rule
    return statics, here
