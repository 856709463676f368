"""The page Quarantine."""

from __future__ import annotations

from flask import Blueprint, render_template

from bridge.web.site import Site


def blueprint(site: Site) -> Blueprint:
    pages = Blueprint("quarantine", __name__)

    @pages.get("/quarantine")
    def show() -> str:
        return render_template("quarantine.html", now=site.runtime.store.now())

    return pages
