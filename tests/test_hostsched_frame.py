"""What a frame says of the CPUs that its tasks share."""

from __future__ import annotations

from hostsched_frames import Actor, Stage


def test_tasks_that_are_all_pinned_share_only_their_own_cpus() -> None:
    assert Stage(Actor("a", cpus=1), Actor("b", cpus=1), cpus=4).frame().cpus == 1
    assert Stage(Actor("a", cpus=1), Actor("b", cpus=3), cpus=4).frame().cpus == 3


def test_a_frame_without_tasks_has_those_of_the_host() -> None:
    assert Stage(cpus=4).frame().cpus == 4


def test_a_task_that_may_run_on_cpus_that_are_offline_does_not_count_them() -> None:
    assert Stage(Actor("a", cpus=8), cpus=4).frame().cpus == 4
