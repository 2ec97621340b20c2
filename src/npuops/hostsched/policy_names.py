"""Policies by the names that people type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from npuops.errors import OptionError, nearest
from npuops.hostsched.plan import Policy
from npuops.hostsched.reactive import Reactive
from npuops.hostsched.reactive_options import ReactiveOptions
from npuops.hostsched.static_policy import EXAMPLE, PREFIX, Default, Static

TUNED: Final = "tuned-reactive"
"""The reactive rule with the thresholds that `train` found, as they ship."""
NAMES: Final = ("default", "reactive", TUNED, "learned", "static:SETTING@WHOM,…")
"""For help and completion."""


def policy_named(
    name: str,
    *,
    reactive: ReactiveOptions | None = None,
    tuned: Callable[[], ReactiveOptions] | None = None,
    learned: Callable[[], Policy] | None = None,
) -> Policy:
    """A new policy, with nothing remembered.

    Args:
        name: `default`, `reactive`, `tuned-reactive`, `learned`, or `static:` and its settings.
        reactive: thresholds of the reactive rule.
        tuned: reads those that were found by tuning; None where there are none.
        learned: opens the learned policy; None where there is none.

    Raises:
        OptionError: no such policy (the nearest name is told), a static one that cannot be read, or none was learned
            or tuned.
    """
    if name.startswith(PREFIX):
        return Static(name)
    if name == "static":
        raise OptionError("a static policy needs its settings", advice=EXAMPLE)
    if name == "default":
        return Default()
    if name == "reactive":
        return Reactive(reactive)
    if name == TUNED:
        if tuned is None:
            raise OptionError("no tuned thresholds are here", advice="use reactive, or give it --thresholds")
        return Reactive(tuned(), name=name)
    if name == "learned":
        if learned is None:
            raise OptionError("no learned policy is here", advice="use reactive, or give the learned policy's folder")
        return learned()
    raise OptionError(f"no policy is called {name!r}", advice=nearest(name, NAMES))
