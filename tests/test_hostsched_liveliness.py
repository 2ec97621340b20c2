from __future__ import annotations

from hostsched_frames import Actor, Stage
from npuops.eevdf.setting import Setting
from npuops.hostsched.hint import Hint, Kind
from npuops.hostsched.liveliness import LATELY_US, Liveliness
from npuops.hostsched.plan import Orders


def told(missed: int) -> Hint:
    return Hint(0, Kind.LATENCY, slo_us=2000, served=100, missed=missed)


def test_it_is_lively_for_a_while_after_orders_changed_if_somebody_is_served() -> None:
    stage, liveliness = Stage(Actor("a")), Liveliness()
    quiet = Orders({stage.id("a"): None}, {})
    busy = Orders({stage.id("a"): Setting(nice=5)}, {})
    assert not liveliness.lively(stage.look().frame, quiet), "nobody is served"
    assert liveliness.lively(stage.look().frame, busy)
    assert liveliness.lively(stage.look(LATELY_US).frame, busy)
    assert not liveliness.lively(stage.look().frame, busy), "all is as it was"


def test_a_late_answer_is_a_change() -> None:
    app = Actor("a", hint=told(0))
    stage, liveliness = Stage(app), Liveliness()
    orders = Orders({stage.id("a"): None}, {})
    liveliness.lively(stage.look().frame, orders)
    assert not liveliness.lively(stage.look(2 * LATELY_US).frame, orders)
    app.hint = told(1)
    assert liveliness.lively(stage.look().frame, orders)


def test_where_nobody_decides_nothing_is_lively() -> None:
    assert not Liveliness().lively(Stage(Actor("a", hint=told(0))).look().frame, None)
