"""What the overview says: what is wrong and what to do about it, and how all is going."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Literal

from bridge.absences import Absences
from bridge.counters import COUNTED_SEVERITIES, Counters, Histogram
from bridge.health import STALE
from bridge.models import DeliveryState
from bridge.runtime import Runtime
from bridge.text import one_line, shorten
from bridge.web.charts import Chart, Series, bars
from bridge.web.site import Site
from bridge.web.times import lasted
from bridge.web.troubles import Trouble, find_troubles

#: Days that the charts may show.
SPANS = (14, 30)
#: Without these nothing moves.
NEEDED = ("poller", "worker")
#: Seconds after which a report that waits for its ticket needs a person, as in `docs/monitoring/alerts.yml`.
LATE = 900.0
#: Longest sentence of a problem, in characters.
LONGEST = 600

#: What to do about each kind of trouble.
_ADVICE = {
    "poll": "What is new becomes no ticket meanwhile, and none is lost. Check that a poller runs, the network, and "
    "api_key and api_secret under [huntress].",
    "stream": "Incident reports are not concerned. Check that the API key may read it.",
    "paused": "Mend what the reason names, if it names something; the connector is probed by itself, and what waits "
    "goes out then.",
    "untold": "Check the connectors named under [alerts].",
    "processes": "Start it, or look into its log.",
    "configuration": "The version before stays in use. Mend the file; it is read again by itself.",
    "late": "Each delivery says why it waits; mend that, and it goes out by itself.",
    "unserved": "Configure that connector again, or mark them as handled.",
    "rejected": "Mend what each reason names, then retry; or mark it as handled.",
    "held": "Look whether the ticket exists, then link it, retry, or mark it as handled.",
    "quarantine": "These reports cannot be read, so they make no ticket: look at them at Huntress.",
}
#: Which page, and which of its filters, leads on.
_LINKS: Mapping[str, tuple[str, str, Mapping[str, str]]] = {
    "late": ("deliveries.show", "Show them", {"state": "waiting"}),
    "unserved": ("deliveries.show", "Show them", {"state": "waiting"}),
    "rejected": ("deliveries.show", "Show them", {"state": "rejected"}),
    "held": ("deliveries.show", "Show them", {"state": "held"}),
    "quarantine": ("quarantine.show", "Show them", {}),
    "paused": ("connectors.show", "To the connectors", {}),
    "untold": ("connectors.show", "To the connectors", {}),
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that needs a person. `endpoint` and `arguments` lead to where it can be mended; '': nowhere here."""

    text: str
    advice: str
    endpoint: str = ""
    label: str = ""
    arguments: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class ConnectorLine:
    """How one connector is doing. Times are seconds since the epoch; None for the counts: not counted yet."""

    name: str
    type: str
    state: Literal["serving", "paused"]
    reason: str
    until: float | None
    next_probe: float | None
    waiting: int | None
    #: Refused or held.
    stuck: int | None


@dataclass(frozen=True, slots=True)
class Overview:
    """Times are seconds since the epoch by Redis' clock, durations seconds."""

    verdict: str
    problems: list[Problem]
    last_poll: float | None
    cycle: float | None
    requests: int
    requests_most: int
    open_reports: int
    unlisted: int
    waiting: int
    refused: int
    held: int
    made_today: int
    typical: float | None
    slowest: float | None
    connectors: list[ConnectorLine]
    reports: Chart
    times: Chart
    days: int

    @property
    def well(self) -> bool:
        return not self.problems


def overview(site: Site, days: int = SPANS[0]) -> Overview:
    """How all is going now. Raises `redis.RedisError`."""
    runtime = site.runtime
    store, poll = runtime.store, runtime.books.poll()
    counted = {state: store.count(state) for state in DeliveryState}
    waiting = counted[DeliveryState.PENDING] + counted[DeliveryState.CREATING]
    problems = list(find_problems(runtime, counted))
    counters = Counters(store)
    times = counters.delivery_times(days)
    today = next(reversed(times.values()), Histogram())
    return Overview(
        verdict=verdict(len(problems), waiting),
        problems=problems,
        last_poll=poll.last_complete_at,
        cycle=poll.cycle_seconds,
        requests=runtime.budget.used(),
        requests_most=runtime.settings.huntress.requests_per_minute,
        open_reports=store.open_reports(),
        unlisted=len(Absences(store).missing()),
        waiting=waiting,
        refused=counted[DeliveryState.REJECTED],
        held=counted[DeliveryState.HELD],
        made_today=today.count,
        typical=today.quantile(0.5),
        slowest=today.quantile(0.95),
        connectors=list(connector_lines(site)),
        reports=reports_chart(counters.reports_per_day(days)),
        times=times_chart(times),
        days=days,
    )


def verdict(problems: int, waiting: int) -> str:
    """Is all well, as one sentence."""
    if problems:
        return "One thing needs a person." if problems == 1 else f"{problems} things need a person."
    if waiting:
        return f"All is well; {'one ticket is' if waiting == 1 else f'{waiting:,} tickets are'} on the way."
    return "All is well: every open report has its tickets."


def find_problems(runtime: Runtime, counted: Mapping[DeliveryState, int]) -> Iterator[Problem]:
    """What needs a person, what stops everything first."""
    troubles = list(find_troubles(runtime))
    yield from (_of(trouble) for trouble in troubles if trouble.kind == "poll")
    yield from (_problem("processes", text) for text in silent(runtime))
    yield from (_of(trouble) for trouble in troubles if trouble.kind != "poll")
    yield from late(runtime, {trouble.connector for trouble in troubles if trouble.kind == "paused"})
    refused, held = counted[DeliveryState.REJECTED], counted[DeliveryState.HELD]
    if refused:
        what = "One ticket was" if refused == 1 else f"{refused:,} tickets were"
        yield _problem("rejected", f"{what} refused by the ticket system for good.")
    if held:
        what = "One delivery is" if held == 1 else f"{held:,} deliveries are"
        yield _problem("held", f"{what} held: whether there is a ticket is not known.")
    quarantined = runtime.books.quarantined_count()
    if quarantined:
        what = "One report is" if quarantined == 1 else f"{quarantined:,} reports are"
        yield _problem("quarantine", f"{what} in quarantine.")
    for host, text in runtime.books.configuration_problems().items():
        yield _problem("configuration", f"On {host} the changed configuration is refused: {text}")


def silent(runtime: Runtime) -> Iterator[str]:
    """Processes that are needed and give no sign of life, or say that they do not do their work."""
    now = runtime.store.now()
    beats = runtime.books.heartbeats()
    alive = {beat.role for beat in beats if abs(now - beat.at) <= STALE}
    for role in NEEDED:
        if role not in alive:
            yield f"No {role} gives a sign of life."
    for beat in beats:
        if beat.problem and abs(now - beat.at) <= STALE:
            yield f"The {beat.role} on {beat.host} (pid {beat.pid}) does not do its work: {beat.problem}."


def late(runtime: Runtime, paused: Container[str]) -> Iterator[Problem]:
    """Connectors whose tickets wait too long, though no pause says why: their system is away, or nobody serves them."""
    now = runtime.store.now()
    for name in sorted({*runtime.services, *runtime.store.connectors()}):
        count, since = runtime.store.waiting(name)
        if since is None or now - since <= LATE or name in paused:
            continue
        kind = "late" if name in runtime.services else "unserved"
        unserved = ", which is not configured any more" if kind == "unserved" else ""
        what = (
            f"One ticket waits for connector {name}{unserved}, for"
            if count == 1
            else (f"{count:,} tickets wait for connector {name}{unserved}, the first for")
        )
        yield _problem(kind, f"{what} {lasted(now - since)}.", connector=name)


def _of(trouble: Trouble) -> Problem:
    text = trouble.text[:1].upper() + trouble.text[1:]
    return _problem(trouble.kind, text if text.endswith((".", "!", "?")) else f"{text}.")


def _problem(kind: str, text: str, **more: str) -> Problem:
    """`more`: further filters of the page that the kind leads to."""
    endpoint, label, arguments = _LINKS.get(kind, ("", "", {}))
    return Problem(shorten(one_line(text), LONGEST), _ADVICE[kind], endpoint, label, {**arguments, **more})


def connector_lines(site: Site) -> Iterator[ConnectorLine]:
    """Every configured connector."""
    store = site.runtime.store
    counted = site.index.unsettled() if site.index.look().ready else None
    for name, service in site.runtime.services.items():
        pause = store.paused(name)
        yield ConnectorLine(
            name=name,
            type=service.connector.type,
            state="serving" if pause is None else "paused",
            reason="" if pause is None else shorten(one_line(pause.reason), LONGEST),
            until=None if pause is None else pause.until,
            next_probe=None if pause is None else pause.next_probe,
            waiting=None if counted is None else counted.get(name, (0, 0))[0],
            stuck=None if counted is None else counted.get(name, (0, 0))[1],
        )


def reports_chart(per_day: Mapping[date, Mapping[str, int]]) -> Chart:
    series = [
        Series(severity, severity, [counts.get(severity, 0) for counts in per_day.values()])
        for severity in COUNTED_SEVERITIES
    ]
    shown = [each for each in series if each.kind != "other" or any(each.values)]
    title = "Reports per day"
    return bars("reports", title, list(per_day), shown, stacked=True, least=4, shown=lambda value: f"{value:,.0f}")


def times_chart(per_day: Mapping[date, Histogram]) -> Chart:
    halves = Series("half within", "one", [each.quantile(0.5) for each in per_day.values()])
    most = Series("95 % within", "two", [each.quantile(0.95) for each in per_day.values()])
    title = "Time from sent to ticket"
    return bars(
        "times", title, list(per_day), [halves, most], stacked=False, least=2, shown=lambda value: _brief(value)
    )


def _brief(seconds: float) -> str:
    return lasted(seconds) if seconds else "0"
