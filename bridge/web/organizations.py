"""The page Organizations."""

from __future__ import annotations

from flask import Blueprint, render_template

from bridge.web.site import Site


def blueprint(site: Site) -> Blueprint:
    pages = Blueprint("organizations", __name__)

    @pages.get("/organizations")
    def show() -> str:
        return render_template("organizations.html", now=site.runtime.store.now())

    return pages
