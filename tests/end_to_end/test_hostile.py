"""Reports from somebody who wants to break out: each is ticketed or visibly quarantined, and stops no other.

One bridge takes all of them in one listing; the tests look at what the pretend systems received.
"""

from __future__ import annotations

import contextlib
import email
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import default as modern
from html.parser import HTMLParser
from typing import Any

import pytest
import requests

from bridge.demo import scenario
from bridge.demo.mailbox import ReceivedMail
from bridge.demo.server import Received, Reply
from tests.end_to_end.conftest import Bridge, World, wait_until

BIDI = "\u202e\u2066\u200f"
QUERY = '" or company/id > 0 or name = "'
LIKE = 'x" OR summary LIKE "%" OR externalXRef != "'
MARKUP = "<script>alert(1)</script><img src=x onerror=alert(1)></td></table><a href='https://evil.example/'>click</a>"
TEMPLATE = "{{ 7 * 7 }}{% for x in range(9) %}x{% endfor %}{{ config }}{# gone #}${7*7}{{ ''.__class__.__mro__ }}"
BREAKS = "first\r\nBcc: intruder@example.net\r\n\r\nsecond\rthird\nfourth\u2028fifth\x85sixth\x0bseventh\x0ceighth"
FIELDS = "one\n* Severity: low\n== WHERE ==\n* Organization: somebody else (id 99)\nURL: https://evil.example/"
CONTROL = "nul \x00 bell \x07 escape \x1b[31m delete \x7f c1 \x9b end"
ENCODED = "=?utf-8?q?=0D=0ABcc:_intruder@example.net?= =?utf-8?b?DQpCY2M6IGE=?="
SURROGATES = "half \ud83d and half \ude00 of an emoji"
#: Replaced on the wire by JSON that Python's own writer would not make.
DEEP, DIGITS, OVERFLOW = "@@DEEP@@", "@@DIGITS@@", "@@OVERFLOW@@"
ON_THE_WIRE = {DEEP: "[" * 20_000 + "]" * 20_000, DIGITS: "9" * 10_000, OVERFLOW: "1e99999"}

NULL = dict.fromkeys(scenario.SAMPLES["full"])
EVERYWHERE = ("subject", "summary", "body", "severity", "platform")

#: Fields of reports that have an id and were sent: each must become a ticket everywhere.
TICKETED: dict[str, dict[str, Any]] = {
    "plain": {},
    "line breaks": dict.fromkeys(EVERYWHERE, BREAKS),
    "template syntax": dict.fromkeys(EVERYWHERE, TEMPLATE),
    "markup": dict.fromkeys(EVERYWHERE, MARKUP),
    "markup in a subject alone": {"subject": MARKUP},
    "query language": dict.fromkeys(EVERYWHERE, QUERY),
    "like": {"subject": LIKE, "organization_id": 3, "agent_id": 2},
    "forged fields": dict.fromkeys(EVERYWHERE, FIELDS),
    "control characters": dict.fromkeys(EVERYWHERE, CONTROL),
    "direction": dict.fromkeys(EVERYWHERE, f"invoice{BIDI}fdp.exe"),
    "lone surrogates": dict.fromkeys(EVERYWHERE, SURROGATES),
    "encoded words": dict.fromkeys(EVERYWHERE, ENCODED),
    "end of mail": {
        "body": "before\r\n.\r\nMAIL FROM:<intruder@example.net>\r\nRCPT TO:<victim@example.net>\r\nDATA\r\n"
    },
    "boundary": {"body": "--=_0000\r\nContent-Type: text/html\r\n\r\n<script>alert(1)</script>\r\n--=_0000--"},
    "long subject": {"subject": "A" + "subject " * 625},
    "long word": {"subject": "W" * 5000},
    "emoji": {"subject": "\U0001f4a3" * 2000, "body": "\U0001f4a3" * 20_000},
    "long body": {"body": "A line of text, with <b>bold</b> words.\n" * 7500},
    "long body without spaces": {"body": "x" * 300_000},
    "unclosed comments": {"body": "<p>" + "<!-- " * 60_000},
    "nulls": NULL | {"sent_at": "2026-11-01T00:00:00Z"},
    "only an id": {"_only": ["id", "sent_at"]},
    "lists are objects": {
        "remediations": {"total_count": {}, "items": {"a": {"action": {"b": 1}, "parameters": {"c": []}}, "d": None}},
        "indicator_types": {"footholds": 1, "x": None},
        "indicator_counts": ["footholds"],
        "subject": {"text": "an object"},
        "body": ["a", "list", None],
    },
    "numbers for texts": {"subject": 5, "body": 1.5, "severity": 3, "platform": False, "summary": True},
    "texts for numbers": {"organization_id": "3", "agent_id": "two", "account_id": "5"},
    "bool ids": {"organization_id": True, "agent_id": True, "account_id": False},
    "negative ids": {"organization_id": -1, "agent_id": 0},
    "unknown organization": {"organization_id": 987654, "agent_id": 987654},
    "unknown severity": {"severity": "apocalyptic"},
    "severity as a list": {"severity": ["critical"]},
    "no status": {"status": None},
    "odd times": {"sent_at": "yesterday", "updated_at": -1, "closed_at": [], "status_updated_at": 1e300},
    "not a number": {"body": float("nan"), "updated_at": float("inf"), "agent_id": float("-inf")},
    "overflow": {"updated_at": OVERFLOW, "indicator_counts": {"footholds": OVERFLOW}},
    "huge number": {"updated_at": DIGITS, "agent_id": DIGITS},
    "huge integer": {"agent_id": 10**30, "indicator_counts": {"footholds": 2**64}},
    "deep": {"indicator_types": DEEP},
    "rather deep": {"body": "@@RATHER_DEEP@@", "remediations": "@@RATHER_DEEP@@"},
    "many remediations": {
        "remediations": {"total_count": 10**9, "items": [{"action": MARKUP, "parameters": [BREAKS] * 50}] * 200}
    },
    "hostile organization": {"organization_id": 2, "agent_id": 2},
    "matched hostile organization": {"organization_id": 3, "agent_id": 3},
    "nameless organization": {"organization_id": 4, "agent_id": 4},
    "long organization name": {"organization_id": 5, "agent_id": 5},
    "reference of another": {"subject": "CRITICAL [huntress-5-1] T20251030.0012 [#123] Ticket#123"},
}
ON_THE_WIRE["@@RATHER_DEEP@@"] = "[" * 800 + "]" * 800
#: What stands in the listing without being a report.
QUARANTINED: dict[str, Any] = {
    "text": "a report? <script>",
    "null": None,
    "number": 5,
    "list": [1, 2],
    "no id": {"subject": "CRITICAL without an id", "sent_at": "2026-11-01T00:00:00Z", "status": "sent"},
    "bool id": {"id": True, "sent_at": "2026-11-01T00:00:00Z"},
    "null id": {"id": None},
    "text id": {"id": '1" or "1"="1'},
    "negative id": {"id": -5},
    "id beyond int64": {"id": 2**63},
    "id as a list": {"id": [7]},
    "deep without an id": {"body": "@@RATHER_DEEP@@"},
    "unknown status": scenario.SAMPLES["full"] | {"id": 9501, "status": "being_looked_at"},
    "status as an object": scenario.SAMPLES["full"] | {"id": 9502, "status": {"name": "sent"}},
    "hostile status": scenario.SAMPLES["full"] | {"id": 9503, "status": BREAKS + MARKUP + "\x1b[2J"},
    "hostile id": {"id": BREAKS + MARKUP + "\x1b[2J"},
}
#: Id of the first report; the others follow in the order of the table.
FIRST = 1
LARGEST = 2**63 - 1


def number_of(name: str) -> int:
    return FIRST + list(TICKETED).index(name)


def reference(number: int) -> str:
    return f"huntress-5-{number}"


@dataclass
class Aftermath:
    """What one bridge made of everything above."""

    world: World
    deliveries: list[dict[str, Any]]
    listing: str
    status: dict[str, Any]
    log: str

    def connectwise(self, name: str) -> dict[str, Any]:
        [ticket] = [
            t for t in self.world.connectwise.tickets.values() if t["externalXRef"] == reference(number_of(name))
        ]
        return dict(ticket)

    def autotask(self, name: str) -> dict[str, Any]:
        [ticket] = [t for t in self.world.autotask.tickets.values() if t["externalID"] == reference(number_of(name))]
        return dict(ticket)

    def autotask_note(self, name: str) -> str:
        """What technicians read: the internal notes, in order."""
        return "\n".join(note["description"] for note in self.world.autotask.notes[self.autotask(name)["id"]])

    def mail(self, name: str) -> ReceivedMail:
        wanted = f"<{reference(number_of(name))}@"
        [mail] = [m for m in self.world.mailbox.messages if str(m.message["Message-ID"]).startswith(wanted)]
        return mail


def hostile_world() -> World:
    world = World(5)
    huntress = world.huntress
    for number, fields in enumerate(TICKETED.values(), FIRST):
        world.report(number, fields.get("organization_id", 1) if fields.get("organization_id") in range(1, 6) else 1)
        raw = world.huntress.reports[number] | {k: v for k, v in fields.items() if k != "_only"} | {"id": number}
        world.huntress.reports[number] = {k: raw[k] for k in fields["_only"]} if "_only" in fields else raw
    huntress.organizations[2]["name"] = 'x" or name like "%'
    huntress.organizations[3]["name"] = QUERY
    huntress.organizations[4]["name"] = None
    huntress.organizations[5]["name"] = "Organization " + "with a long name " * 300
    huntress.organizations[6] = "not an organization"
    world.connectwise.companies = [
        (id, key, QUERY if id == 1003 else name) for id, key, name in world.connectwise.companies if id != 1002
    ]
    for row in world.autotask.companies:
        row["companyName"] = QUERY if row["id"] == 2003 else row["companyName"]
    world.autotask.companies = [row for row in world.autotask.companies if row["id"] != 2002]
    huntress.agents[2] |= {"hostname": LIKE, "serial_number": QUERY, "os": MARKUP, "tags": [BREAKS, None, {}]}
    huntress.agents[3] |= {"hostname": BREAKS, "serial_number": TEMPLATE, "mac_addresses": {"a": MARKUP}}
    huntress.agents[4] = ["not an agent"]
    huntress.agents[5] |= {"hostname": "H" * 5000, "domain_name": CONTROL + BIDI, "firewall_status": {"x": 1}}
    for company in (1003, 1):
        world.connectwise.add_configuration(company, "SOMETHING-ELSE", "SN1")
        world.connectwise.add_configuration(company, LIKE, QUERY)
    world.report(LARGEST, 1)
    # Ids twice: the first counts. A report that was not sent yet is none yet.
    world.huntress.reports[9001] = {"id": number_of("plain"), "sent_at": "2026-11-01T00:00:00Z", "subject": "again"}
    world.huntress.reports[9002] = NULL | {"id": 9002, "status": "sent"}
    for number, raw in enumerate(QUARANTINED.values(), 9100):
        world.huntress.reports[number] = raw

    def listing(request: Received) -> Reply:
        """Everything whatever its status, as one page, once; huge and deep values as they stand on a wire."""
        with world.huntress.lock:
            items = list(world.huntress.reports.values()) if request.query.get("status", "sent") == "sent" else []
        text = json.dumps({"incident_reports": items, "pagination": {}})
        for mark, raw in ON_THE_WIRE.items():
            text = text.replace(json.dumps(mark), raw)
        return Reply(200, text)

    world.huntress.route("GET", "/v1/incident_reports", listing)
    return world


@pytest.fixture(scope="module")
def aftermath() -> Iterator[Aftermath]:
    with contextlib.ExitStack() as stack:
        world = hostile_world().start(stack)
        connectors = world.connectors()
        bridge = Bridge.in_folder(stack, world, {"connectors": connectors, "poll": {"interval": 60}})
        process = bridge.start("run", "--log-level", "debug")
        wanted = {reference(number) for number in (*range(FIRST, FIRST + len(TICKETED)), LARGEST)}

        def all_told() -> bool:
            found = (world.connectwise_references(), world.autotask_references())
            return len(world.mailbox.messages) >= len(wanted) and all(wanted <= set(references) for references in found)

        try:
            wait_until(all_told, 60)
        except AssertionError:
            missing = {
                name: sorted(wanted - set(found))
                for name, found in (
                    ("connectwise", world.connectwise_references()),
                    ("autotask", world.autotask_references()),
                    ("mail", world.mail_references()),
                )
            }
            pytest.fail(f"not ticketed: {missing}\n{bridge.log()[-6000:]}")
        status = requests.get(f"http://127.0.0.1:{bridge.port}/status", timeout=5)
        listing = bridge("deliveries")
        deliveries = bridge.deliveries()
        assert bridge.stop(process) == 0
        yield Aftermath(world, deliveries, listing.stdout + listing.stderr, status.json(), bridge.log())


def test_everything_with_an_id_is_ticketed_once_everywhere(aftermath: Aftermath) -> None:
    wanted = {reference(number): 1 for number in (*range(FIRST, FIRST + len(TICKETED)), LARGEST)}
    assert dict(aftermath.world.connectwise_references()) == wanted
    assert dict(aftermath.world.autotask_references()) == wanted
    assert dict(aftermath.world.mail_references()) == wanted
    assert {row["state"] for row in aftermath.deliveries} == {"created"}
    assert len(aftermath.deliveries) == 3 * len(wanted)
    assert not [error for system in aftermath.world.systems[:3] for error in system.handler_errors]
    assert "Traceback" not in aftermath.log


def test_everything_else_is_quarantined_for_people_to_see(aftermath: Aftermath) -> None:
    assert len(aftermath.status["quarantine"]) == len(QUARANTINED)
    assert all(entry["reason"] for entry in aftermath.status["quarantine"])
    assert aftermath.listing.count("quarantined: ") == len(QUARANTINED)
    assert aftermath.status["poll"]["last_complete_at"] is not None
    assert aftermath.status["poll"]["error"] == ""


@pytest.mark.parametrize("output", ["listing", "log"])
def test_nothing_steers_a_terminal(aftermath: Aftermath, output: str) -> None:
    text = getattr(aftermath, output)
    assert text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]", text)


def test_organizations_are_matched_by_their_whole_name_or_not_at_all(aftermath: Aftermath) -> None:
    expected = {
        "plain": (1001, 2001),
        "hostile organization": (1, 175),
        "matched hostile organization": (1003, 2003),
        "nameless organization": (1, 175),
        "long organization name": (1, 175),
        "unknown organization": (1, 175),
        "bool ids": (1, 175),
    }
    for name, (psa, desk) in expected.items():
        assert (aftermath.connectwise(name)["company"]["id"], aftermath.autotask(name)["companyID"]) == (psa, desk), (
            name
        )
    text = aftermath.connectwise("hostile organization")["initialInternalAnalysis"]
    assert text.startswith('Organization: x" or name like "% (id 2). This ticket is filed under the catch-all')


_ALLOWED_QUERIES = {
    "conditions": re.compile(
        r'externalXRef="huntress-5-[0-9]+"|deletedFlag=false|'
        r'company/id=[0-9]+( AND (name|serialNumber)="[A-Za-z0-9._-]+")?'
    ),
    "fields": re.compile(r"[A-Za-z0-9,/]+"),
    "orderBy": re.compile(r"id (asc|desc)"),
    "page": re.compile("[0-9]+"),
    "pageSize": re.compile("[0-9]+"),
}


def test_queries_carry_no_text_of_a_report(aftermath: Aftermath) -> None:
    conditions = set()
    for request in aftermath.world.connectwise.received:
        assert re.fullmatch(r"/[A-Za-z0-9_./]+", request.path)
        for name, value in request.query.items():
            assert _ALLOWED_QUERIES[name].fullmatch(value), (name, value)
        conditions.add(request.query.get("conditions", ""))
    assert f'externalXRef="{reference(LARGEST)}"' in conditions
    for request in aftermath.world.autotask.received:
        assert re.fullmatch(r"/[A-Za-z0-9_./]+", request.path)
        for clause in _clauses(request.json.get("filter", [])) if "query" in request.path else ():
            assert clause["op"] in ("eq", "gt", "gte", "exist"), clause
            assert clause["field"] in (
                "id",
                "externalID",
                "companyID",
                "isActive",
                "referenceTitle",
                "serialNumber",
                "rmmDeviceAuditHostname",
            ), clause
    for request in aftermath.world.huntress.received:
        assert re.fullmatch(r"/v1/[a-z_]+(/[0-9]+)?", request.path), request.path
        assert request.query.keys() <= {
            "status",
            "limit",
            "page",
            "page_token",
            "organization_id",
            "sort_field",
            "sort_direction",
        }


def _clauses(filters: Any) -> Iterator[dict[str, Any]]:
    for each in filters:
        if "items" in each:
            yield from _clauses(each["items"])
        else:
            yield each


def test_nothing_leaves_its_field_in_the_ticket_systems(aftermath: Aftermath) -> None:
    created = aftermath.world.connectwise.requests_to("/service/tickets$", "POST")
    plain, *others = sorted(created, key=lambda request: int(request.json["externalXRef"].rsplit("-", 1)[1]))
    for request in others:
        assert request.json.keys() == plain.json.keys()
        assert request.json["board"] == plain.json["board"]
        assert request.json["automaticEmailContactFlag"] is False
        title, text = request.json["summary"], request.json["initialInternalAnalysis"]
        assert len(title.encode("utf-16-le")) <= 200
        assert title.endswith(f" [{request.json['externalXRef']}]")
        assert_tame(title, lines=False)
        assert_tame(text)
        assert request.json["initialDescription"] == (
            f"Security incident report {request.json['externalXRef'].rsplit('-', 1)[1]} from Huntress. "
            "Details are in the internal notes."
        )
    created = aftermath.world.autotask.requests_to("/Tickets$", "POST")
    plain, *others = sorted(created, key=lambda request: int(request.json["externalID"].rsplit("-", 1)[1]))
    for request in others:
        assert request.json.keys() == plain.json.keys()
        assert len(request.json["title"].encode("utf-16-le")) <= 2 * 255
        assert len(request.json["description"].encode("utf-16-le")) <= 2 * 8000
        assert_tame(request.json["title"], lines=False)
        assert_tame(request.json["description"])
    assert not aftermath.world.connectwise.contact_mail


def assert_tame(text: str, *, lines: bool = True) -> None:
    """Nothing invisible, nothing that reorders, and every line of ours is one that we wrote."""
    unwanted = "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\u200e\u200f\ud800-\udfff]"
    assert not re.search(unwanted, text), text[:400]
    assert lines or "\n" not in text
    assert "xxxxxxxxx49" not in text


_OURS = re.compile(
    r"(\* )?(Subject|Severity|Status at Huntress|Sent|Updated|Platform|Indicators|Report|URL|Reference|Organization|"
    r"Company|Host|Isolation or firewall state|System|IP addresses|Serial number|MAC addresses|Domain|Tags|"
    r"Last seen): .*|"
    r"(\* )?[0-9]+\. \[.*|(\* )?[0-9,]+ more in the Huntress portal|(\* )?No steps are listed; .*|"
    r"== (INCIDENT|WHERE|WHAT HUNTRESS ASKS TO BE DONE|WHAT HUNTRESS FOUND .*|DETAILS OF THE REPORT .*) ==|"
    r"Organization: .* This ticket is filed under the catch-all company .*|"
    r"Huntress has reported a security incident\. What is known about it follows\.|"
    r"\[huntress-5-[0-9]+/text[0-9-]*\]|"
    r"\[… [0-9,]+ characters more in the Huntress portal\]|"
)


def test_every_line_is_ours_or_quoted(aftermath: Aftermath, subtests: pytest.Subtests) -> None:
    for name in TICKETED:
        with subtests.test(name):
            body = aftermath.mail(name).message.get_body(("plain",))
            assert body is not None
            for text in (
                aftermath.connectwise(name)["initialInternalAnalysis"],
                aftermath.autotask_note(name),
                body.get_content(),
            ):
                lines = text.splitlines()
                strange = [line for line in lines if not line.startswith(">") and not _OURS.fullmatch(line)]
                assert strange == []
                for field in ("Severity: ", "Organization: ", "URL: ", "Reference: "):
                    told = [line for line in lines if line.removeprefix("* ").startswith(field)]
                    filed = [line for line in told if "This ticket is filed under" in line]
                    assert len(told) - len(filed) == 1, told


def test_templates_in_reports_are_text(aftermath: Aftermath) -> None:
    assert "{{ 7 * 7 }}{% for x in range(9) %}" in aftermath.connectwise("template syntax")["summary"]
    assert TEMPLATE in aftermath.connectwise("template syntax")["initialInternalAnalysis"]
    assert aftermath.autotask("template syntax")["title"].startswith(TEMPLATE)
    assert str(aftermath.mail("template syntax").message["Subject"]).startswith("{{ 7 * 7 }}")


_HEADERS = [
    "from",
    "to",
    "subject",
    "date",
    "message-id",
    "references",
    "auto-submitted",
    "x-auto-response-suppress",
    "x-huntress-report-id",
    "mime-version",
    "content-type",
]


def test_nothing_leaves_its_header_or_part_in_a_mail(aftermath: Aftermath, subtests: pytest.Subtests) -> None:
    for name in TICKETED:
        with subtests.test(name):
            mail = aftermath.mail(name)
            assert mail.recipient == "oncall@example.com"
            assert mail.sender == "bridge@example.com"
            head, _, body = mail.raw.partition(b"\r\n\r\n")
            lines = head.split(b"\r\n")
            assert sorted(line.split(b":")[0].decode().lower() for line in lines if line[:1] not in b" \t") == sorted(
                _HEADERS
            )
            assert mail.raw.isascii()
            assert not re.search(rb"(?<!\r)\n|\r(?!\n)|\x00", mail.raw)
            assert max(map(len, mail.raw.split(b"\r\n"))) <= 78
            message = email.message_from_bytes(mail.raw, policy=modern)
            assert [part.get_content_type() for part in message.walk()] == [
                "multipart/alternative",
                "text/plain",
                "text/html",
            ]
            assert not message.defects
            assert body.count(f"--{message.get_boundary()}".encode()) == 3
            subject = str(message["Subject"])
            assert len(subject) <= 200
            assert subject.endswith(f"[{reference(number_of(name))}]")
            assert_tame(subject, lines=False)


class _Page(HTMLParser):
    """The tags of a page and what their attributes say."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "action", "background")]
        if tag != "meta":
            assert not any("url(" in (value or "").lower() for _, value in attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


_TAGS = frozenset(
    (
        *("html", "head", "meta", "title", "body", "p", "h1", "h2", "span", "a"),
        *("table", "tr", "th", "td", "ol", "li", "b", "br", "code", "div"),
    )
)


def test_nothing_leaves_its_place_in_the_markup(aftermath: Aftermath, subtests: pytest.Subtests) -> None:
    for name in TICKETED:
        with subtests.test(name):
            message: EmailMessage = aftermath.mail(name).message
            part = message.get_body(("html",))
            assert part is not None
            page = _Page()
            page.feed(part.get_content())
            page.close()
            assert set(page.tags) <= _TAGS, set(page.tags) - _TAGS
            assert page.attributes <= {"lang", "charset", "name", "content", "style", "href", "scope"}
            number = number_of(name)
            assert len(page.links) <= 1
            for link in page.links:
                assert re.fullmatch(rf"https://[a-z-]+\.huntress\.io/org/[0-9]+/infection_reports/{number}", link)
            for tag in ("html", "head", "body", "table", "h1"):
                assert page.tags.count(tag) == 1
            if name in ("markup", "markup in a subject alone"):
                assert "<script>alert(1)</script>" in page.text
