"""A whole mix in the simulator under a policy, as it would go on the real machine under the agent."""

from __future__ import annotations

from collections.abc import Collection

from npuops.eevdf.mix import Mix
from npuops.eevdf.rules import Rules
from npuops.hostsched.features import Features
from npuops.hostsched.guard import Guard
from npuops.hostsched.orders import orders_for
from npuops.hostsched.plan import Policy
from npuops.schedlab.recording import Recording
from npuops.schedlab.simulated_host import SimulatedHost
from npuops.schedlab.simulated_play import PhaseBook


def play_under(
    policy: Policy,
    mix: Mix,
    seed: int,
    rules: Rules,
    *,
    telling: Collection[str] = (),
    pinned: bool = False,
    guard: Guard | None = None,
    period_us: int = 20_000,
) -> Recording:
    """Look, decide, act, until the mix ends.

    Args:
        policy: decides.
        mix: who does what.
        seed: of its arrivals.
        rules: of the simulated kernel.
        telling: players that send hints.
        pinned: as of `SimulatedHost`.
        guard: refuses; None lets everything pass.
        period_us: between looks.
    """
    host = SimulatedHost(mix, seed, rules, telling=telling, pinned=pinned)
    return play_on(host, seed, policy, guard=guard, period_us=period_us)


def play_on(
    host: SimulatedHost, seed: int, policy: Policy, *, guard: Guard | None = None, period_us: int = 20_000
) -> Recording:
    """The same on a host at its first instant; `seed` is that of its arrivals."""
    mix, features = host.mix, Features()
    book = PhaseBook(mix, seed)
    for moment_us in range(period_us, mix.duration_us, period_us):
        book.run_until(host.simulation, moment_us * 1000)
        state = features.update(host.frame())
        plan = policy.decide(state)
        if guard is not None:
            plan = guard.check(state, plan).plan
        host.apply(orders_for(plan, state.frame))
    return book.recording(host.simulation)
