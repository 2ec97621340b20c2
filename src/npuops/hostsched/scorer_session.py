"""Where the scorer's network runs: NumPy in this process, or an artifact of `npuops build` on a target's runner."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Final, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from npuops.artifacts.folder import opened
from npuops.errors import IncompatibleArtifactError, OptionError, RunError, UsageError
from npuops.hostsched.policy_card import PolicyFolder
from npuops.hostsched.scorer import Outlook, Scene, feeds, outlook
from npuops.hostsched.scorer_network import Weights, forward
from npuops.targets.protocol import Session
from npuops.targets.registry import open_target
from npuops.vnpu.client import connect
from npuops.vnpu.profile import load_profile, machine_spec
from npuops.vnpu.session import VnpuRunner, VnpuSession
from npuops.vnpu.tenancy import Priority

NUMPY: Final = "numpy"
ORT_CPU: Final = "ort-cpu"
AUTO: Final = "auto"
NPU: Final = "npu:"
"""Before the name of a virtual device that is up, or of a target that the policy was built for."""
_CONNECT_LIMIT_S: Final = 2.0
_ANSWER_LIMIT_S: Final = 0.25
"""Just before everything that the agent set is put back, because it does not step."""


class Scorer(Protocol):
    """Scores candidates somewhere."""

    @property
    def placement(self) -> str:
        """As on the command line, never `auto`."""
        ...

    def score(self, scene: Scene, levels: NDArray[np.intp]) -> Outlook:
        """What is expected of each candidate; `levels` as from `scorer.encode_levels`.

        Raises:
            DataError: the network answered with numbers that are not finite.
            RunError, DeviceError: the place where it runs refused, or is gone.
        """
        ...

    def close(self) -> None:
        """Give the place back. A second call does nothing."""
        ...


class NumpyScorer:
    """In this process, float32, on the rows that hold tasks only."""

    placement = NUMPY

    def __init__(self, weights: Weights) -> None:
        """Take the weights of the house's network as they are."""
        self._weights = weights

    def score(self, scene: Scene, levels: NDArray[np.intp]) -> Outlook:
        """Any number of candidates at once."""
        faces, waits, switches = forward(self._weights, scene.tasks, scene.history, scene.host, levels, scene.repeats)
        return outlook(scene, faces, waits, switches)

    def close(self) -> None:
        """Nothing is held."""


class SessionScorer:
    """On a runner's session; candidates in batches of the artifact's size.

    Attributes:
        placement: as on the command line.
        inferences: until now.
        modelled_mj: of a virtual device for all of them, above its idle power; None elsewhere.
    """

    def __init__(self, policy: PolicyFolder, placement: str, session: Session, resources: ExitStack) -> None:
        """`open_scorer` makes them."""
        self.placement = placement
        self.inferences = 0
        self.modelled_mj = 0.0 if isinstance(session, VnpuSession) else None
        self._shape, self._batch = policy.card.shape, policy.card.candidates
        self._session: Session | None = session
        self._resources = resources

    @property
    def session(self) -> Session:
        """What it runs on.

        Raises:
            RunError: it was closed.
        """
        if self._session is None:
            raise RunError("this scorer is closed", advice="open the policy again")
        return self._session

    def score(self, scene: Scene, levels: NDArray[np.intp]) -> Outlook:
        """As many inferences as the candidates fill; the last one may be filled up."""
        faces, switches, waits = [], [], None
        for begin in range(0, len(levels), self._batch):
            some = levels[begin : begin + self._batch]
            found = self.session.run(feeds(scene, some, self._shape, self._batch))
            self._count()
            faces.append(found["faces"][0].transpose(1, 2, 0)[: len(some)])
            switches.append(found["switches"].reshape(-1)[: len(some)])
            waits = found["waits"].reshape(-1)
        if waits is None:
            raise UsageError("no candidate to score")
        return outlook(scene, np.concatenate(faces), waits, np.concatenate(switches))

    def _count(self) -> None:
        self.inferences += 1
        if self.modelled_mj is not None and isinstance(self._session, VnpuSession) and self._session.last is not None:
            self.modelled_mj += self._session.last.energy_mj

    def close(self) -> None:
        """Close the session and what it stands on."""
        self._session = None
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_scorer(policy: PolicyFolder, placement: str) -> Scorer:
    """Make the policy ready to score.

    Args:
        policy: verified.
        placement: `numpy`; `ort-cpu` (INT8, one thread of this process); `npu:NAME`, a virtual device that is up, in
            its `idle` class; `npu:TARGET`, as `npu:qnn-htp:sm8650`.

    Raises:
        OptionError: no such placement (`auto` is `placement.auto_placement`'s to resolve).
        IncompatibleArtifactError: the policy was not built for that.
        DeviceError, ToolchainError: it is not there.
    """
    if placement == NUMPY:
        return NumpyScorer(policy.weights)
    if placement == ORT_CPU:
        return _on_target(policy, ORT_CPU, placement)
    if placement.startswith(NPU) and len(placement) > len(NPU):
        name = placement.removeprefix(NPU)
        return _on_target(policy, name, placement) if policy.artifact(name) else _on_device(policy, name, placement)
    raise OptionError(f"no placement {placement!r}", advice=f"{AUTO}, {NUMPY}, {ORT_CPU}, or {NPU}DEVICE")


def _on_target(policy: PolicyFolder, target: str, placement: str) -> SessionScorer:
    path = policy.artifact(target)
    if path is None:
        raise _not_built(policy, target)
    runner = open_target(target).runner
    if runner is None:
        raise UsageError(f"{target} has no device and no emulator on a host", advice=f"take {NUMPY} or {ORT_CPU}")
    with ExitStack() as stack:
        session = runner.open(stack.enter_context(opened(path)))
        stack.callback(session.close)
        return SessionScorer(policy, placement, session, stack.pop_all())


def _on_device(policy: PolicyFolder, device: str, placement: str) -> SessionScorer:
    """Idle harvest: whatever else is asked of the device goes first."""
    with connect(device, priority=Priority.IDLE, timeout_s=_CONNECT_LIMIT_S) as client:
        profile = client.profile
    path = policy.artifact(f"vnpu:{profile}")
    if path is None:
        raise _not_built(policy, f"vnpu:{profile}")
    runner = VnpuRunner(
        spec_of=lambda name: machine_spec(load_profile(name)),
        device=device,
        priority=Priority.IDLE,
        timeout_s=_ANSWER_LIMIT_S,
    )
    with ExitStack() as stack:
        session = runner.open(stack.enter_context(opened(path)))
        stack.callback(session.close)
        return SessionScorer(policy, placement, session, stack.pop_all())


def _not_built(policy: PolicyFolder, target: str) -> IncompatibleArtifactError:
    built = ", ".join(policy.card.artifacts) or "nothing"
    return IncompatibleArtifactError(
        f"the policy {policy.card.name} was not built for {target}, but for {built}",
        advice="schedlab's `build_policy` builds it for more targets",
    )
