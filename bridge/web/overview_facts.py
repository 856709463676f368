"""What the overview says: what is wrong and what to do about it, and how all is going."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Literal

from bridge.absences import Absences
from bridge.counters import COUNTED_SEVERITIES, Counters, Histogram
from bridge.models import DeliveryState
from bridge.routing import not_before
from bridge.runtime import Runtime
from bridge.text import one_line, shorten
from bridge.web.charts import Chart, Series, bars
from bridge.web.concerns import find_concerns
from bridge.web.site import Site
from bridge.web.times import lasted
from bridge.web.troubles import find_troubles

#: Days that the charts may show.
SPANS = (14, 30)
#: Longest sentence of a problem, in characters.
LONGEST = 600

#: What to do about each kind of trouble.
_ADVICE = {
    "poll": "What is new becomes no ticket meanwhile, and none is lost. Check that a poller runs, the network, and "
    "api_key and api_secret under [huntress].",
    "stream": "Incident reports are not concerned. Check that the API key may read it.",
    "paused": "Mend what the reason names; the connector is probed by itself, and what waits goes out then.",
    "late": "It is tried again by itself. Mend what the reason names; if one is urgent, make the ticket by hand and "
    "take it over with `link`.",
    "untold": "Check the connectors named under [alerts].",
    "processes": "Start it, or look into its log.",
    "configuration": "The version before stays in use. Mend the file; it is read again by itself.",
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
    #: What may mend itself, in sentences.
    concerns: list[str]
    last_poll: float | None
    cycle: float | None
    requests: int
    requests_most: int
    open_reports: int
    unlisted: int
    #: Whoever has the reports that were sent before this day keeps them (`not_before`); '': there is no such day.
    since: str
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
    def mood(self) -> Literal["good", "wait", "bad"]:
        return "bad" if self.problems else "wait" if self.concerns else "good"


def overview(site: Site, days: int = SPANS[0]) -> Overview:
    """How all is going now. Raises `redis.RedisError`."""
    runtime = site.runtime
    store, poll = runtime.store, runtime.books.poll()
    counted = {state: store.count(state) for state in DeliveryState}
    waiting = counted[DeliveryState.PENDING] + counted[DeliveryState.CREATING]
    on_the_way = sum(store.waiting(name)[0] for name in {*runtime.services, *store.connectors()})
    problems = list(find_problems(runtime, counted))
    concerns = [_sentence(each) for each in find_concerns(runtime)]
    counters = Counters(store)
    times = counters.delivery_times(days)
    today = next(reversed(times.values()), Histogram())
    return Overview(
        verdict=verdict(len(problems), len(concerns), min(on_the_way, waiting), max(0, waiting - on_the_way)),
        problems=problems,
        concerns=concerns,
        last_poll=poll.last_complete_at,
        cycle=poll.cycle_seconds,
        requests=runtime.budget.used(),
        requests_most=runtime.settings.huntress.requests_per_minute,
        open_reports=store.open_reports(),
        unlisted=Absences(store).count(),
        since=since(runtime),
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


def since(runtime: Runtime) -> str:
    """The day of `[poll] not_before`, in the configured zone."""
    moment = not_before(runtime.store, runtime.settings.poll.not_before, "poll", pin=False)
    return "" if moment is None else f"{moment.astimezone(runtime.settings.zone):%Y-%m-%d %H:%M}"


def verdict(problems: int, concerns: int, on_the_way: int, quiet: int) -> str:
    """Is all well, as one sentence. `quiet`: tickets that quiet hours hold back."""
    if problems:
        return "One thing needs a person." if problems == 1 else f"{problems} things need a person."
    if concerns:
        return "Nothing needs a person yet, but not all is well."
    parts = []
    if on_the_way:
        parts.append("one ticket is on the way" if on_the_way == 1 else f"{on_the_way:,} tickets are on the way")
    if quiet:
        what = "one waits" if quiet == 1 else f"{quiet:,} wait"
        parts.append(f"{what} until quiet hours or maintenance end")
    return f"All is well; {', '.join(parts)}." if parts else "All is well: every open report has its tickets."


def find_problems(runtime: Runtime, counted: Mapping[DeliveryState, int]) -> Iterator[Problem]:
    """What needs a person, what stops everything first."""
    for trouble in find_troubles(runtime):
        its = {"connector": trouble.connector} if trouble.kind in ("late", "unserved") else {}
        yield _problem(trouble.kind, trouble.text, **its)
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


def _problem(kind: str, text: str, **more: str) -> Problem:
    """`more`: further filters of the page that the kind leads to."""
    endpoint, label, arguments = _LINKS.get(kind, ("", "", {}))
    return Problem(_sentence(text), _ADVICE[kind], endpoint, label, {**arguments, **more})


def _sentence(text: str) -> str:
    text = shorten(one_line(text[:1].upper() + text[1:]), LONGEST)
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."


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
