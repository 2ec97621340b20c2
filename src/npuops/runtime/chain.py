"""Chains of models: what flows from which to which, planned and refused before anything runs.

inputs = ["picture"]                  # tensors that a request brings
outputs = ["label"]                   # tensors that its answer holds
[[step]]
model = "detector"
inputs = { image = "picture" }        # the model's input = the chain's tensor
outputs = { boxes = "boxes" }         # the model's output = the chain's tensor
[[step]]
model = "classifier"
version = "2"                         # the default one where it is left out
inputs = { boxes = "boxes" }
outputs = { best = "label" }
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from npuops.config import read_options, read_toml
from npuops.errors import OptionError, ServingError, nearest
from npuops.runtime.signature import Port, Shape, Signature

FindSignature = Callable[[str, str], Signature]
"""(model, version or "") → what it takes and gives; raises NotServedError or NotReadyError where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainStep:
    """One model of a chain.

    Attributes:
        version: "" for the model's default.
        inputs: the model's input → the chain's tensor; every input of the model.
        outputs: the model's output → the chain's tensor; those that the chain uses.
    """

    model: str
    version: str = ""
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainOptions:
    """What `chain.toml` says.

    Attributes:
        inputs: tensors that a request brings, in the order in which metadata shows them.
        outputs: tensors that its answer holds.
        step: the models, in any order.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    step: tuple[ChainStep, ...] = field(default=())

    def __post_init__(self) -> None:
        """Refuse what has no meaning whatever the models are.

        Raises:
            OptionError: nothing to do, or a tensor that is listed twice.
        """
        if not self.step or not self.inputs or not self.outputs:
            raise OptionError("a chain needs inputs, outputs, and one [[step]] or more")
        for what, names in (("inputs", self.inputs), ("outputs", self.outputs)):
            if len(set(names)) < len(names):
                raise OptionError(f"the {what} of a chain name a tensor twice")

    @property
    def models(self) -> tuple[str, ...]:
        """The models that it needs, each once."""
        return tuple(dict.fromkeys(step.model for step in self.step))


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStep:
    """One model of a chain, with its tensors in the model's order.

    Attributes:
        signature: that the plan was made for.
        takes: the chain's tensor for each of the model's inputs.
        gives: the chain's tensor for each of the model's outputs; "" where the chain does not use it.
    """

    model: str
    version: str
    signature: Signature
    takes: tuple[str, ...]
    gives: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainPlan:
    """A chain whose tensors all fit.

    Attributes:
        signature: as clients see it.
        steps: each after all that it needs.
    """

    signature: Signature
    steps: tuple[PlannedStep, ...]


@dataclass(frozen=True, slots=True)
class _End:
    """A tensor at one of its ends."""

    port: Port
    where: str


def read_chain(text: str, *, where: str) -> ChainOptions:
    """The options in a `chain.toml`.

    Raises:
        OptionError: no TOML, an unknown or missing key, or a chain that has no meaning.
    """
    return read_options(ChainOptions, read_toml(text, where=where), where=where, advice="see docs/pipelines.md")


def plan_chain(options: ChainOptions, find: FindSignature, *, where: str) -> ChainPlan:
    """Fit the models together.

    Args:
        options: of the chain.
        find: signatures of the models as they are served now.
        where: begins every error, for example the file.

    Raises:
        OptionError: an unknown or missing tensor, one that two steps make, a circle, or ends that do not fit; every
            message names the step and the tensor.
        ServingError: as `find`, where a model is not served (yet).
    """
    try:
        steps = [_planned(step, _found(step, find)) for step in options.step]
        makers = _makers(options, steps)
        ordered = _in_order(options, steps, makers)
        signature = _outside(options, ordered)
    except OptionError as error:
        raise OptionError(f"{where}: {error.message}", advice=error.advice) from error
    return ChainPlan(signature=signature, steps=tuple(ordered))


def circle(name: str, needs: Mapping[str, Collection[str]]) -> tuple[str, ...]:
    """The chains that a chain waits for, and that wait for each other: the first one again at the end. () is none.

    Args:
        name: of the chain to begin with.
        needs: chain → the models in it; those that are no chains do not matter.
    """
    return _circle(name, needs, (), set())


def _circle(name: str, needs: Mapping[str, Collection[str]], path: tuple[str, ...], done: set[str]) -> tuple[str, ...]:
    if name in path:
        return (*path[path.index(name) :], name)
    if name in done or name not in needs:
        return ()
    for inner in needs[name]:
        found = _circle(inner, needs, (*path, name), done)
        if found:
            return found
    done.add(name)
    return ()


def _found(step: ChainStep, find: FindSignature) -> Signature:
    try:
        return find(step.model, step.version)
    except ServingError as error:
        raise type(error)(f"step {step.model!r}: {error.message}", advice=error.advice) from error


def _planned(step: ChainStep, signature: Signature) -> PlannedStep:
    for what, mapping, ports in (("input", step.inputs, signature.inputs), ("output", step.outputs, signature.outputs)):
        names = [port.name for port in ports]
        for name in mapping:
            if name not in names:
                raise OptionError(f"step {step.model!r}: the model has no {what} {name!r}", advice=nearest(name, names))
    missing = [port.name for port in signature.inputs if port.name not in step.inputs]
    if missing:
        raise OptionError(
            f"step {step.model!r} has nothing for the model's input {missing[0]!r}",
            advice=f'add it: inputs = {{ {missing[0]} = "…" }}',
        )
    return PlannedStep(
        model=step.model,
        version=step.version,
        signature=signature,
        takes=tuple(step.inputs[port.name] for port in signature.inputs),
        gives=tuple(step.outputs.get(port.name, "") for port in signature.outputs),
    )


def _makers(options: ChainOptions, steps: Sequence[PlannedStep]) -> dict[str, int]:
    """Tensor → the step that makes it; -1 for what a request brings."""
    makers = dict.fromkeys(options.inputs, -1)
    for index, step in enumerate(steps):
        for name in filter(None, step.gives):
            if name in makers:
                other = "a request brings it" if makers[name] < 0 else f"step {steps[makers[name]].model!r} makes it"
                raise OptionError(f"step {step.model!r} makes the tensor {name!r}, and {other}, too")
            makers[name] = index
    return makers


def _in_order(options: ChainOptions, steps: Sequence[PlannedStep], makers: Mapping[str, int]) -> list[PlannedStep]:
    for step in steps:
        for name in step.takes:
            if name not in makers:
                raise OptionError(
                    f"step {step.model!r} takes the tensor {name!r}, which nothing makes", advice=nearest(name, makers)
                )
    for name in options.outputs:
        if name not in makers:
            raise OptionError(f"the output {name!r} is made by no step", advice=nearest(name, makers))
    left = {index: {makers[name] for name in step.takes} - {-1} for index, step in enumerate(steps)}
    ordered: list[PlannedStep] = []
    while left:
        ready = [index for index, needed in left.items() if not needed & left.keys()]
        if not ready:
            names = ", ".join(repr(steps[index].model) for index in left)
            raise OptionError(f"the steps {names} wait for each other in a circle")
        ordered += [steps[index] for index in ready]
        for index in ready:
            del left[index]
    return ordered


def _outside(options: ChainOptions, steps: Sequence[PlannedStep]) -> Signature:
    batched = all(step.signature.batched for step in steps)
    ports: dict[str, _End] = {}
    for step in steps:
        sides = ((step.gives, step.signature.outputs), (step.takes, step.signature.inputs))
        for names, ends in sides:
            for name, port in zip(names, ends, strict=True):
                if name:
                    end = _End(port, f"step {step.model!r}")
                    ports[name] = _fitting(name, ports.get(name), end)
    unused = [name for name in options.inputs if name not in ports]
    if unused:
        raise OptionError(f"no step takes the input {unused[0]!r}", advice="leave it away")
    return Signature(
        inputs=tuple(replace(ports[name].port, name=name) for name in options.inputs),
        outputs=tuple(replace(ports[name].port, name=name) for name in options.outputs),
        batched=batched,
        max_rows=min(step.signature.max_rows for step in steps) if batched else 1,
    )


def _fitting(name: str, one: _End | None, two: _End) -> _End:
    """The end that says more of the shape, if both can be the same tensor."""
    if one is None:
        return two
    if one.port.dtype != two.port.dtype:
        raise OptionError(
            f"the tensor {name!r} is {one.port.dtype} at {one.where} and {two.port.dtype} at {two.where}",
            advice="cast it in one of the models",
        )
    shape = _common(one.port.shape, two.port.shape)
    if shape is None and one.port.shape is not None and two.port.shape is not None:
        raise OptionError(
            f"the tensor {name!r} is {list(one.port.shape)} at {one.where} and {list(two.port.shape)} at {two.where}",
            advice="-1 stands for any size",
        )
    return _End(replace(one.port, shape=shape), one.where)


def _common(one: Shape | None, two: Shape | None) -> Shape | None:
    """What both allow; None where nothing is, or nothing is known."""
    if one is None or two is None:
        return one if two is None else two
    if len(one) != len(two) or any(-1 not in {a, b} and a != b for a, b in zip(one, two, strict=True)):
        return None
    return tuple(max(a, b) for a, b in zip(one, two, strict=True))
