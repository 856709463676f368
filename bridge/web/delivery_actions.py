"""What a person has done to deliveries from the list or from one delivery's page: retried, or marked as handled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

from flask import Blueprint, flash, redirect, render_template, request, url_for
from werkzeug.datastructures import MultiDict
from werkzeug.wrappers import Response as Answer

from bridge import steering
from bridge.models import DeliveryState, ReportKey
from bridge.reading import Pair
from bridge.retrying import FORGOTTEN, RETRIED, retry_all
from bridge.web.delivery_filter import Filter
from bridge.web.delivery_rows import Names
from bridge.web.delivery_table import Place, named_so
from bridge.web.picking import NoReason, picked, reason_in
from bridge.web.site import Site


def add_to(
    pages: Blueprint,
    site: Site,
    names: Names,
    *,
    page: Callable[..., str],
    one: Callable[[ReportKey, str, str], str],
) -> None:
    """The addresses that act. `page` shows the list again, `one` a delivery, with what a person typed."""

    @pages.post("/deliveries/retry")
    def retry() -> Answer:
        chosen = picked(request.form)
        if not chosen:
            flash("Nothing was chosen, so nothing was retried. Mark the deliveries first.", "failed")
        else:
            before = retry_all(site.runtime.store, chosen)
            for report_id, connector in chosen:
                site.audit("retry", report_id=report_id, connector=connector)
            for sentence, kind in told(before):
                flash(sentence, kind)
        return back(site, request.form)

    @pages.post("/deliveries/handle")
    def handle() -> Answer | tuple[str, int]:
        chosen = picked(request.form)
        try:
            if not chosen:
                raise NoReason("Nothing was chosen, so nothing was marked. Choose the deliveries first.")
            reason = reason_in(request.form)
        except NoReason as problem:
            flash(str(problem), "failed")
            typed = request.form.get("reason", "")
            if len(chosen) == 1 and request.form.get("from") == "delivery":
                with suppress(LookupError):
                    return one(*chosen[0], typed), 400
            return page(request.form, typed, request.form.getlist("pick")), 400
        done = 0
        for report_id, connector in chosen:
            refusal = steering.handle(site.runtime.store, report_id, connector, reason)
            site.audit(
                "handle",
                outcome="refused" if refusal else "done",
                report_id=report_id,
                connector=connector,
                reason=reason,
            )
            if refusal:
                flash(refusal[:1].upper() + refusal[1:] + ".", "failed")
            done += not refusal
        if done:
            flash(f"{counted(done)} marked as handled.", "done")
        return back(site, request.form)

    @pages.get("/deliveries/retry-all")
    def confirm() -> str:
        known = names.all()
        wanted, problems = Filter.read(request.args)
        progress = site.index.look()
        fitting = retriable(wanted)
        count = len(list(_matching(site, fitting, known))) if fitting else 0
        return render_template(
            "retry_all.html", wanted=wanted, problems=problems, progress=progress, count=count, names=known
        )

    @pages.post("/deliveries/retry-all")
    def retry_matching() -> Answer:
        wanted, problems = Filter.read(request.form)
        site.index.look()
        fitting = retriable(wanted)
        if problems or fitting is None:
            flash("The filter makes no sense any more, so nothing was retried.", "failed")
            return back(site, request.form)
        before = retry_all(site.runtime.store, list(_matching(site, fitting, names.all())))
        site.audit("retry all that match", filter=wanted.query(), count=before.total())
        for sentence, kind in told(before):
            flash(sentence, kind)
        return back(site, request.form)


def retriable(wanted: Filter) -> Filter | None:
    """What `retry` of all that match may touch: what is settled stays, handled ones only when asked for by name."""
    if wanted.state == str(DeliveryState.HANDLED):
        return wanted
    states = wanted.states or RETRIED
    return None if not set(states) & set(RETRIED) else wanted


def _matching(site: Site, wanted: Filter, names: Mapping[int, str]) -> Iterator[Pair]:
    """Of what fits a filter, what may be retried."""
    states = set(wanted.states) & {*RETRIED, DeliveryState.HANDLED} or RETRIED
    for state in states:
        one = Filter(str(state), wanted.connector, wanted.severity, wanted.organization, wanted.text)
        yield from site.index.pairs(one, named=named_so(wanted.words(), names))


def counted(number: int) -> str:
    return "1 delivery" if number == 1 else f"{number:,} deliveries"


def told(before: Counter[str]) -> Iterator[tuple[str, str]]:
    """What became of a retry, by the states before: (sentence, kind of message)."""
    due = sum(before[state] for state in (*RETRIED, DeliveryState.HANDLED))
    if due:
        doubtful = before[DeliveryState.CREATING]
        more = f" {counted(doubtful)} in doubt: looked up first." if doubtful else ""
        yield f"{counted(due)} due now.{more}", "done"
    left = before.total() - due - before[""] - before[FORGOTTEN]
    if left:
        yield f"{counted(left)} left alone: nothing waits there to be retried.", "failed"
    if before[FORGOTTEN]:
        yield f"{counted(before[FORGOTTEN])} left alone: the report is over and no longer in the store.", "failed"
    if before[""]:
        yield f"{counted(before[''])} not there any more.", "failed"
    if not before.total():
        yield "Nothing fits any more, so nothing was retried.", "failed"


def back(site: Site, form: MultiDict[str, str]) -> Answer:
    """To the page that the form was on: one delivery's, else the list under the same filter, as it is now."""
    site.index.follow()
    chosen = picked(form)
    if form.get("from") == "delivery" and len(chosen) == 1:
        report_id, connector = chosen[0]
        return redirect(url_for("deliveries.one", report=str(report_id), connector=connector), 303)
    wanted, _ = Filter.read(form)
    places = {name: form[name] for name in ("before", "after") if Place.read(form.get(name, ""))}
    return redirect(url_for("deliveries.show") + wanted.query(**places), 303)
