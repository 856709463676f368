"""The source's client against the pretend Huntress, over real sockets."""

from __future__ import annotations

import base64
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from bridge.demo import scenario
from bridge.demo.huntress import PretendHuntress
from bridge.demo.server import Reply
from bridge.huntress import (
    BudgetExhausted,
    Dialect,
    HuntressClient,
    RequestKind,
    SourceDeclined,
    SourceError,
    SourceForbidden,
    SourceGarbled,
    SourceNotFound,
    SourceRefused,
    SourceThrottled,
    SourceUnavailable,
)
from bridge.models import Kind
from bridge.paging import MAX_EMPTY_PAGES, PAGE_SIZE, Pages, PagingError, Params

Connect = Callable[..., HuntressClient]


class Unlimited:
    """A budget that only writes down what it was asked."""

    def __init__(self, allowed: int = 10**9) -> None:
        self.allowed = allowed
        self.asked: list[tuple[RequestKind, float | None]] = []
        self.penalties: list[float] = []

    def acquire(self, kind: RequestKind, wait: float | None) -> None:
        if len(self.asked) >= self.allowed:
            raise BudgetExhausted("the requests of this minute are used up")
        self.asked.append((kind, wait))

    def penalize(self, seconds: float) -> None:
        self.penalties.append(seconds)


@pytest.fixture
def huntress() -> Iterator[PretendHuntress]:
    with PretendHuntress(organizations=3) as server:
        yield server


@pytest.fixture
def budget() -> Unlimited:
    return Unlimited()


@pytest.fixture
def connect(huntress: PretendHuntress, budget: Unlimited) -> Iterator[Connect]:
    made: list[HuntressClient] = []

    def _connect(**overrides: Any) -> HuntressClient:
        settings = huntress.settings(**overrides)
        settings.pop("requests_per_minute")
        made.append(HuntressClient(**{"budget": budget, "timeout": 5, **settings}))
        return made[-1]

    yield _connect
    for client in made:
        client.close()


@pytest.fixture
def client(connect: Connect) -> HuntressClient:
    return connect()


def ids(found: Any) -> list[int]:
    return sorted(item.id for item in found)


# --- single resources


@pytest.mark.parametrize("wrapped", [True, False])
def test_single_resources(huntress: PretendHuntress, client: HuntressClient, budget: Unlimited, wrapped: bool) -> None:
    huntress.wrapped = wrapped
    huntress.agents[12] = scenario.agent(12, 2)
    number = huntress.add_report(organization_id=2, agent_id=12)

    assert client.account().subdomain == "examplemsp"
    assert client.organization(1).name == "Acme Corp"
    assert client.agent(12, wait=5).hostname == "MACBOOK-12"
    assert client.report(number).organization_id == 2
    assert budget.asked == [("detail", None), ("detail", None), ("detail", 5), ("detail", None)]
    with pytest.raises(SourceNotFound, match="GET /agents/13"):
        client.agent(13)


def test_another_id_than_asked_for_is_no_answer(huntress: PretendHuntress, client: HuntressClient) -> None:
    huntress.reports[7] = scenario.incident(8, scenario.SAMPLE_ORGANIZATION)
    with pytest.raises(SourceGarbled, match="another id"):
        client.report(7)


@pytest.mark.parametrize("raw", [None, [], "x", {"name": "no id"}, {"id": None}])
def test_a_single_resource_without_id_is_garbled(huntress: PretendHuntress, client: HuntressClient, raw: Any) -> None:
    huntress.organizations[1] = raw
    with pytest.raises(SourceGarbled, match="/organizations/1"):
        client.organization(1)


def test_remediations_beyond_the_first_ten(huntress: PretendHuntress, client: HuntressClient) -> None:
    items = [{"id": i, "action": f"Step {i}"} for i in range(1, 24)]
    huntress.page_size_cap = 10
    number = huntress.add_report(remediations={"total_count": 23, "items": items})
    assert ids(client.remediations(number)) == list(range(1, 24))


def test_a_resellers_key_reads_a_child_account(huntress: PretendHuntress, connect: Connect) -> None:
    huntress.add_report()
    client = connect(account_id=5)
    assert client.account().id == 5
    assert len(list(client.organizations())) == 3
    assert len(client.open_reports("incident_reports").reports) == 1
    assert client.detect_dialect() == "incident_reports"
    assert {request.path.split("/accounts/5")[0] for request in huntress.received} == {"/v1"}
    with pytest.raises(SourceNotFound):
        connect(account_id=6).account()


# --- listings and paging


@pytest.mark.parametrize("pagination", ["token", "next_page", "total_pages"])
@pytest.mark.parametrize("cap", [500, 25, 1])
@pytest.mark.parametrize("dialect", ["incident_reports", "reports"])
def test_every_open_report_comes_whatever_the_paging(
    huntress: PretendHuntress, client: HuntressClient, budget: Unlimited, dialect: Dialect, pagination: Any, cap: int
) -> None:
    huntress.dialect, huntress.pagination, huntress.page_size_cap = dialect, pagination, cap
    wanted = [huntress.add_report(organization_id=2) for _ in range(26)]
    huntress.add_report(organization_id=3)
    huntress.close_report(wanted.pop())

    assert ids(client.open_reports(dialect, 2).reports) == wanted
    assert len(client.open_reports(dialect).reports) == 26
    assert {kind for kind, _ in budget.asked} == {"listing"}
    assert {request.query["limit"] for request in huntress.received} == {"500"}


def test_filters_are_repeated_and_urls_are_not_followed(huntress: PretendHuntress, client: HuntressClient) -> None:
    huntress.page_size_cap = 1
    for _ in range(3):
        huntress.add_report(organization_id=2)
    client.open_reports("incident_reports", 2)

    sent = [request.query for request in huntress.received if request.query["status"] == "sent"]
    assert len(sent) == 3
    assert all(query["organization_id"] == "2" and query["limit"] == "500" for query in sent)
    assert ["page_token" in query for query in sent] == [False, True, True]


def test_both_open_statuses_and_nothing_finished(huntress: PretendHuntress, client: HuntressClient) -> None:
    for status in ("sent", "auto_remediating", "closed", "dismissed", "partner_dismissed", "deleting"):
        huntress.add_report(status=status)
    listing = client.open_reports("incident_reports")
    assert sorted(report.status for report in listing.reports) == ["auto_remediating", "sent"]


def test_a_server_that_ignores_the_filter_does_not_reopen_reports(
    huntress: PretendHuntress, client: HuntressClient
) -> None:
    rows = [scenario.incident(n, scenario.SAMPLE_ORGANIZATION, status=s) for n, s in [(1, "sent"), (2, "closed")]]
    huntress.route("GET", "/v1/incident_reports", lambda _: Reply(200, {"incident_reports": rows}))
    assert ids(client.open_reports("incident_reports").reports) == [1]


@pytest.mark.parametrize(
    ("sent_at", "listed"), [(None, False), ("", False), ("2026-01-01T00:00:00Z", True), ("unreadable", True)]
)
def test_only_reports_that_were_sent(
    huntress: PretendHuntress, client: HuntressClient, sent_at: Any, listed: bool
) -> None:
    number = huntress.add_report(sent_at=sent_at)
    listing = client.open_reports("incident_reports")
    assert (ids(listing.reports), listing.unsent) == (([number], ()) if listed else ([], (number,)))
    assert not listing.unparsable


def test_bad_items_stop_no_others(huntress: PretendHuntress, client: HuntressClient) -> None:
    good = huntress.add_report()
    huntress.reports |= {1: None, 2: "x", 3: [], 4: {**scenario.SAMPLES["full"], "id": "abc"}}
    huntress.reports[5] = scenario.SAMPLES["hostile"]
    listing = client.open_reports("incident_reports")
    assert ids(listing.reports) == [good, 1003]
    assert [bad.raw for bad in listing.unparsable[1:]] == [[], "x", None]
    assert "no usable id: abc" in listing.unparsable[0].reason
    assert "null where an object is expected" in listing.unparsable[3].reason


def test_duplicates_across_pages_and_statuses(huntress: PretendHuntress, client: HuntressClient) -> None:
    huntress.page_size_cap = 2
    huntress.reports = {key: scenario.incident(number, scenario.SAMPLE_ORGANIZATION) for key, number in
                        [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3)]}  # fmt: skip
    assert sorted(r.id for r in client.open_reports("incident_reports").reports) == [1, 2, 3]


@pytest.mark.parametrize(
    ("kind", "plural"), [(Kind.ESCALATION, "escalations"), (Kind.PLATFORM_ACTION, "platform_actions")]
)
def test_open_escalations_and_platform_actions(
    huntress: PretendHuntress, client: HuntressClient, kind: Kind, plural: str
) -> None:
    add = huntress.add_escalation if kind is Kind.ESCALATION else huntress.add_platform_action
    numbers = [add([1, 2], status=status) for status in ("open", "overdue", "sent")]
    add([1], status="resolved", resolved_at="2026-01-22T01:07:08Z")
    huntress.page_size_cap = 1
    listing = client.further(kind)
    assert {report.id for report in listing.reports} == set(numbers)
    assert {report.kind for report in listing.reports} == {kind}
    assert {report.agent_id for report in listing.reports} == {None}
    assert listing.complete
    asked = huntress.requests_to(f"{plural}$")
    assert {request.query["status"] for request in asked} == {"open", "overdue"}
    assert {request.query["limit"] for request in asked} == {"500"}


def test_an_escalation_with_an_unknown_status_is_kept_apart(huntress: PretendHuntress, client: HuntressClient) -> None:
    number = huntress.add_escalation([1])
    # A server that ignores the filter: what is postponed may be open or over.
    huntress.route("GET", "/v1/escalations", lambda _: Reply(200, {"escalations": [*huntress.escalations.values()]}))
    with huntress.lock:
        huntress.escalations[number]["status"] = "postponed"
    listing = client.further(Kind.ESCALATION)
    assert listing.reports == ()
    assert {bad.report_id for bad in listing.unparsable} == {f"e{number}"}


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_single_escalation_comes_with_or_without_envelope(
    huntress: PretendHuntress, client: HuntressClient, wrapped: bool
) -> None:
    huntress.wrapped = wrapped
    number = huntress.add_escalation([2])
    found = client.one_further(Kind.ESCALATION, number)
    assert (found.key, found.organization_id, found.over) == (f"e{number}", 2, False)
    with pytest.raises(SourceNotFound):
        client.one_further(Kind.PLATFORM_ACTION, number)


def test_a_resellers_prefix_has_no_further_streams(huntress: PretendHuntress, connect: Connect) -> None:
    with pytest.raises(SourceForbidden, match=r"\[sources\] escalations = false"):
        connect(account_id=5).further(Kind.ESCALATION)
    assert huntress.received == []


def test_the_reports_dialect_carries_little(huntress: PretendHuntress, client: HuntressClient) -> None:
    huntress.dialect = "reports"
    number = huntress.add_report(organization_id=3)
    huntress.reports[1] = {
        "id": 1,
        "organization_id": 3,
        "type": "monthly_summary",
        "period": "2022-02",
        "status": "open",
    }
    (report,) = client.open_reports("reports", 3).reports
    assert (report.id, report.status, report.organization_id, report.subject) == (number, "open", 3, "")
    assert report.since is not None
    assert huntress.requests_to("/v1/reports")[0].query == {"status": "open", "organization_id": "3", "limit": "500"}


def test_unknown_words_for_open_in_the_reports_dialect(huntress: PretendHuntress, client: HuntressClient) -> None:
    rows = [{"id": n, "status": s} for n, s in enumerate(("Open", "active", None, "CLOSED", "resolved"), 1)]
    huntress.route("GET", "/v1/reports", lambda _: Reply(200, {"reports": rows}))
    assert ids(client.open_reports("reports").reports) == [1, 2, 3]


def test_a_page_that_fails_fails_the_listing(huntress: PretendHuntress, client: HuntressClient) -> None:
    huntress.page_size_cap = 1
    huntress.add_report()
    newest = huntress.add_report()
    huntress.fault("late", path="incident_reports")
    huntress.fault("status", path="incident_reports", status=503, body={"message": "busy"})
    moving = huntress.add_report(id=1, status="auto_remediating")
    with pytest.raises(SourceUnavailable, match="503: busy") as caught:
        client.open_reports("incident_reports")
    assert caught.value.shown is not None
    assert ids(caught.value.shown.reports) == [moving, newest], (
        "what was shown is open, and so is what has another status"
    )


@pytest.mark.parametrize("body", [None, [], "x", {}, {"incident_reports": None}, {"incident_reports": {"0": {}}}])
def test_a_page_without_a_list_fails_the_listing(huntress: PretendHuntress, client: HuntressClient, body: Any) -> None:
    huntress.route("GET", "/v1/incident_reports", lambda _: Reply(200, body))
    with pytest.raises(SourceGarbled, match="/incident_reports"):
        client.open_reports("incident_reports")
    with pytest.raises(SourceGarbled, match="/incident_reports"):
        client.detect_dialect()


def test_organizations_and_agents_are_left_out_with_a_warning(
    huntress: PretendHuntress, client: HuntressClient
) -> None:
    huntress.organizations[2] = {"name": "no id"}
    with capture_logs() as logs:
        assert ids(client.organizations()) == [1, 3]
    assert [entry["log_level"] for entry in logs if entry["event"] != "request"] == ["warning"]


def test_a_whole_list_of_organizations_leaves_none_out(huntress: PretendHuntress, client: HuntressClient) -> None:
    assert ids(client.organizations(whole=True)) == [1, 2, 3]
    huntress.organizations[2] = {"name": "no id"}
    with pytest.raises(SourceGarbled, match="listed organizations, one of which cannot be read"):
        list(client.organizations(whole=True))


def test_memberships(huntress: PretendHuntress, client: HuntressClient, budget: Unlimited) -> None:
    huntress.page_size_cap = 1
    found = {membership.id: membership for membership in client.memberships()}
    assert {number: (one.permissions, one.email) for number, one in found.items()} == {
        1: ("Admin", "admin@example.com"),
        2: ("Read-only", "reader@example.com"),
    }
    assert {kind for kind, _ in budget.asked} == {"detail"}
    huntress.memberships = None
    with pytest.raises(SourceForbidden):
        list(client.memberships())


def test_agents_of_one_organization(huntress: PretendHuntress, client: HuntressClient, budget: Unlimited) -> None:
    huntress.agents = {n: scenario.agent(n, 1 + n % 2) for n in range(1, 9)}
    assert ids(client.agents(2)) == [1, 3, 5, 7]
    assert len(list(client.agents())) == 8
    assert {kind for kind, _ in budget.asked} == {"detail"}


def test_fifty_thousand_agents_are_flat_in_memory() -> None:
    row = scenario.agent(1)

    def fetch(params: Params) -> Any:
        page = int(params.get("page", 1))
        items = [{**row, "id": (page - 1) * PAGE_SIZE + n} for n in range(1, PAGE_SIZE + 1)]
        return {"agents": items, "pagination": {"current_page": page, "total_pages": 100}}

    tracemalloc.start()
    count = sum(len(page) for page in Pages(fetch, "agents", {}))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 50_000
    assert peak < 12_000_000


def scripted(*answers: Any) -> Callable[[Params], Any]:
    """A server that gives these answers in turn, the last one for ever."""
    left = list(answers)
    return lambda params: left.pop(0) if len(left) > 1 else left[0]


def page(*numbers: int, **pagination: Any) -> Mapping[str, Any]:
    return {"rows": [{"id": n} for n in numbers], "pagination": pagination}


@pytest.mark.parametrize(
    ("answers", "problem"),
    [
        ([page(1, next_page_token="a"), page(2, next_page_token="a")], "circle"),
        ([page(1, next_page_token="a"), page(2, next_page_token="b"), page(3, next_page_token="a")], "circle"),
        ([page(1, next_page_token="a"), page(1, next_page_token="b")], "repeats"),
        ([page(1, total_pages=3), page(1, total_pages=3)], "repeats"),
        ([page(1, total_pages=2), page(1, total_pages=2)], "repeats"),
        ([page(1, next_page=2), page(2, next_page=2)], "names page 2"),
        ([page(1, next_page=1)], "names page 1"),
        ([page(1, next_page=3)], "names page 3"),
        ([page(1, total_pages=9), page(2, total_pages=9, current_page=1)], "page 2 was asked for and page 1 came"),
        ([page(1, total_pages=9), page(total_pages=9)], "empty"),
        ([page(1, total_pages="many")], "total_pages is not a number"),
        ([page(1, next_page=-1)], "next_page is not a number"),
        ([page(1, next_page_token={"x": 1})], "next_page_token"),
        ([{"rows": [{"id": 1}], "pagination": "x"}], "not an object"),
        ([page(1, next_page_token="a"), {"pagination": {}}], "no list of rows"),
    ],
)
def test_pages_that_do_not_add_up(answers: list[Any], problem: str) -> None:
    with pytest.raises(PagingError, match=problem):
        list(Pages(scripted(*answers), "rows", {}))


def test_endless_paging_ends() -> None:
    tokens = iter(range(1, 10**9))
    with pytest.raises(PagingError, match=f"{MAX_EMPTY_PAGES} pages in a row"):
        list(Pages(lambda _: page(next_page_token=next(tokens)), "rows", {}))
    with pytest.raises(PagingError, match="does not end"):
        list(Pages(lambda _: page(next(tokens), next_page_token=next(tokens)), "rows", {}))


@pytest.mark.parametrize(
    "last",
    [
        page(2),
        {"rows": [{"id": 2}]},
        {"rows": [{"id": 2}], "pagination": None},
        {"rows": [{"id": 2}], "pagination": []},
        page(2, next_page_token=None, next_page_url=None),
        page(2, next_page=None, current_page=2),
        page(2, current_page="2", total_pages="2"),
        page(2, current_page=2, total_count=504, limit=500),
        page(),
    ],
)
def test_ends_of_a_listing(last: Any) -> None:
    found = [row["id"] for rows in Pages(scripted(page(1, next_page=2), last), "rows", {}) for row in rows]
    assert found == [1, 2][: 1 + len(last["rows"])]


def test_a_count_without_pages_is_not_cut_short() -> None:
    """Seen on the vendor's API: `total_count` and `limit`, but neither `next_page` nor `total_pages`."""
    answers = scripted(page(1, 2, total_count=3, limit=2), page(3, total_count=3, limit=2))
    assert sum(len(rows) for rows in Pages(answers, "rows", {})) == 3


# --- which dialect?

MONTHLY = {"id": 1, "type": "monthly_summary", "period": "2022-02-01...2022-03-02"}


@pytest.mark.parametrize(
    ("dialect", "reports", "expected"),
    [
        ("incident_reports", [], "incident_reports"),
        ("incident_reports", [{"id": 1}], "incident_reports"),
        ("reports", [], None),
        ("reports", [{"id": 1, "status": "open"}], "reports"),
        ("reports", [{"id": 1, "status": "closed"}], "reports"),
        ("reports", [MONTHLY], SourceNotFound),
        ("reports", [{**MONTHLY, "status": "open"}], SourceNotFound),
        ("reports", [{"id": 1}], SourceNotFound),
        ("reports", [None], SourceNotFound),
    ],
)
def test_detecting_the_dialect(
    huntress: PretendHuntress, client: HuntressClient, dialect: Dialect, reports: list[Any], expected: Any
) -> None:
    huntress.dialect = dialect
    huntress.summaries[1] = MONTHLY
    huntress.reports = dict(enumerate(reports))
    if expected is SourceNotFound:
        with pytest.raises(SourceNotFound, match="summaries, not incidents"):
            client.detect_dialect()
    else:
        assert client.detect_dialect() == expected


def test_detecting_looks_at_several_organizations(huntress: PretendHuntress, client: HuntressClient) -> None:
    huntress.dialect = "reports"
    huntress.add_report(organization_id=3)
    assert client.detect_dialect([1, 2]) is None
    assert client.detect_dialect([1, 2, 3]) == "reports"


def test_neither_dialect(huntress: PretendHuntress, connect: Connect) -> None:
    with pytest.raises(SourceNotFound, match="base_url"):
        connect(base_url=f"{huntress.url}/v2").detect_dialect()


# --- errors


@pytest.mark.parametrize(
    ("status", "error", "fatal", "says"),
    [
        (400, SourceUnavailable, False, "400: no"),
        (401, SourceRefused, True, "api_secret"),
        (403, SourceForbidden, False, "account_id"),
        (404, SourceNotFound, False, "GET /organizations/1"),
        (429, SourceThrottled, True, "60 s"),
        (500, SourceUnavailable, False, "500: no"),
        (302, SourceRefused, True, "base_url"),
    ],
)
def test_statuses(
    huntress: PretendHuntress, client: HuntressClient, status: int, error: type[SourceError], fatal: bool, says: str
) -> None:
    body = {"message": f"no {huntress.credentials[1]}"}
    headers = {"Location": f"{huntress.url}/elsewhere"}
    huntress.fault("status", status=status, body=body, times=None, headers=headers)
    with pytest.raises(SourceError, match=says) as caught:
        client.organization(1)
    assert (type(caught.value), caught.value.fatal) == (error, fatal)
    assert not huntress.requests_to("elsewhere")
    assert_no_secret(huntress, caught.value)


@pytest.mark.parametrize("kind", ["drop", "hang", "garbage"])
def test_no_usable_answer(huntress: PretendHuntress, client: HuntressClient, kind: Any) -> None:
    huntress.fault(kind, times=None)
    with pytest.raises(SourceUnavailable) as caught:
        client.organization(1)
    assert_no_secret(huntress, caught.value)


def test_a_slow_answer_times_out(huntress: PretendHuntress, connect: Connect) -> None:
    huntress.fault("trickle")
    with pytest.raises(SourceUnavailable):
        connect(timeout=0.2).organization(1)


def test_nobody_listens(huntress: PretendHuntress, client: HuntressClient) -> None:
    huntress.stop()
    with pytest.raises(SourceUnavailable, match="refused"):
        client.account()


def test_the_wrong_key(huntress: PretendHuntress, connect: Connect) -> None:
    with pytest.raises(SourceRefused, match="api_key"):
        connect(api_secret="hs_wrong").account()
    sent = huntress.received[0].headers["Authorization"]
    assert base64.b64decode(sent.removeprefix("Basic ")) == b"hk_pretend:hs_wrong"


def assert_no_secret(huntress: PretendHuntress, error: BaseException | None) -> None:
    key, secret = huntress.credentials
    encoded = base64.b64encode(f"{key}:{secret}".encode()).decode()
    while error is not None:
        said = f"{error!s} {error!r} {error.args}"
        assert secret not in said
        assert encoded not in said
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize(
    ("base_url", "says"),
    [
        ("http://api.example.com/v1", "plain http to api.example.com"),
        ("http://localhost.example.com/v1", "plain http"),
        ("http://127.0.0.1.example.com/v1", "plain http"),
        ("ftp://api.example.com", "must be a URL"),
        ("api.example.com/v1", "must be a URL"),
        ("", "must be a URL"),
        ("https://", "must be a URL"),
        ("https://key:hs_pretend-secret@api.example.com/v1", "without user"),
        ("https://api.example.com/v1?x=1", "without user"),
        ("https://[::1/v1", "not a URL"),
    ],
)
def test_addresses_that_no_key_is_sent_to(
    huntress: PretendHuntress, connect: Connect, base_url: str, says: str
) -> None:
    with pytest.raises(SourceRefused, match=says) as caught:
        connect(base_url=base_url)
    assert_no_secret(huntress, caught.value)


@pytest.mark.parametrize(
    ("base_url", "insecure_http"),
    [
        ("https://api.example.com/v1/", False),
        ("http://localhost:1/v1", False),
        ("http://[::1]:1", False),
        ("http://api.example.com/v1", True),
    ],
)
def test_addresses_that_are_fine(connect: Connect, base_url: str, insecure_http: bool) -> None:
    connect(base_url=base_url, insecure_http=insecure_http)


# --- being a good client


@pytest.mark.parametrize(("header", "expected"), [(None, 60), ("7", 7), ("86400", 900), ("soon", 60)])
def test_429_is_sat_out_in_the_budget(
    huntress: PretendHuntress, client: HuntressClient, budget: Unlimited, header: str | None, expected: float
) -> None:
    huntress.fault("status", status=429, times=2, headers={"Retry-After": header} if header else {})
    assert len(list(client.organizations())) == 3
    assert budget.penalties == [expected, expected]
    assert len(budget.asked) == len(huntress.received) == 3


def test_429_ends_a_read_that_may_not_wait(
    huntress: PretendHuntress, client: HuntressClient, budget: Unlimited
) -> None:
    huntress.fault("status", status=429, times=None)
    with pytest.raises(SourceThrottled) as caught:
        client.organization(1, wait=5)
    assert caught.value.retry_after == 60
    assert (len(huntress.received), budget.penalties) == (1, [60])
    with pytest.raises(SourceThrottled):
        client.organization(1)
    assert len(huntress.received) == 4


def test_an_exhausted_budget_sends_nothing(huntress: PretendHuntress, connect: Connect) -> None:
    huntress.page_size_cap = 1
    client = connect(budget=Unlimited(allowed=2))
    with pytest.raises(BudgetExhausted):
        list(client.organizations())
    assert len(huntress.received) == 2


# --- the pretend Huntress itself


def test_the_pretend_rate_limit(huntress: PretendHuntress, client: HuntressClient) -> None:
    huntress.rate_limit, huntress.retry_after = 2, "3"
    client.account()
    client.account()
    with pytest.raises(SourceThrottled) as caught:
        client.account(wait=1)
    assert caught.value.retry_after == 3


def test_the_pretend_reports_dialect_has_no_incident_reports(huntress: PretendHuntress, client: HuntressClient) -> None:
    huntress.dialect = "reports"
    number = huntress.add_report()
    with pytest.raises(SourceNotFound):
        client.open_reports("incident_reports")
    with pytest.raises(SourceNotFound):
        client.report(number)
    assert not huntress.handler_errors


@pytest.mark.parametrize("number", range(12))
def test_every_kind_of_incident_is_believable(number: int) -> None:
    organization, agent = scenario.organization(1 + number), scenario.agent(1 + number)
    raw = scenario.incident(1 + number, organization, agent)
    where = raw["subject"].split(" on ")[1]
    assert where == f"{agent['hostname'] if raw['agent_id'] else 'user@example.com'} ({organization['name']})"
    assert raw["severity"] in ("low", "high", "critical")
    assert raw["agent_id"] is None or raw["platform"] == agent["platform"]
    texts = [raw["summary"], raw["body"], *(str(r["parameters"]) for r in raw["remediations"]["items"])]
    assert not [text for text in texts if "{host}" in text or "{seen}" in text or "{domain}" in text]


@pytest.mark.parametrize("status", [403, 404])
def test_a_key_that_may_not_read_the_account_learns_its_id_from_the_organizations(
    huntress: PretendHuntress, client: HuntressClient, status: int
) -> None:
    huntress.organizations[1] = scenario.organization(1)
    huntress.fault("status", path="/account$", status=status, times=None)
    assert client.account().id == scenario.ACCOUNT_ID
    huntress.organizations.clear()
    with pytest.raises(SourceError, match="base_url"):
        client.account()


# -- resolving ---------------------------------------------------------------------------------------------------------


def test_a_report_whose_steps_are_approved_is_resolved(
    huntress: PretendHuntress, connect: Connect, budget: Unlimited
) -> None:
    huntress.add_report(id=1, remediations=None)
    connect(account_id=5).resolve(1)
    assert huntress.reports[1]["status"] == "closed"
    assert budget.asked == [("detail", None)]
    [request] = huntress.received
    assert (request.method, request.path, request.body) == ("POST", "/v1/accounts/5/incident_reports/1/resolution", b"")


@pytest.mark.parametrize(
    ("status", "error", "told"),
    [
        (401, SourceRefused, "default API key is read-only"),
        (403, SourceForbidden, "default API key is read-only"),
        (404, SourceNotFound, "POST /incident_reports/1/resolution"),
        (409, SourceDeclined, "Huntress answered 409: not like that"),
        (422, SourceDeclined, "Huntress answered 422: not like that"),
        (500, SourceUnavailable, "Huntress answered 500"),
    ],
)
def test_a_report_that_is_not_resolved(
    huntress: PretendHuntress, client: HuntressClient, status: int, error: type[SourceError], told: str
) -> None:
    huntress.fault("status", status=status, body={"message": "not like that"}, times=None)
    with pytest.raises(error, match=told) as raised:
        client.resolve(1)
    assert type(raised.value) is error
    assert len(huntress.received) == 1


def test_429_to_a_resolution_keeps_everybody_waiting_and_is_not_repeated(
    huntress: PretendHuntress, client: HuntressClient, budget: Unlimited
) -> None:
    huntress.fault("status", status=429, headers={"Retry-After": "7"}, times=1)
    with pytest.raises(SourceThrottled):
        client.resolve(1)
    assert budget.penalties == [7]
    assert len(huntress.received) == 1
