"""Training: from samples to weights. The same seed and samples give the same weights on the same machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from npuops.clock import Clock, SystemClock
from npuops.errors import DataError, OptionError
from npuops.events import Event, Observer, StepFinished, StepProgressed, StepStarted, ignore
from npuops.hostsched.familiarity import ranges_of
from npuops.hostsched.objective import WEIGHTS
from npuops.hostsched.policy_card import Data, Trained, card_ranges
from npuops.hostsched.scorer import SHAPE, STATE_COLUMNS
from npuops.hostsched.scorer_network import NetworkShape, Weights
from npuops.schedlab.decisions import expect, judged, quality, truth
from npuops.schedlab.network import forward_many, fresh_weights
from npuops.schedlab.samples import Samples
from npuops.targets.child import call, progress

STEP: Final = "fit"
_SURE: Final = 0.003
"""Targets are kept this far from 0 and 1: logits stay within 6, which eight bits can tell apart."""
_PROGRESS_BEND: Final = 0.1
_SWITCHES_BEND: Final = 0.5
_TEMPERATURE: Final = 0.05
"""Worths that differ by less than this are hardly told apart by the ranking loss."""
_BETA: Final = (0.9, 0.99)
_EPSILON: Final = 1e-8
_PARTS: Final = tuple(field.name for field in fields(Samples) if field.name != "mix")
"""What the loss looks at; the numbers of the mixes it must not see."""
_CHUNK: Final = 128
"""States scored at once where nothing is learned; bounds the memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FitOptions:
    """How to train.

    Attributes:
        seed: of weights, order and split.
        epochs: at most.
        batch: states in a step.
        rate: of learning, at its highest; it rises over one epoch and falls like a cosine.
        decay: AdamW's, of matrices.
        patience: epochs without a better validation loss before it stops.
        held_out: share of the mixes that only validates.
        miss, progress, waits, switches, rank: how much each part of the loss counts. `rank` is about which candidate
            of a state is the best; the others are about the numbers.
    """

    seed: int = 0
    epochs: int = 60
    batch: int = 64
    rate: float = 3e-3
    decay: float = 1e-3
    patience: int = 8
    held_out: float = 0.2
    miss: float = 1.0
    progress: float = 3.0
    waits: float = 0.3
    switches: float = 0.05
    rank: float = 0.3

    def __post_init__(self) -> None:
        """Refuse what trains nothing.

        Raises:
            OptionError: a value out of bounds.
        """
        if min(self.epochs, self.batch, self.patience) < 1 or not 0 < self.held_out < 1:
            raise OptionError("epochs, batch and patience are at least 1, held_out is between 0 and 1")
        if min(self.rate, self.decay, self.miss, self.progress, self.waits, self.switches, self.rank) < 0:
            raise OptionError("rate, decay and the parts of the loss are not negative")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Fitted:
    """What came out.

    Attributes:
        weights: of the epoch with the lowest validation loss.
        shape: of the network.
        metrics: of the validation mixes; `decisions.quality`, with hints and (`untold_…`) without, and the losses.
        held_out: numbers of the mixes that were never trained on, rising.
        epochs: trained until it stopped.
    """

    weights: Mapping[str, NDArray[np.float32]]
    shape: NetworkShape
    metrics: Mapping[str, float]
    held_out: NDArray[np.int32]
    epochs: int


def fit(
    samples: Samples,
    options: FitOptions | None = None,
    *,
    shape: NetworkShape = SHAPE,
    start: Weights | None = None,
    observe: Observer = ignore,
    clock: Clock | None = None,
) -> Fitted:
    """Train the scorer.

    Args:
        samples: of two mixes at least.
        options: how.
        shape: of the network.
        start: weights to go on from (DAgger); fresh ones if left out.
        observe: gets a `StepProgressed` for each epoch.
        clock: measures the step.

    Raises:
        DataError: samples of another network, of one mix only, or training that ended in numbers that are not finite.
    """
    options, clock = options or FitOptions(), clock or SystemClock()
    samples.check(shape)
    train, valid, held_out = split(samples, options)
    began_us = clock.now_us()
    observe(StepStarted(step=STEP, detail=f"{len(train)} states, {shape.parameters} parameters"))
    begin = start or fresh_weights(shape, options.seed)
    shape.check(begin)
    weights: Weights = {name: jnp.asarray(array) for name, array in begin.items()}
    training = _Training(options, weights, max(len(train) // options.batch, 1))
    best, best_loss, since = weights, _loss_of(weights, valid, options), 0
    random = np.random.default_rng([options.seed, 1])
    epoch = 0
    for epoch in range(1, options.epochs + 1):
        for rows in _batches(len(train), options.batch, random):
            weights = training.step(weights, train.rows(rows))
        loss = _loss_of(weights, valid, options)
        best, best_loss, since = (weights, loss, 0) if loss < best_loss else (best, best_loss, since + 1)
        detail = f"validation loss {loss:.4f}, best {best_loss:.4f}"
        observe(StepProgressed(step=STEP, done=epoch, total=options.epochs, detail=detail))
        if since >= options.patience or not np.isfinite(loss):
            break
    if not np.isfinite(best_loss):
        raise DataError("training ended in numbers that are not finite", advice="a lower rate, or other samples")
    found = {name: np.asarray(array, np.float32) for name, array in best.items()}
    metrics = {"loss": best_loss, "train_loss": _loss_of(best, train, options), **_decisions(valid, found)}
    words = f"{epoch} epochs, {metrics['captured']:.0%} of the possible gain on held-out mixes"
    observe(StepFinished(step=STEP, seconds=(clock.now_us() - began_us) / 1e6, detail=words))
    return Fitted(weights=found, shape=shape, metrics=metrics, held_out=held_out, epochs=epoch)


def fit_apart(
    samples: Samples,
    options: FitOptions | None = None,
    *,
    shape: NetworkShape = SHAPE,
    start: Weights | None = None,
    observe: Observer = ignore,
    timeout_s: float = 7200.0,
) -> Fitted:
    """`fit` in a process of its own: a process in which JAX has run must not fork, and keeps JAX's memory.

    Raises:
        DataError: as `fit`.
        ToolchainTimeoutError: it did not end in time.
        ToolchainCrashError: it was killed, as by a machine without enough memory.
    """
    arguments = {"samples": samples, "options": options, "shape": shape, "start": start}
    reply = call(_fit_and_tell, arguments, what="training", timeout_s=timeout_s, observe=observe)
    found: Fitted = reply.value
    return found


def _fit_and_tell(samples: Samples, options: FitOptions | None, shape: NetworkShape, start: Weights | None) -> Fitted:
    def tell(event: Event) -> None:
        if isinstance(event, StepProgressed):
            progress(event.step, event.done, event.total, event.detail)

    return fit(samples, options, shape=shape, start=start, observe=tell)


def split(samples: Samples, options: FitOptions) -> tuple[Samples, Samples, NDArray[np.int32]]:
    """Training and validation, by mix: states of one mix are too much alike to tell anything about another.

    Each mix is drawn by itself: what validated once goes on validating when others join (DAgger).

    Raises:
        DataError: one mix only.
    """
    mixes = np.unique(samples.mix)
    if len(mixes) < 2:
        raise DataError("samples of one mix cannot be split", advice="make samples of many mixes")
    draws = np.array([np.random.default_rng([options.seed, 2, int(mix)]).random() for mix in mixes])
    ranked = mixes[np.argsort(draws, kind="stable")]
    count = min(max(int((draws < options.held_out).sum()), 1), len(mixes) - 1)
    held_out = np.sort(ranked[:count])
    out = np.isin(samples.mix, held_out)
    return samples.rows(~out), samples.rows(out), held_out


def trained(fitted: Fitted, samples: Samples, options: FitOptions, source: str) -> Trained:
    """What the card says of a training."""
    here = samples.tasks[:, :, 0] > 0
    data = Data(
        source=source,
        digest=samples.digest,
        states=len(samples),
        candidates=samples.candidates,
        mixes=len(np.unique(samples.mix)),
    )
    return Trained(
        data=data,
        seed=options.seed,
        metrics={name: float(value) for name, value in sorted(fitted.metrics.items())},
        ranges=card_ranges(ranges_of(samples.tasks[here][:, STATE_COLUMNS], samples.host)),
    )


def _decisions(valid: Samples, weights: Weights) -> dict[str, float]:
    real, seen = truth(valid), expect(weights, valid)
    untold = quality(real, judged(valid, seen, told=False))
    return {**quality(real, judged(valid, seen)), **{f"untold_{name}": value for name, value in untold.items()}}


_Arrays = Mapping[str, Any]


def _arrays(samples: Samples) -> _Arrays:
    return {name: getattr(samples, name) for name in _PARTS}


@jax.jit
def _forward(weights: Weights, given: _Arrays) -> tuple[Any, Any, Any]:
    levels = given["levels"].astype(jnp.int32)
    found: tuple[Any, Any, Any] = forward_many(weights, given["tasks"], given["history"], given["host"], levels)
    return found


def _loss(weights: Weights, given: _Arrays, options: FitOptions) -> Any:
    faces, waits, switches = _forward(weights, given)
    logit, progress = faces[..., 0], faces[..., 1]
    parts = (
        options.miss * _mean(_cross_entropy(logit, given["miss"]), given["miss_weight"]),
        options.progress * _mean(_huber(progress - given["progress"], _PROGRESS_BEND), given["progress_weight"]),
        options.waits * _mean(_cross_entropy(waits, given["waits"]), given["waits_weight"]),
        options.switches * jnp.mean(_huber(switches - given["switches"], _SWITCHES_BEND)),
        options.rank * _ranking(jax.nn.sigmoid(logit), progress, given),
    )
    return sum(parts)


def _ranking(miss: Any, progress: Any, given: _Arrays) -> Any:
    """Cross-entropy between which candidate is the best and which one the network would take, both softened."""
    wanted = jax.nn.softmax(_worth(given["miss"], given["progress"], given) / _TEMPERATURE, axis=1)
    found = jax.nn.log_softmax(_worth(miss, progress, given) / _TEMPERATURE, axis=1)
    entropy = -(wanted * jnp.log(jnp.maximum(wanted, 1e-12))).sum(axis=1)
    return jnp.mean(-(wanted * found).sum(axis=1) - entropy)


def _worth(miss: Any, progress: Any, given: _Arrays) -> Any:
    """`objective.worth` of samples; written again because that one is NumPy's. A test holds the two together."""
    weight = given["miss_weight"]
    missed = (miss * weight).sum(axis=2) / jnp.maximum(weight.sum(axis=2), 1e-6)
    slowest = jnp.where(given["progress_weight"] > 0, progress, jnp.inf).min(axis=2)
    slowest = jnp.where(jnp.isinf(slowest), 1.0, slowest)
    short = jnp.maximum(WEIGHTS.floor - slowest, 0.0)
    return WEIGHTS.progress * jnp.minimum(slowest, 1.0) - missed - WEIGHTS.below_floor * short


def _cross_entropy(logits: Any, share: Any) -> Any:
    wanted = jnp.clip(share, _SURE, 1 - _SURE)
    return jnp.maximum(logits, 0) - logits * wanted + jnp.log1p(jnp.exp(-jnp.abs(logits)))


def _huber(error: Any, bend: float) -> Any:
    size = jnp.abs(error)
    return jnp.where(size < bend, 0.5 * size**2 / bend, size - 0.5 * bend)


def _mean(values: Any, weights: Any) -> Any:
    return (values * weights).sum() / jnp.maximum(weights.sum(), 1e-6)


@partial(jax.jit, static_argnums=2)
def _loss_jit(weights: Weights, given: _Arrays, options: FitOptions) -> Any:
    return _loss(weights, given, options)


def _loss_of(weights: Weights, samples: Samples, options: FitOptions) -> float:
    total = 0.0
    for begin in range(0, len(samples), _CHUNK):
        some = samples.rows(np.arange(begin, min(begin + _CHUNK, len(samples))))
        total += float(_loss_jit(weights, _arrays(some), options)) * len(some)
    return total / len(samples)


def _batches(count: int, size: int, random: np.random.Generator) -> list[NDArray[np.intp]]:
    """All states once, in a new order; what is left over at the end waits for the next epoch."""
    order = random.permutation(count)
    size = min(size, count)
    return [order[begin : begin + size] for begin in range(0, count - size + 1, size)]


class _Training:
    """AdamW (Loshchilov and Hutter), with a rate that rises over one epoch and falls like half a cosine."""

    def __init__(self, options: FitOptions, weights: Weights, steps_of_an_epoch: int) -> None:
        self._options = options
        self._warm = max(steps_of_an_epoch, 1)
        self._all = max(options.epochs * steps_of_an_epoch, self._warm + 1)
        zeros = {name: jnp.zeros_like(array) for name, array in weights.items()}
        self._first, self._second, self._steps = zeros, zeros, 0

    def step(self, weights: Weights, samples: Samples) -> Weights:
        """New weights."""
        self._steps += 1
        falling = 0.5 * (1 + np.cos(np.pi * min(self._steps / self._all, 1.0)))
        rate = self._options.rate * min(self._steps / self._warm, 1.0) * falling
        moments, given = (self._first, self._second), _arrays(samples)
        moved, self._first, self._second = _moved(weights, *moments, given, rate, float(self._steps), self._options)
        return dict(moved)


@partial(jax.jit, static_argnums=6)
def _moved(
    weights: Weights, first: Weights, second: Weights, given: _Arrays, rate: Any, step: Any, options: FitOptions
) -> Any:
    slopes = jax.grad(_loss)(weights, given, options)
    norm = jnp.sqrt(sum((slope**2).sum() for slope in slopes.values()))
    clipped = {name: slope * jnp.minimum(1.0, 1.0 / (norm + 1e-6)) for name, slope in slopes.items()}
    one, two = _BETA
    first = {name: one * first[name] + (1 - one) * slope for name, slope in clipped.items()}
    second = {name: two * second[name] + (1 - two) * slope**2 for name, slope in clipped.items()}
    moved = {}
    for name, array in weights.items():
        towards = first[name] / (1 - one**step) / (jnp.sqrt(second[name] / (1 - two**step)) + _EPSILON)
        decayed = options.decay * array if array.ndim > 1 else 0.0
        moved[name] = array - rate * (towards + decayed)
    return moved, first, second
