"""The page Overview."""

from __future__ import annotations

from flask import Blueprint, render_template

from bridge.web.site import Site


def blueprint(site: Site) -> Blueprint:
    pages = Blueprint("overview", __name__)

    @pages.get("/")
    def show() -> str:
        return render_template("overview.html", now=site.runtime.store.now())

    return pages
