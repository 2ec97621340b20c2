"""The learned policy as its folder says: network, rule and trust belong together, for they were trained together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from npuops.events import Observer, ignore
from npuops.hostsched.agent_facts import NetworkClosed
from npuops.hostsched.learned import Learned, LearnedOptions
from npuops.hostsched.policy_card import PolicyFolder
from npuops.hostsched.reactive import Reactive
from npuops.hostsched.reactive_options import ReactiveOptions, load_reactive
from npuops.hostsched.scorer_fallback import FallingBack
from npuops.hostsched.scorer_session import NumpyScorer, SessionScorer, open_scorer


def thresholds_of(folder: PolicyFolder) -> ReactiveOptions:
    """Of the rule that proposed to it in training: those in its folder, or the rule's own.

    Raises:
        OptionError: thresholds that cannot be.
    """
    return ReactiveOptions() if folder.rule is None else load_reactive(folder.rule)


@contextmanager
def opened_learned(
    folder: PolicyFolder,
    placement: str,
    *,
    thresholds: ReactiveOptions | None = None,
    observe: Observer = ignore,
) -> Iterator[Learned]:
    """A policy with nothing remembered; its network is closed at the end.

    Args:
        folder: verified.
        placement: of the network, as of `open_scorer`.
        thresholds: of the rule that proposes; None: those in the folder, or the rule's own.
        observe: told if the place fails in mid-run, and `NetworkClosed`, if it was an artifact.

    Raises:
        OptionError: no such placement, or thresholds that cannot be.
        IncompatibleArtifactError: the policy was not built for that.
        DeviceError, ToolchainError: it is not there.
    """
    options = LearnedOptions(trust=folder.card.trust, trust_told=folder.card.trust_told)
    scorer = open_scorer(folder, placement)
    lasting = FallingBack(scorer, NumpyScorer(folder.weights), observe)
    try:
        yield Learned(lasting, options, proposer=Reactive(thresholds or thresholds_of(folder)))
    finally:
        lasting.close()
        if isinstance(scorer, SessionScorer):
            observe(NetworkClosed(inferences=scorer.inferences, modelled_mj=scorer.modelled_mj))
