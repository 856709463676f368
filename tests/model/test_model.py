"""Hypothesis drives the real store and the real delivery code through any order of steps, faults and crashes.

Every step is held against the model; at the end of each run the faults stop, and all promises must hold.
An ordinary run tries a few, the same each time; with `--long`, or `BRIDGE_MODEL_EXAMPLES` for their number, others each
time. A counter-example goes into `test_counter_examples.py` under a name that says what happened.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from tests.model.steps import faults_of
from tests.model.ticket_system import PSA
from tests.model.world import World

#: Runs of an ordinary test run, and of one with `--long`.
EXAMPLES, LONG_EXAMPLES = 100, 5000

workers = st.sampled_from((0, 1, 2))
reports = st.sampled_from((1, 2))
#: The steps that matter most; most of what goes wrong goes wrong there.
steps = st.sampled_from(
    ("create", "create", "find", "begin_create", "record", "release", "claim", "complete", "hgetall")
)


def busy(machine: Deliveries) -> bool:
    return any(worker.at and not worker.frozen for worker in machine.world.workers)


class Deliveries(RuleBasedStateMachine):
    """Two reports, three workers, one ticket system, and whatever may happen to them."""

    redis_url: str

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.redis_url)

    @initialize(lag=st.sampled_from((0, 0, 10, 55)))
    def begin(self, lag: float) -> None:
        self.world.system.lag = lag
        self.world.open[1] = "as first seen"
        self.world.poll()
        self.dispatch()

    def teardown(self) -> None:
        try:
            self.world.come_to_rest()
        finally:
            self.world.close()

    # -- workers -------------------------------------------------------------------------------------------------------

    @precondition(busy)
    @rule(worker=workers, times=st.integers(1, 8))
    def step(self, worker: int, times: int) -> None:
        self.world.step(worker, times=times)

    @precondition(busy)
    @rule(worker=workers, step=steps, data=st.data())
    def fault(self, worker: int, step: str, data: st.DataObject) -> None:
        """A worker goes on to a step and suffers there what may go wrong with it."""
        if self.world.go_to(worker, step):
            self.world.step(worker, data.draw(st.sampled_from(faults_of(step)), label="fault"))

    @precondition(busy)
    @rule(worker=workers)
    def finish(self, worker: int) -> None:
        self.world.finish(worker)

    @precondition(busy)
    @rule(worker=workers, step=steps)
    def crash(self, worker: int, step: str) -> None:
        """A worker dies before a step, or where it stands."""
        self.world.go_to(worker, step)
        self.world.crash(worker)

    @precondition(busy)
    @rule(worker=workers, step=steps)
    def freeze(self, worker: int, step: str) -> None:
        """A worker stops before a step; the answer to a request that is out comes when it runs again."""
        if self.world.go_to(worker, step):
            self.world.freeze(worker)

    @precondition(lambda machine: any(worker.frozen for worker in machine.world.workers))
    @rule(worker=workers)
    def thaw(self, worker: int) -> None:
        self.world.thaw(worker)

    @precondition(busy)
    @rule(worker=workers, step=steps, times=st.integers(1, 8))
    def outage(self, worker: int, step: str, times: int) -> None:
        """Redis is away for a worker's next commands."""
        self.world.go_to(worker, step)
        for _ in range(times):
            self.world.step(worker, "away" if "away" in faults_of(self.world.workers[worker].at) else "")

    @rule(step=st.sampled_from(("find", "create", "answer", "complete")), times=st.integers(2, 5))
    def kill(self, step: str, times: int) -> None:
        """Whoever comes to a step dies there, again and again."""
        for _ in range(times):
            for worker in range(len(self.world.workers)):
                if self.world.go_to(worker, step):
                    self.world.crash(worker)
            self.world.wait(12)
            self.dispatch()

    @rule(worker=workers, report=reports)
    def message(self, worker: int, report: int) -> None:
        """A message comes twice, or late."""
        if not self.world.workers[worker].frozen:
            self.world.start(worker, report)

    # -- poller, dispatcher, time --------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from((1, 5, 9, 16, 31, 61)))
    def wait(self, seconds: float) -> None:
        self.world.wait(seconds)
        self.dispatch()

    @rule()
    def dispatch(self) -> None:
        self.world.dispatch()
        self.world.hand_out()

    @rule()
    def poll(self) -> None:
        self.world.poll()
        self.dispatch()

    # -- the world around ----------------------------------------------------------------------------------------------

    @rule(report=reports, text=st.sampled_from(("as first seen", "changed")))
    def report(self, report: int, text: str) -> None:
        """A report opens, or changes."""
        self.world.report(report, text)
        self.poll()

    @rule(
        what=st.sampled_from(("close", "retry", "handle", "pause", "resume", "probe", "lose messages", "empty")),
        report=reports,
    )
    def event(self, what: str, report: int) -> None:
        """What is rare: a report closes, a person or the ticket system wants something, Redis loses everything."""
        match what:
            case "close":
                self.world.end(report)
            case "retry":
                self.world.retry(report)
            case "handle":
                self.world.handle(report)
            case "pause":
                self.world.hub.store.pause(PSA, "rate", 40, "asked to wait")
            case "resume":
                self.world.hub.store.resume(PSA)
            case "probe":
                self.world.probe()
            case "lose messages":
                self.world.hints.clear()
            case "empty":
                self.world.empty()

    @rule(deliveries=st.booleans(), seconds=st.sampled_from((0, 130)))
    def forget(self, deliveries: bool, seconds: float) -> None:
        """What is long over is forgotten."""
        self.world.wait(seconds)
        self.world.forget(deliveries=deliveries)


def profile(config: pytest.Config) -> settings:
    """The same runs each time, a few; with `--long`, or as many as are asked for, others each time."""
    wanted = os.environ.get("BRIDGE_MODEL_EXAMPLES")
    long = bool(wanted) or bool(config.getoption("--long", default=False))
    return settings(
        max_examples=int(wanted or (LONG_EXAMPLES if long else EXAMPLES)),
        stateful_step_count=60,
        derandomize=not long,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=[HealthCheck.too_slow],
        print_blob=False,
    )


@pytest.mark.timeout(3600)
def test_whatever_happens_the_promises_hold(redis_url: str, request: pytest.FixtureRequest) -> None:
    machine: Any = type("Machine", (Deliveries,), {"redis_url": redis_url})
    run_state_machine_as_test(machine, settings=profile(request.config))
