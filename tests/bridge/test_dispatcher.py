"""When the dispatcher looks, and what a look asks for."""

from __future__ import annotations

import math
import threading

import pytest

from bridge import dispatcher as subject
from tests.bridge.stage import MakeStage, Stage
from tests.bridge.test_broker import wait_until


@pytest.fixture
def stage(make: MakeStage) -> Stage:
    return make("psa", concurrency=5)


def test_the_next_look_is_when_the_next_delivery_is_due(stage: Stage) -> None:
    assert stage.store.next_due(["psa"]) == math.inf
    stage.report(1, 2)
    for number, seconds in ((1, 30), (2, 0.4)):
        due = round((stage.store.now() + seconds) * 1000)
        stage.store.client.zrem(stage.store.key("ready:psa"), number)
        stage.store.client.zadd(stage.store.key("due:psa"), {str(number): due})
    assert stage.store.next_due(["desk"]) == math.inf
    assert 0 < stage.store.next_due(["desk", "psa"]) <= 0.4
    stage.store.clock_offset += 20
    assert stage.store.next_due(["psa"]) < 0


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
    assert stage.dispatcher._until_due() == subject.LOOK_EVERY, "it is no use to look again at once"
    lengths[0] = 2
    assert stage.dispatcher.look() == 1
    assert asked == [0, 4, 2]
