"""The outside world of the container test: pretend Huntress, ConnectWise, Autotask and mailbox on fixed ports.

`pretend.py configure FOLDER` writes FOLDER/bridge.toml for a bridge that reaches them as host `pretend`, every secret
in a file of its own; FOLDER/mail.pem is to hold certificate and key. `pretend.py serve FOLDER` serves, with a dozen
reports at the start and a dozen more at each SIGUSR1, and says what was received whenever that changed.
"""

from __future__ import annotations

import re
import signal
import ssl
import sys
import threading
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bridge.demo import scenario
from bridge.demo.autotask import PretendAutotask
from bridge.demo.connectwise import PretendConnectWise
from bridge.demo.huntress import PretendHuntress
from bridge.demo.mailbox import PretendMailbox
from bridge.demo.run import toml

NAME = "pretend"
EVERYWHERE = "0.0.0.0"
ORGANIZATIONS = 4
REPORTS_AT_ONCE = 12
#: Seconds that the ticket systems take for each request, so that a stop meets deliveries under way.
LATENCY = 1.0
SECRET_KEYS = ("api_key", "api_secret", "public_key", "private_key", "secret", "integration_code", "password", "token")


class World:
    """All pretend systems together. The last organization has no company of its own."""

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        names = [(raw["id"], raw["name"]) for raw in scenario.organizations(ORGANIZATIONS)[:-1]]
        self.huntress = PretendHuntress(EVERYWHERE, 9001, organizations=ORGANIZATIONS, advertise=NAME)
        self.connectwise = PretendConnectWise(
            [(1, "Catchall", "Catchall"), *((100 + id, f"ORG{id}", name) for id, name in names)],
            EVERYWHERE,
            9002,
            advertise=NAME,
        )
        self.autotask = PretendAutotask(
            [(175, "Catch-all"), *((200 + id, name) for id, name in names)], EVERYWHERE, 9003, advertise=NAME
        )
        self.mailbox = PretendMailbox(
            EVERYWHERE, 9025, security="starttls", tls_context=tls, users={"bridge": "pretend-mail-password"}
        )
        self.systems = (self.huntress, self.connectwise, self.autotask, self.mailbox)
        for system in (self.connectwise, self.autotask, self.mailbox):
            system.latency = LATENCY

    def tables(self) -> dict[str, Any]:
        """The configuration that points here."""
        return {
            "poll": {"interval": 1},
            "huntress": self.huntress.settings(insecure_http=True),
            "connectors": {
                "psa": self.connectwise.settings(insecure_http=True),
                "desk": self.autotask.settings(insecure_http=True),
                "oncall": self.mailbox.settings(host=NAME, ca_file="mail.pem"),
            },
            "web": {"password": "pretend-page-password", "token": "pretend-page-token"},
        }

    def send(self, count: int) -> None:
        """That many more reports."""
        for _ in range(count):
            self.huntress.add_report(organization_id=len(self.huntress.reports) % ORGANIZATIONS + 1)

    def received(self) -> str:
        """`reports N`, and for each ticket system how many of them it has, and how many tickets too many."""
        with self.huntress.lock:
            wanted = {f"huntress-{scenario.ACCOUNT_ID}-{number}" for number in self.huntress.reports}
        words = [f"reports {len(wanted)}"]
        for name, texts in (
            ("connectwise", [str(ticket["externalXRef"]) for ticket in list(self.connectwise.tickets.values())]),
            ("autotask", [str(ticket["externalID"]) for ticket in list(self.autotask.tickets.values())]),
            ("email", [str(mail.message["Message-ID"]) for mail in list(self.mailbox.messages)]),
        ):
            found = references(texts)
            words.append(f"{name} {len(found.keys() & wanted)} {found.total() - len(found.keys() & wanted)}")
        return " ".join(words)


def references(texts: Iterable[str]) -> Counter[str]:
    """How often each report's reference stands in `texts`."""
    matches = (re.search(r"huntress-\d+-\d+(?:-[a-z]\d+)?", text) for text in texts)
    return Counter(match[0] if match else "strange" for match in matches)


def configure(folder: Path) -> None:
    """Writes the configuration and its secrets."""
    tables = World(None).tables()
    secrets = folder / "secrets"
    secrets.mkdir()
    for name, table in {"huntress": tables["huntress"], "page": tables["web"], **tables["connectors"]}.items():
        for key in SECRET_KEYS:
            if key in table:
                path = secrets / f"{name}_{key}"
                path.touch(mode=0o600)
                path.write_text(table.pop(key) + "\n", encoding="utf-8")
                table[f"{key}_file"] = f"secrets/{path.name}"
    (folder / "bridge.toml").write_text(toml(tables), encoding="utf-8")


def serve(folder: Path) -> None:
    """Serves until SIGTERM."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(folder / "mail.pem")
    world = World(tls)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGUSR1, lambda *_: world.send(REPORTS_AT_ONCE))
    for system in world.systems:
        system.start()
    world.send(REPORTS_AT_ONCE)
    said = ""
    while not stop.wait(0.1):
        now = world.received()
        if now != said:
            said = now
            sys.stdout.write(f"{now}\n")
            sys.stdout.flush()
    for system in world.systems:
        system.stop()


if __name__ == "__main__":
    {"configure": configure, "serve": serve}[sys.argv[1]](Path(sys.argv[2]))
