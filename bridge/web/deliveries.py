"""The page Deliveries."""

from __future__ import annotations

from flask import Blueprint, render_template

from bridge.web.site import Site


def blueprint(site: Site) -> Blueprint:
    pages = Blueprint("deliveries", __name__)

    @pages.get("/deliveries")
    def show() -> str:
        return render_template("deliveries.html", now=site.runtime.store.now())

    return pages
