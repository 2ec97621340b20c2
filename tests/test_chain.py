"""Chains are planned, or refused with the step and the tensor that do not fit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npuops.errors import NotServedError, OptionError
from npuops.runtime.chain import ChainPlan, circle, plan_chain, read_chain
from npuops.runtime.signature import Port, Shape, Signature


def port(name: str, *shape: int, dtype: str = "float32") -> Port:
    return Port(name=name, dtype=dtype, shape=shape)


def signature(takes: Port, *gives: Port, batched: bool = True, max_rows: int = 8) -> Signature:
    return Signature(inputs=(takes,), outputs=gives, batched=batched, max_rows=max_rows if batched else 1)


MODELS = {
    "embed": signature(port("x", -1, 3), port("e", -1, 4), port("extra", -1, 9), max_rows=16),
    "head": signature(port("v", -1, 4), port("y", -1, 2)),
    "wide": signature(port("v", -1, 5), port("y", -1, 2)),
    "flat": signature(port("v", -1), port("y", -1, 2)),
    "whole": signature(port("v", -1, 4, dtype="int64"), port("y", -1, 2)),
    "one": signature(port("v", 1, 4), port("y", 1, 2), batched=False),
    "any": Signature(
        inputs=(Port(name="v", dtype="float32", shape=None),),
        outputs=(Port(name="y", dtype="float32", shape=None),),
        batched=False,
        max_rows=1,
    ),
}


def find(model: str, version: str) -> Signature:
    del version
    if model not in MODELS:
        raise NotServedError(f"no model {model!r} is served")
    return MODELS[model]


def plan(text: str) -> ChainPlan:
    return plan_chain(read_chain(text, where="chain.toml"), find, where="chain.toml")


def two(second: str = "head", **changes: str) -> str:
    values = {
        "inputs": '["picture"]',
        "outputs": '["answer"]',
        "first_takes": '{ x = "picture" }',
        "first_gives": '{ e = "between" }',
        "second_takes": '{ v = "between" }',
        "second_gives": '{ y = "answer" }',
        **changes,
    }
    return f"""
        inputs = {values["inputs"]}
        outputs = {values["outputs"]}
        [[step]]
        model = "{second}"
        inputs = {values["second_takes"]}
        outputs = {values["second_gives"]}
        [[step]]
        model = "embed"
        inputs = {values["first_takes"]}
        outputs = {values["first_gives"]}
    """


def test_steps_come_after_what_they_need_and_the_outside_has_the_chains_names() -> None:
    made = plan(two())
    assert [step.model for step in made.steps] == ["embed", "head"]
    assert made.steps[0].gives == ("between", "")
    assert made.signature == Signature(
        inputs=(port("picture", -1, 3),), outputs=(port("answer", -1, 2),), batched=True, max_rows=8
    )


def test_an_inner_tensor_may_be_an_output_too() -> None:
    made = plan(two(outputs='["answer", "between"]'))
    assert made.signature.outputs == (port("answer", -1, 2), port("between", -1, 4))


def test_a_model_of_one_row_makes_a_chain_of_one_row() -> None:
    made = plan(two("one", outputs='["answer", "between"]'))
    assert (made.signature.batched, made.signature.max_rows) == (False, 1)
    assert made.signature.outputs[1] == port("between", 1, 4), "the stricter end says what passes"


def test_a_model_that_takes_any_shape_fits_everywhere() -> None:
    assert plan(two("any", outputs='["answer", "between"]')).signature.outputs[1] == port("between", -1, 4)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (two("wide"), r"'between' is \[-1, 5\] at step 'wide' and \[-1, 4\] at step 'embed'|\[-1, 4\].*\[-1, 5\]"),
        (two("flat"), "'between'"),
        (two("whole"), "int64"),
        (two(second_takes='{ w = "between" }'), "has no input 'w'"),
        (two(second_gives='{ z = "answer" }'), "has no output 'z'"),
        (two(second_takes="{ }"), "nothing for the model's input 'v'"),
        (two(second_takes='{ v = "betwixt" }'), "'betwixt', which nothing makes"),
        (two(second_gives='{ y = "between" }'), "too"),
        (two(second_gives='{ y = "picture" }'), "a request brings it"),
        (two(outputs='["other"]'), "'other' is made by no step"),
        (two(inputs='["picture", "spare"]'), "no step takes the input 'spare'"),
        (two(first_takes='{ x = "answer" }', first_gives='{ e = "between" }'), "in a circle"),
    ],
)
def test_what_does_not_fit_is_named(text: str, words: str) -> None:
    with pytest.raises(OptionError, match=words) as caught:
        plan(text)
    assert caught.value.message.startswith("chain.toml: ")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("inputs = [", "not TOML"),
        ('inputs = ["a"]\noutputs = ["b"]', "one \\[\\[step\\]\\]"),
        ('inputs = ["a", "a"]\noutputs = ["b"]\n[[step]]\nmodel = "m"\ninputs = {}\noutputs = {}', "twice"),
        ('inputs = ["a"]\noutputs = ["b"]\nsteps = 3', "unknown key 'steps'"),
        ('inputs = ["a"]\noutputs = ["b"]\n[[step]]\nmodle = "m"', "unknown key 'modle'"),
        ('inputs = ["a"]\noutputs = ["b"]\n[[step]]\nmodel = "m"\noutputs = {}', "inputs"),
    ],
)
def test_a_file_that_is_no_chain_is_refused(text: str, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        read_chain(text, where="chain.toml")


def test_a_model_that_is_not_served_is_the_repositorys_own_answer() -> None:
    with pytest.raises(NotServedError, match=r"^step 'missing': "):
        plan(two("missing"))


def test_the_models_of_a_chain_are_known_before_it_is_planned() -> None:
    assert read_chain(two(), where="x").models == ("head", "embed")


def test_circles_of_chains_are_named() -> None:
    assert circle("outer", {"outer": ["middle", "model", "inner"], "middle": ["inner"], "inner": ["model"]}) == ()
    needs = {"a": ["b"], "b": ["m", "c"], "c": ["a"], "outside": ["b"]}
    assert circle("a", needs) == ("a", "b", "c", "a")
    assert circle("outside", needs) == ("b", "c", "a", "b")
    assert circle("self", {"self": ["self"]}) == ("self", "self")


SHAPES = st.lists(st.sampled_from([-1, 1, 4]), max_size=3).map(tuple)


@given(SHAPES, SHAPES)
def test_ends_fit_exactly_when_some_tensor_has_both_shapes(gives: Shape, takes: Shape) -> None:
    models = {
        "a": Signature(inputs=(port("x", 2),), outputs=(port("m", *gives),), batched=False, max_rows=1),
        "b": Signature(inputs=(port("m", *takes),), outputs=(port("y", 2),), batched=False, max_rows=1),
    }
    text = """
        inputs = ["x"]
        outputs = ["y", "m"]
        step = [
            { model = "a", inputs = { x = "x" }, outputs = { m = "m" } },
            { model = "b", inputs = { m = "m" }, outputs = { y = "y" } },
        ]
    """
    fits = len(gives) == len(takes) and all(-1 in {a, b} or a == b for a, b in zip(gives, takes, strict=True))
    options = read_chain(text, where="t")
    if not fits:
        with pytest.raises(OptionError):
            plan_chain(options, lambda model, _: models[model], where="t")
        return
    between = plan_chain(options, lambda model, _: models[model], where="t").signature.outputs[1].shape
    assert between == tuple(max(a, b) for a, b in zip(gives, takes, strict=True))
