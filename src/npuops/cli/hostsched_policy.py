"""The policy that the command line names; a learned one with its network, wherever that runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from npuops.errors import DeviceError, OptionError
from npuops.events import Observer, Warned
from npuops.hostsched.agent_facts import NetworkPlaced
from npuops.hostsched.familiarity import Ranges
from npuops.hostsched.plan import Policy
from npuops.hostsched.policy_names import policy_named
from npuops.hostsched.reactive_options import ReactiveOptions, load_reactive

_PART_OF_PERIOD = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyChoice:
    """As the flags say.

    Attributes:
        name: `default`, `reactive`, `tuned-reactive`, `learned`, `static:…`.
        folder: of a learned policy; None: the one that ships.
        placement: of its network.
        thresholds: file of the reactive rule's figures; None: its own.
        period_us: between decisions: an answer is of use within a part of it.
    """

    name: str
    folder: Path | None = None
    placement: str = "auto"
    thresholds: Path | None = None
    period_us: int = 20_000


@dataclass(frozen=True, slots=True)
class OpenPolicy:
    """Ready to decide.

    Attributes:
        policy: nothing is remembered yet.
        ranges: of the features in its training; None if it was not trained.
    """

    policy: Policy
    ranges: Ranges | None


@contextmanager
def open_choice(choice: PolicyChoice, tell: Observer) -> Iterator[OpenPolicy]:
    """Open it, and close its network at the end.

    Raises:
        OptionError: no such policy, placement, or file of thresholds; no learned policy ships with this npuops.
        IntegrityError: the learned policy's folder is damaged.
        ToolchainError: its network cannot be loaded there.
        DeviceError: as above.
    """
    reactive = None if choice.thresholds is None else load_reactive(choice.thresholds)
    found: list[Ranges] = []
    with ExitStack() as stack:
        policy = policy_named(
            choice.name,
            reactive=reactive,
            tuned=_tuned,
            learned=lambda: _learned(choice, reactive, found, stack, tell),
        )
        yield OpenPolicy(policy, found[0] if found else None)


def _tuned() -> ReactiveOptions:
    from npuops.hostsched.policy_card import RULE_NAME, bundled_policy  # noqa: PLC0415 - only this policy needs it

    return load_reactive(bundled_policy() / RULE_NAME)


def _learned(
    choice: PolicyChoice, reactive: ReactiveOptions | None, found: list[Ranges], stack: ExitStack, tell: Observer
) -> Policy:
    from npuops.hostsched.candidates import CandidateOptions  # noqa: PLC0415 - the other policies need no runtime
    from npuops.hostsched.learned_policy import opened_learned  # noqa: PLC0415 - as above
    from npuops.hostsched.placement_trial import auto_placement  # noqa: PLC0415 - as above
    from npuops.hostsched.policy_card import CARD_NAME, bundled_policy, open_policy  # noqa: PLC0415 - as above
    from npuops.hostsched.scorer_session import AUTO, NUMPY  # noqa: PLC0415 - as above

    root = choice.folder or bundled_policy()
    if choice.folder is None and not (root / CARD_NAME).is_file():
        raise OptionError("no learned policy ships with this npuops", advice="give --policy-folder, or take reactive")
    folder = open_policy(root)
    found.append(folder.card.trained.ranges.ranges())

    def opened_on(place: str) -> Policy:
        return stack.enter_context(opened_learned(folder, place, thresholds=reactive, observe=tell))

    if choice.placement != AUTO:
        return opened_on(choice.placement)
    told = auto_placement(folder, CandidateOptions().count, choice.period_us / _PART_OF_PERIOD, observe=tell)
    tell(NetworkPlaced(place=told.place, why=told.why))
    try:
        return opened_on(told.place)
    except DeviceError as error:  # it went since it was tried
        tell(Warned(step="policy", message=f"{error.message}; the network runs on {NUMPY}", advice=error.advice))
        return opened_on(NUMPY)
