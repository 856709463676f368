"""The page Templates."""

from __future__ import annotations

from flask import Blueprint, render_template

from bridge.web.site import Site


def blueprint(site: Site) -> Blueprint:
    pages = Blueprint("previews", __name__)

    @pages.get("/templates")
    def show() -> str:
        return render_template("previews.html", now=site.runtime.store.now())

    return pages
