"""The page Overview."""

from __future__ import annotations

from flask import Blueprint, render_template, request

from bridge.web.overview_facts import SPANS, overview
from bridge.web.site import Site


def blueprint(site: Site) -> Blueprint:
    pages = Blueprint("overview", __name__)

    @pages.get("/")
    def show() -> str:
        days = next((span for span in SPANS if str(span) == request.args.get("days")), SPANS[0])
        return render_template(
            "overview.html", overview=overview(site, days), spans=SPANS, now=site.runtime.store.now()
        )

    return pages
