"""The policy of a rival, in this process: as the command line opens it, but always on the CPU by numpy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from npuops.hostsched.familiarity import Ranges
from npuops.hostsched.learned_policy import opened_learned
from npuops.hostsched.plan import Policy
from npuops.hostsched.policy_card import CARD_NAME, bundled_policy, open_policy
from npuops.hostsched.policy_names import policy_named
from npuops.hostsched.reactive_options import load_reactive
from npuops.hostsched.scorer_session import NUMPY
from npuops.schedlab.rivals import ByAgent


def is_missing(rival: ByAgent) -> str:
    """Why there is no such policy here; "" if there is one."""
    if rival.thresholds is not None and not rival.thresholds.is_file():
        return f"{rival.thresholds} is not there: nobody tuned the rule yet"
    folder = rival.folder or bundled_policy()
    if rival.policy == "learned" and not (folder / CARD_NAME).is_file():
        return f"{folder} holds no learned policy"
    return ""


@contextmanager
def opened(rival: ByAgent) -> Iterator[tuple[Policy, Ranges | None]]:
    """A new policy, nothing remembered, and the ranges of its training.

    Raises:
        OptionError: no such policy, or no such thresholds.
        IntegrityError: the learned policy's folder is damaged.
    """
    thresholds = None if rival.thresholds is None else load_reactive(rival.thresholds)
    ranges: list[Ranges] = []
    with ExitStack() as stack:

        def learned() -> Policy:
            folder = open_policy(rival.folder or bundled_policy())
            ranges.append(folder.card.trained.ranges.ranges())
            return stack.enter_context(opened_learned(folder, NUMPY, thresholds=thresholds))

        policy = policy_named(rival.policy, reactive=thresholds, learned=learned)
        yield policy, ranges[0] if ranges else None
