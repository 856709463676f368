"""An escalation and a platform action become one ticket in each system, through what incident reports go through."""

from __future__ import annotations

from pathlib import Path

from bridge.demo.server import Received
from bridge.models import DeliveryState, Kind
from bridge.runtime import make_routes
from bridge.streams import Streams
from tests.bridge.stage import Stage, Systems


def test_one_ticket_each_in_every_system(redis_url: str, tmp_path: Path) -> None:
    systems = Systems()
    with systems.running():
        connectors = {name: systems.table(name) for name in ("psa", "desk", "oncall")}
        with Stage(
            redis_url, tmp_path, systems, connectors, sources={"escalations": True, "platform_actions": True}
        ) as stage:
            systems.huntress.add_escalation([1])
            systems.huntress.add_platform_action(severity="low")
            runtime = stage.runtime
            streams = Streams(runtime.books, lambda: runtime.assembly.source, lambda: runtime.settings)
            routes = make_routes(runtime.settings, stage.store)
            leader = int(stage.store.script("lead", "poller", "test", 6000))
            for _, listing in streams.listings(stage.store.now()):
                for report in listing.reports:
                    names = routes.connectors(report)
                    stage.store.observe(leader, [(report, [(name, routes.reference(report, name)) for name in names])])
            stage.work()
            stage.wait(120)
            delivered = {(each.report_id, each.connector): each.state for each in stage.store.deliveries()}

    assert delivered == {
        (key, name): DeliveryState.CREATED for key in ("e2001", "p3001") for name in ("psa", "desk", "oncall")
    }
    tickets = {ticket["externalXRef"]: ticket for ticket in systems.connectwise.tickets.values()}
    assert set(tickets) == {"huntress-5-e2001", "huntress-5-p3001"}
    assert tickets["huntress-5-e2001"]["summary"].startswith("Unexpected Country Access")
    assert sorted(ticket["externalID"] for ticket in systems.autotask.tickets.values()) == sorted(tickets)
    texts = [mail.message.get_body(("plain",)).get_content() for mail in systems.mailbox.messages]  # type: ignore[union-attr]
    assert len(texts) == 2
    assert sum("cannot send incident reports to a ticket system by itself" in text for text in texts) == 1
    assert systems.huntress.requests_to("agents") == list[Received]()


def test_the_one_about_the_broken_integration_goes_first(redis_url: str, tmp_path: Path) -> None:
    systems = Systems()
    with (
        systems.running(),
        Stage(
            redis_url, tmp_path, systems, {"oncall": systems.table("oncall")}, sources={"platform_actions": True}
        ) as stage,
    ):
        stage.report(1, 2, severity="high")
        systems.huntress.add_platform_action(severity="low")
        streams = Streams(stage.runtime.books, lambda: stage.runtime.assembly.source, lambda: stage.runtime.settings)
        ((kind, listing),) = streams.listings(stage.store.now())
        assert kind is Kind.PLATFORM_ACTION
        (report,) = listing.reports
        leader = int(stage.store.script("lead", "poller", "test", 6000))
        stage.store.observe(leader, [(report, [("oncall", "huntress-5-p3001")])])
        assert stage.work()[0] == ("p3001", "oncall")
