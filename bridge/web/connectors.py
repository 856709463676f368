"""The page Connectors: does each serve, and if not, why; and a person's own tries."""

from __future__ import annotations

from dataclasses import dataclass

from flask import Blueprint, abort, flash, redirect, render_template, url_for
from werkzeug.wrappers import Response

from bridge.check import check_connector
from bridge.delivery import Service
from bridge.text import one_line
from bridge.trial import TrialResult, TrialStep, send_trial
from bridge.web.background import Background
from bridge.web.connector_cards import cards
from bridge.web.delivery_rows import ticket_url
from bridge.web.site import Site
from connectors.base import Finding


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check of one connector found, under which version of its settings."""

    findings: tuple[Finding, ...]
    service: Service


def check(site: Site, service: Service) -> Checked:
    """Tries the connector on line, also when it is paused: that may be what a person wants to know about."""
    companies = site.runtime.assembly.companies
    with site.runtime.prober.probing(service.name):
        found = check_connector(service.connector, companies, service.name)
        return Checked(tuple(Finding(each.setting, one_line(each.message)) for each in found), service)


@dataclass(frozen=True, slots=True)
class Tried:
    """What became of a test ticket; `url` is where it is, where the connector's settings lead there."""

    result: TrialResult
    url: str


def blueprint(site: Site) -> Blueprint:
    pages = Blueprint("connectors", __name__)
    checks: Background[Checked] = Background("check", site.runtime.store.now)
    trials: Background[Tried] = Background("test ticket", site.runtime.store.now)
    #: The steps of each connector's last test ticket, as they come.
    steps: dict[str, list[TrialStep]] = {}

    def service_of(name: str) -> Service:
        return site.runtime.services.get(name) or abort(404)

    def back(name: str) -> Response:
        return redirect(url_for("connectors.show", _anchor=name), 303)

    def left_alone(name: str) -> bool:
        """Did the system ask to be left alone? A person's press of a button is no reason to disregard that."""
        pause = site.runtime.store.paused(name)
        if pause is None or pause.kind != "rate":
            return False
        reason = one_line(pause.reason)
        flash(f"{name} asked to be left alone, so nothing is sent to it now: {reason}. Try again later.", "failed")
        return True

    def begun(action: str, name: str, started: bool, under_way: str) -> bool:
        """Writes down that a person had something done; the sentence `under_way` tells who pressed a second time."""
        if started:
            site.audit(action, connector=name)
        else:
            site.audit(action, outcome="refused", connector=name, reason="one is under way already")
            flash(under_way, "failed")
        return started

    @pages.get("/connectors")
    def show() -> str:
        found = cards(site.runtime)
        return render_template(
            "connectors.html",
            cards=found,
            paused=[card for card in found if card.pause],
            trouble=any(card.pause and not card.passing for card in found),
            slow=[card for card in found if card.slow],
            checks={card.name: checks.last(card.name) for card in found},
            trials={card.name: trials.last(card.name) for card in found},
            steps={name: tuple(told) for name, told in steps.items()},
            one_line=one_line,
            services=site.runtime.services,
            now=site.runtime.store.now(),
        )

    @pages.post("/connectors/<name>/check")
    def start_check(name: str) -> Response:
        service = service_of(name)
        if left_alone(name):
            return back(name)
        started = checks.start(name, lambda: check(site, service))
        begun("check", name, started, f"A check of {name} is under way already; its result will stand here.")
        checks.wait(name)
        return back(name)

    @pages.post("/connectors/<name>/test-ticket")
    def start_trial(name: str) -> Response:
        service = service_of(name)
        pause = site.runtime.store.paused(name)
        if pause is not None:
            flash(f"{name} is paused, so no test ticket is sent: {one_line(pause.reason)}", "failed")
            return back(name)
        told: list[TrialStep] = []

        def work() -> Tried:
            result = send_trial(site.runtime, name, tell=told.append)
            return Tried(result, ticket_url(result.ticket, service.settings))

        under_way = f"A test ticket for {name} is under way already; its steps will stand here."
        if begun("test ticket", name, trials.start(name, work), under_way):
            steps[name] = told
        trials.wait(name)
        return back(name)

    @pages.post("/connectors/<name>/probe")
    def probe(name: str) -> Response:
        service_of(name)
        pause = site.runtime.store.paused(name)
        if pause is None:
            flash(f"{name} is not paused; there is nothing to probe.", "done")
        elif pause.next_probe is None:
            left_alone(name)
        else:
            site.audit("probe", connector=name)
            site.runtime.store.probe_now(name)
            flash(
                f"{name} is probed within seconds by the process that dispatches; this page shows what it finds.",
                "done",
            )
        return back(name)

    return pages
