"""When the dispatcher looks, and what a look asks for."""

from __future__ import annotations

import math
import threading

import pytest

from bridge import dispatcher as subject
from bridge.idempotency import Upcoming
from tests.bridge.stage import MakeStage, Stage
from tests.bridge.test_broker import wait_until


@pytest.fixture
def stage(make: MakeStage) -> Stage:
    return make("psa", concurrency=5)


def test_the_next_look_is_when_the_next_delivery_is_due(stage: Stage) -> None:
    assert stage.store.upcoming(["psa"]) == Upcoming(math.inf, False, math.inf)
    stage.report(1, 2)
    for number, seconds in ((1, 30), (2, 0.4)):
        due = round((stage.store.now() + seconds) * 1000)
        stage.store.client.zrem(stage.store.key("ready:psa"), number)
        stage.store.client.zadd(stage.store.key("due:psa"), {str(number): due})
    assert stage.store.upcoming(["desk"]).due == math.inf
    assert 0 < stage.store.upcoming(["desk", "psa"]).due <= 0.4
    stage.store.clock_offset += 20
    assert stage.store.upcoming(["psa"]).due < 0


def test_what_is_ready_and_what_is_to_be_probed_is_told_beside(stage: Stage) -> None:
    stage.report(1)
    assert stage.store.upcoming(["desk"]) == Upcoming(math.inf, False, math.inf)
    assert stage.store.upcoming(["psa"]) == Upcoming(math.inf, True, math.inf)
    stage.store.pause("psa", "misconfigured", 3600, "no such board", probe_in=60)
    assert 50 < stage.store.upcoming(["desk", "psa"]).probe <= 60
    stage.store.probe_now("psa")
    assert stage.store.upcoming(["psa"]).probe < 0


def test_a_delivery_is_enqueued_when_it_becomes_due(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "LOOK_EVERY", 100.0)  # beyond the connection's patience: no look would come of itself
    stage.report(1)
    stage.store.client.zrem(stage.store.key("ready:psa"), 1)
    stage.store.client.zadd(stage.store.key("due:psa"), {"1": round((stage.store.now() + 0.5) * 1000)})
    stage.store.client.delete(stage.store.key("wake"))
    assert stage.leadership.attempt()
    stopping = threading.Event()
    thread = threading.Thread(target=stage.dispatcher.run, args=(stopping,))
    thread.start()
    try:
        wait_until(lambda: stage.enqueued == [(1, "psa")], "it is enqueued", within=5)
    finally:
        stopping.set()
        stage.store.wake()
        thread.join(10)


def test_all_that_is_due_is_enqueued_at_once(stage: Stage) -> None:
    batches: list[list[object]] = []
    stage.work()
    stage.store.prove("psa")
    stage.report(1, 2, 3)
    stage.dispatcher.enqueue = lambda jobs: batches.append(list(jobs))
    assert stage.dispatcher.look() == 3
    assert batches == [[(1, "psa"), (2, "psa"), (3, "psa")]]


def test_the_queues_length_is_asked_for_only_when_it_may_be_too_long(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "MOST_QUEUED", 3)
    lengths, asked = [0], []
    stage.dispatcher.backlog = lambda: asked.append(lengths[0]) or lengths[0]  # type: ignore[func-returns-value]
    assert stage.leadership.attempt()
    stage.dispatcher.look()
    assert asked == [0], "another process may have enqueued before"
    stage.store.prove("psa")
    stage.report(1, 2, 3, 4)
    assert stage.dispatcher.look() == 4
    assert asked == [0]
    lengths[0] = 4
    stage.report(5)
    assert stage.dispatcher.look() == 0
    waits: list[float] = []
    stage.dispatcher._wait = lambda seconds: bool(waits.append(seconds))  # type: ignore[method-assign, func-returns-value]
    stage.dispatcher._sleep(threading.Event())
    assert waits == [subject.LOOK_EVERY], "it is no use to look again at once"
    lengths[0] = 2
    assert stage.dispatcher.look() == 1
    assert asked == [0, 4, 2]


def test_while_nothing_is_due_it_looks_seldom(stage: Stage) -> None:
    now, waits = [0.0], list[float]()

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        now[0] += seconds
        return False

    dispatcher = stage.dispatcher
    assert stage.leadership.attempt()
    dispatcher.clock = lambda: now[0]
    dispatcher._wait = wait  # type: ignore[method-assign]
    dispatcher._sleep(threading.Event())
    assert sum(waits) == subject.IDLE_LOOK, "a clock that was set is noticed by then"


def test_a_wake_that_was_lost_is_made_up_for_within_a_second(stage: Stage) -> None:
    waits: list[float] = []

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        stage.report(1)
        stage.store.client.delete(stage.store.key("wake"))
        return False

    assert stage.leadership.attempt()
    stage.dispatcher._wait = wait  # type: ignore[method-assign]
    stage.dispatcher._sleep(threading.Event())
    assert waits == [subject.LOOK_EVERY]
    stage.store.prove("psa")
    assert stage.dispatcher.look() == 1


def test_a_probe_that_is_due_is_made_without_asking_for_it_again_and_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "PROBE_LOOK", 100.0)
    stage.store.pause("psa", "misconfigured", 3600, "no such board", probe_in=60)
    stage.store.probe_now("psa")
    assert stage.leadership.attempt()
    stopping = threading.Event()
    thread = threading.Thread(target=stage.dispatcher.run, args=(stopping,))
    thread.start()
    try:
        wait_until(lambda: stage.store.paused("psa") is None, "the connector serves again", within=5)
    finally:
        stopping.set()
        stage.store.wake()
        thread.join(10)
    assert not thread.is_alive()
