"""`demo`: the whole bridge on loopback against pretend systems, with the tickets shown as they come."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from bridge.demo import scenario
from bridge.demo.autotask import PretendAutotask
from bridge.demo.connectwise import PretendConnectWise
from bridge.demo.huntress import PretendHuntress
from bridge.demo.mailbox import PretendMailbox
from bridge.demo.webhook_sender import SECRET, WebhookSender
from bridge.toml_text import toml as toml

#: Seconds between incidents of the demo, after the first few that are there from the start.
INCIDENT_EVERY = 4.0
#: Reports open when the demo starts, and the most it makes.
FIRST_REPORTS = 3
MOST_REPORTS = 60
#: Id of the first.
FIRST_REPORT_ID = 1001
#: Organizations of the demo; the last has no company of its own in the ticket systems.
ORGANIZATIONS = 5
#: A company of ConnectWise that may be the last organization: for a person to say.
RESEMBLING = (30, "ORG5LTD", f"Organization {ORGANIZATIONS} Ltd")


@dataclass
class PretendWorld:
    """All pretend systems together."""

    huntress: PretendHuntress
    connectwise: PretendConnectWise
    autotask: PretendAutotask
    mailbox: PretendMailbox
    made: int = 0
    #: Tells the bridge of each report at once, beside the listings; None: nobody does.
    sender: WebhookSender | None = None

    def incident(self) -> None:
        """One more report is sent; organizations, hosts and kinds take turns."""
        with self.huntress.lock:
            organization = list(self.huntress.organizations.values())[self.made % ORGANIZATIONS]
            agents = [
                agent for agent in self.huntress.agents.values() if agent["organization_id"] == organization["id"]
            ]
            agent = None if self.made % 5 == 4 else agents[self.made % len(agents)]
            number = FIRST_REPORT_ID + self.made
            raw = scenario.incident(number, organization, agent, datetime.now(UTC))
            self.huntress.reports[number] = raw
        self.made += 1
        if self.sender is not None:
            with suppress(OSError, http.client.HTTPException):  # the next poll finds it as well
                self.sender.send("incident_report.created", raw)

    def further(self) -> None:
        """One escalation and the platform action that matters most."""
        self.huntress.add_escalation([1])
        self.huntress.add_platform_action()

    def tables(self) -> dict[str, Any]:
        """The configuration that points at this world."""
        return {
            "huntress": self.huntress.settings(),
            "sources": {"escalations": True, "platform_actions": True},
            "connectors": {
                "psa": self.connectwise.settings(),
                "desk": self.autotask.settings(),
                "oncall": self.mailbox.settings(),
            },
        }


@contextmanager
def pretend_world(host: str = "127.0.0.1", ports: tuple[int, int, int, int] = (0, 0, 0, 0)) -> Iterator[PretendWorld]:
    """Starts the pretend systems with the demo's organizations."""
    with ExitStack() as stack:
        huntress = PretendHuntress(host=host, port=ports[0], organizations=ORGANIZATIONS)
        for number in range(1, 3 * ORGANIZATIONS + 1):
            huntress.agents[number] = scenario.agent(number, (number - 1) % ORGANIZATIONS + 1)
        known = list(huntress.organizations.values())[:-1]
        connectwise = PretendConnectWise(
            companies=[
                (1, "Catchall", "Catchall"),
                *((10 + n, f"ORG{n}", o["name"]) for n, o in enumerate(known)),
                RESEMBLING,
            ],
            host=host,
            port=ports[1],
        )
        autotask = PretendAutotask(
            companies=[(175, "Catch-all"), *((200 + n, o["name"]) for n, o in enumerate(known))],
            host=host,
            port=ports[2],
        )
        mailbox = PretendMailbox(host=host, port=ports[3])
        for system in (huntress, connectwise, autotask, mailbox):
            system.start()
            stack.callback(system.stop)
        yield PretendWorld(huntress, connectwise, autotask, mailbox)


def free_port(preferred: int) -> int:
    """`preferred` when nobody listens there, else any free one."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    return preferred


def run_demo(seconds: float | None) -> int:
    """Runs until ctrl-C or for `seconds`."""
    from bridge.processes import Process
    from bridge.runtime import Runtime
    from bridge.settings import load

    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with tempfile.TemporaryDirectory(prefix="huntress-bridge-demo-") as folder, pretend_world() as world:
        port = free_port(8080)
        tables = {
            "data_dir": f"{folder}/data",
            "poll": {"interval": 1},
            "web": {"port": port},
            "webhooks": {"secret": SECRET},
            "organizations": {"file": f"{folder}/organizations.csv"},
            **world.tables(),
        }
        Path(folder, "organizations.csv").write_text("organization_id,connector,company\n", encoding="utf-8")
        path = Path(folder) / "bridge.toml"
        path.write_text(toml(tables), encoding="utf-8")
        path.chmod(0o600)
        for _ in range(FIRST_REPORTS):
            world.incident()
        world.further()
        with Runtime(load(path, environ={})) as runtime:
            process = Process(runtime, ("poller", "worker", "web"))
            process.start()
            world.sender = WebhookSender(f"http://127.0.0.1:{port}/webhooks/huntress")
            click.echo("Pretend Huntress, ConnectWise, Autotask and mailbox on loopback; the bridge runs between them.")
            click.echo(f"page: http://127.0.0.1:{port}/     end with ctrl-C")
            try:
                _show(world, process, stop, None if seconds is None else time.monotonic() + seconds)
            finally:
                process.stop()
        _sum_up(world)
    return 0


def _show(world: PretendWorld, process: Any, stop: threading.Event, until: float | None) -> None:
    """Lets incidents arrive and shows the tickets, until told to stop."""
    from rich.console import Console
    from rich.live import Live

    console = Console()
    next_incident = time.monotonic() + INCIDENT_EVERY
    arrived: dict[tuple[str, str, str, str], None] = {}
    live = Live(console=console, refresh_per_second=4) if sys.stdout.isatty() else None
    with live if live is not None else ExitStack():
        while not stop.is_set() and (until is None or time.monotonic() < until):
            if time.monotonic() >= next_incident and world.made < MOST_REPORTS:
                world.incident()
                next_incident += INCIDENT_EVERY
            process.beat()
            for row in tickets(world):
                if row not in arrived:
                    arrived[row] = None
                    if live is None:
                        click.echo("  ".join(cell for cell in row if cell))
            if live is not None:
                live.update(_table(world, arrived, console.height))
            stop.wait(0.25)


def tickets(world: PretendWorld) -> list[tuple[str, str, str, str]]:
    """(system, number, company, title) of every ticket, in the order of each system."""
    companies = {company[0]: company[2] for company in world.connectwise.companies}
    rows = [
        ("ConnectWise", f"#{id}", companies.get(ticket["company"]["id"], "?"), ticket["summary"])
        for id, ticket in sorted(world.connectwise.tickets.items())
    ]
    accounts = {account["id"]: account["companyName"] for account in world.autotask.companies}
    rows += [
        ("Autotask", ticket["ticketNumber"], accounts.get(ticket["companyID"], "?"), ticket["title"])
        for _, ticket in sorted(world.autotask.tickets.items())
    ]
    rows += [("e-mail", "", mail.recipient, str(mail.message["Subject"])) for mail in list(world.mailbox.messages)]
    return rows


def _table(world: PretendWorld, arrived: Collection[tuple[str, str, str, str]], height: int) -> Any:
    """The newest tickets, as many as fit, in the order in which they came."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"{world.made} reports and two more, {len(arrived)} tickets", title_justify="left")
    for name in ("system", "ticket", "company or recipient", "title"):
        table.add_column(name, no_wrap=True)
    for row in list(arrived)[-max(5, height - 9) :]:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _sum_up(world: PretendWorld) -> None:
    counts = (len(world.connectwise.tickets), len(world.autotask.tickets), len(world.mailbox.messages))
    click.echo(
        f"{world.made} reports, an escalation and a platform action: {counts[0]} ConnectWise tickets, "
        f"{counts[1]} Autotask tickets, {counts[2]} e-mails"
    )
    if world.mailbox.messages:
        body = world.mailbox.messages[0].message.get_body(("plain",))
        if body is not None:
            click.echo("\nThe first e-mail, as text:\n")
            click.echo(body.get_content())


def serve_pretend_systems(host: str, seconds: float | None) -> int:
    """Only the pretend systems, on fixed ports, with incidents that arrive over time; for trying containers."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    until = None if seconds is None else time.monotonic() + seconds
    with pretend_world(host, SERVE_PORTS) as world:
        click.echo(json.dumps(world.tables()))
        while not stop.wait(0.5) and (until is None or time.monotonic() < until):
            if world.made < SERVE_REPORTS:
                world.incident()
            click.echo(
                json.dumps(
                    {
                        "reports": world.made,
                        "connectwise": sorted(ticket["externalXRef"] for ticket in world.connectwise.tickets.values()),
                        "autotask": sorted(ticket["externalID"] for ticket in world.autotask.tickets.values()),
                        "email": sorted(str(mail.message["Message-ID"]) for mail in list(world.mailbox.messages)),
                    }
                )
            )
            sys.stdout.flush()
    return 0


#: Ports of `demo --serve`: Huntress, ConnectWise, Autotask, mailbox.
SERVE_PORTS = (9001, 9002, 9003, 9025)
#: Reports that `demo --serve` makes, two a second.
SERVE_REPORTS = 12
