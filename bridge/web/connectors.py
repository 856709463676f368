"""The page Connectors."""

from __future__ import annotations

from flask import Blueprint, render_template

from bridge.web.site import Site


def blueprint(site: Site) -> Blueprint:
    pages = Blueprint("connectors", __name__)

    @pages.get("/connectors")
    def show() -> str:
        return render_template("connectors.html", now=site.runtime.store.now())

    return pages
