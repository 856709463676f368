"""The package's pretend systems, as the contract of `connectors.testing` wants to see them."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Self

from bridge.demo import connectwise
from bridge.demo.autotask import PretendAutotask
from bridge.demo.connectwise import PretendConnectWise
from bridge.demo.mailbox import MailFaultKind, PretendMailbox, ReceivedMail
from bridge.demo.server import PretendServer, Received
from connectors.testing import RETRY_AFTER, Fault, Kind, SeenTicket

_FAULTS: Mapping[Fault, Mapping[str, Any]] = {
    "drop": {"kind": "drop"},
    "commit_drop": {"kind": "commit_drop"},
    "silent": {"kind": "hang", "delay": 60},
    "error": {"kind": "status", "status": 503},
    "commit_error": {"kind": "commit_status", "status": 500},
    "busy": {"kind": "status", "status": 429, "headers": {"Retry-After": str(RETRY_AFTER)}},
    "denied": {"kind": "status", "status": 401},
    "garbage": {"kind": "garbage"},
}


class HttpSystem(ABC):
    """A `PretendServer` under contract."""

    #: Method and path of each kind of request.
    routes: Mapping[Kind, Sequence[tuple[str, str]]]

    def __init__(self, server: PretendServer) -> None:
        self.server = server

    def __enter__(self) -> Self:
        self.server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stop()
        assert self.server.handler_errors == []

    @abstractmethod
    def kind(self, request: Received) -> Kind:
        """What this request does."""

    def requests(self) -> Sequence[Kind]:
        with self.server.lock:
            return [self.kind(request) for request in self.server.received]

    def misbehave(self, fault: Fault, kind: Kind | None = None) -> None:
        for method, path in self.routes[kind] if kind else [("*", "")]:
            self.server.fault(**_FAULTS[fault], method=method, path=path, times=None)

    def behave(self) -> None:
        with self.server.lock:
            self.server.faults.clear()

    def stop(self) -> None:
        self.server.stop()


class ConnectWiseSystem(HttpSystem):
    routes = {"create": [("POST", "/service/tickets$")], "read": [("GET", "")]}  # noqa: RUF012 - never changed

    def __init__(self) -> None:
        self.pretend = PretendConnectWise()
        super().__init__(self.pretend)

    def settings(self) -> Mapping[str, Any]:
        return self.pretend.settings()

    def secrets(self) -> Sequence[str]:
        return [connectwise.PRIVATE_KEY, connectwise.PUBLIC_KEY, connectwise.CLIENT_ID]

    def kind(self, request: Received) -> Kind:
        if request.method == "GET":
            return "read"
        return "create" if request.path.endswith("/service/tickets") else "change"

    def tickets(self) -> Sequence[SeenTicket]:
        apart = {"id", "summary", "externalXRef", "initialDescription", "initialInternalAnalysis", "company", "_info"}
        with self.pretend.lock:
            return [
                SeenTicket(
                    id=str(number),
                    reference=row["externalXRef"],
                    title=row["summary"],
                    texts=[row.get("initialDescription", ""), row.get("initialInternalAnalysis", "")],
                    company=str(row["company"]["id"]),
                    fields={name: value for name, value in row.items() if name not in apart and "date" not in name},
                )
                for number, row in self.pretend.tickets.items()
            ]

    def notes(self, ticket_id: str) -> Sequence[str]:
        with self.pretend.lock:
            return [str(note["text"]) for note in self.pretend.notes.get(int(ticket_id), [])]

    def delete(self, ticket_id: str) -> None:
        self.pretend.delete_ticket(int(ticket_id))


class AutotaskSystem(HttpSystem):
    routes = {"create": [("POST", "(?i)/tickets$")], "read": [("GET", ""), ("POST", "/query$")]}  # noqa: RUF012

    def __init__(self) -> None:
        self.pretend = PretendAutotask()
        super().__init__(self.pretend)

    def settings(self) -> Mapping[str, Any]:
        return self.pretend.settings() | {"company_defaults": {"phone": "555 0100", "ownerResourceID": 4}}

    def secrets(self) -> Sequence[str]:
        return [self.pretend.secret, self.pretend.integration_code]

    def kind(self, request: Received) -> Kind:
        if request.method == "GET" or request.path.endswith("/query"):
            return "read"
        return "create" if request.method == "POST" and request.path.lower().endswith("/tickets") else "change"

    def tickets(self) -> Sequence[SeenTicket]:
        apart = {"id", "ticketNumber", "title", "externalID", "description", "companyID"}
        with self.pretend.lock:
            return [
                SeenTicket(
                    id=str(number),
                    reference=row["externalID"],
                    title=row["title"],
                    texts=[row["description"]],
                    company=str(row["companyID"]),
                    fields={name: value for name, value in row.items() if name not in apart and "Date" not in name},
                )
                for number, row in self.pretend.tickets.items()
            ]

    def notes(self, ticket_id: str) -> Sequence[str]:
        with self.pretend.lock:
            return [str(note["description"]) for note in self.pretend.notes.get(int(ticket_id), [])]


class MailSystem:
    """The mailbox under contract: a mail is a ticket, an answer to it a note."""

    faults: Mapping[Fault, MailFaultKind] = {
        "drop": "drop_before_dot",
        "commit_drop": "drop_after_dot",
        "silent": "hang_rcpt",
        "error": "reject_data_451",
        "commit_error": "garbage_after_dot",
        "busy": "reject_rcpt_450",
        "denied": "auth_fail",
        "garbage": "shut_down_421",
    }

    def __init__(self) -> None:
        self.pretend = PretendMailbox(users={"bridge": "mail-Secret-4711"})

    def __enter__(self) -> Self:
        # The server's own log, in this process, shows what it is sent.
        logging.getLogger("mail.log").setLevel(logging.CRITICAL)
        self.pretend.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.pretend.stop()

    def settings(self) -> Mapping[str, Any]:
        return self.pretend.settings()

    def secrets(self) -> Sequence[str]:
        return list(self.pretend.users.values())

    def requests(self) -> Sequence[Kind]:
        messages = list(self.pretend.messages)
        tried: list[Kind] = ["read"] * (len(self.pretend.asked) - len(messages))
        return [*tried, *("change" if _is_note(mail) else "create" for mail in messages)]

    def tickets(self) -> Sequence[SeenTicket]:
        apart = {"message-id", "references", "subject", "date", "x-huntress-report-id", "content-type"}
        return [
            SeenTicket(
                id=_id(mail),
                reference=f"{mail.message['Message-ID']} {_text(mail)}",
                title=str(mail.message["Subject"]),
                texts=[_text(mail)],
                fields={
                    "recipient": mail.recipient,
                    "sender": mail.sender,
                    "names": sorted(mail.message.keys()),
                    "parts": [part.get_content_type() for part in mail.message.walk()],
                    **{name: str(value) for name, value in mail.message.items() if name.lower() not in apart},
                },
            )
            for mail in list(self.pretend.messages)
            if not _is_note(mail)
        ]

    def notes(self, ticket_id: str) -> Sequence[str]:
        return [
            _text(mail)
            for mail in list(self.pretend.messages)
            if _is_note(mail) and ticket_id in str(mail.message["References"])
        ]

    def misbehave(self, fault: Fault, kind: Kind | None = None) -> None:
        self.pretend.fault(self.faults[fault], times=None)

    def behave(self) -> None:
        self.pretend.faults.clear()

    def stop(self) -> None:
        self.pretend.stop()


def _is_note(mail: ReceivedMail) -> bool:
    return mail.message["In-Reply-To"] is not None


def _id(mail: ReceivedMail) -> str:
    return str(mail.message["Message-ID"]).strip("<> ")


def _text(mail: ReceivedMail) -> str:
    part = mail.message.get_body(("plain",))
    return str(part.get_content()) if part else ""
