"""The page Organizations: which company each is, and how a person makes that right."""

from __future__ import annotations

from pathlib import Path

from flask import Blueprint, Response, abort, flash, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from bridge.companies import Companies
from bridge.models import Company, Organization
from bridge.organizations_writing import Assignment, NotWritten, assignments_csv, edition, write_assignments
from bridge.runtime import make_companies, make_routes
from bridge.settings import ConfigurationError
from bridge.text import one_line, shorten
from bridge.web.company_lookups import LookUp, Lookups, assignment
from bridge.web.organization_proposals import offers
from bridge.web.organization_rows import SHOWN, cell, narrowed, rows
from bridge.web.site import Site

#: Lines on one page.
PER_PAGE = 100
#: Seconds for which a delivery is recent.
RECENT = 30 * 86400.0


def blueprint(site: Site) -> Blueprint:
    pages = Blueprint("organizations", __name__)
    lookups = Lookups(site.runtime)

    def companies_now() -> tuple[Companies, str]:
        """By what the organizations file says now, else by what was last taken in; and what is wrong with the file."""
        try:
            return make_companies(site.runtime.settings), ""
        except ConfigurationError as error:
            return site.runtime.assembly.companies, "; ".join(error.problems[:3])

    def file_name() -> str:
        return site.runtime.settings.organizations.file

    def file_edition() -> str:
        """Of the organizations file as it is now; a file that cannot be read is told when somebody wants to write."""
        try:
            return edition(Path(file_name())) if file_name() else ""
        except NotWritten:
            return ""

    def looked_up(connector: str) -> LookUp | None:
        """404 for a connector without companies."""
        if connector not in lookups.names():
            abort(404)
        return lookups.found(connector)

    def organization_of(organization_id: int) -> Organization:
        return site.runtime.books.organization(organization_id) or abort(404)

    @pages.get("/organizations")
    def show() -> str:
        runtime, now = site.runtime, site.runtime.store.now()
        organizations = runtime.books.organizations()
        progress = site.index.look()
        companies, problem = companies_now()
        serves = make_routes(runtime.settings, runtime.store, pin=False).serves
        names = list(runtime.services)
        known = {name: lookups.found(name) for name in lookups.names()}
        found = rows(
            organizations.values(),
            names,
            companies,
            known,
            site.index.incidents(now - RECENT),
            [one for one in organizations if not serves(one)],
        )
        text, shown = request.args.get("text", "")[:200], request.args.get("show", "")
        chosen = narrowed(found, text, shown)
        last = max(1, -(-len(chosen) // PER_PAGE))
        page = min(max(1, request.args.get("page", 1, int)), last)
        lacking = {name: sum(one.cells[names.index(name)].lacking for one in found) for name in known}
        return render_template(
            "organizations.html",
            rows=chosen[(page - 1) * PER_PAGE : page * PER_PAGE],
            count=len(chosen),
            total=len(found),
            names=names,
            known=known,
            lacking=lacking,
            not_looked_up=[name for name in known if known[name] is None],
            runs={name: lookups.last(name) for name in known},
            problem=problem,
            file=file_name(),
            text=text,
            shown=shown if shown in SHOWN else "",
            choices=SHOWN,
            page=page,
            last=last,
            progress=progress,
            listed_at=runtime.books.organizations_at(),
            now=now,
        )

    @pages.post("/organizations/<connector>/look-up")
    def look_up(connector: str) -> AnyResponse:
        looked_up(connector)
        if lookups.start(connector):
            site.audit("look up companies", connector=connector)
        lookups.wait(connector)
        to = "organizations.propose" if request.form.get("to") == "proposals" else "organizations.show"
        return redirect(url_for(to, connector=connector if to.endswith("propose") else None), 303)

    @pages.get("/organizations/<connector>/proposals")
    def propose(connector: str) -> str:
        known = looked_up(connector)
        companies, problem = companies_now()
        organizations = site.runtime.books.organizations()
        found = offers(known, connector, organizations, companies) if known else []
        last = max(1, -(-len(found) // PER_PAGE))
        page = min(max(1, request.args.get("page", 1, int)), last)
        return render_template(
            "organization_proposals.html",
            connector=connector,
            known=known,
            run=lookups.last(connector),
            offers=found[(page - 1) * PER_PAGE : page * PER_PAGE],
            count=len(found),
            proposed=sum(offer.proposed is not None for offer in found),
            page=page,
            last=last,
            problem=problem,
            file=file_name(),
            file_name=Path(file_name()).name,
            edition=file_edition(),
            now=site.runtime.store.now(),
        )

    @pages.get("/organizations/<connector>/<int:organization_id>")
    def choose(connector: str, organization_id: int) -> str:
        known, organization = looked_up(connector), organization_of(organization_id)
        companies, problem = companies_now()
        name = shorten(one_line(organization.name), 100)
        words = one_line(request.args.get("q", name))[:200]
        return render_template(
            "organization_company.html",
            connector=connector,
            organization=organization,
            name=name,
            cell=cell(companies, connector, organization, {connector: known}),
            known=known,
            run=lookups.last(connector),
            hits=[_shown(hit) for hit in known.search(words)] if known else [],
            words=words,
            problem=problem,
            file=file_name(),
            edition=file_edition(),
            now=site.runtime.store.now(),
        )

    def chosen(connector: str, known: LookUp) -> list[Assignment]:
        """What the form asks for: `take` names organizations, `company-<id>` the company of each."""
        organizations = {str(one.id): one for one in site.runtime.books.organizations().values()}
        found = []
        for name in dict.fromkeys(request.form.getlist("take")):
            organization = organizations.get(name)
            company = known.company(request.form.get(f"company-{name}", ""))
            if organization is None or company is None:
                who = organization.name if organization else name[:40]
                raise NotWritten(f"No company is chosen for {who}, so nothing was written.")
            found.append(assignment(connector, organization, company))
        if not found:
            raise NotWritten("No organization is marked, so nothing was written. Mark those to accept.")
        return found

    @pages.post("/organizations/<connector>/accept")
    def accept(connector: str) -> AnyResponse | tuple[str, int]:
        known = looked_up(connector)
        if known is None:
            flash(f"The companies of {connector} have to be looked up first.", "failed")
            return redirect(url_for("organizations.propose", connector=connector), 303)
        try:
            taken = chosen(connector, known)
        except NotWritten as refused:
            flash(str(refused), "failed")
            return redirect(url_for("organizations.propose", connector=connector), 303)
        if not file_name():
            return _download(taken)
        try:
            write_assignments(Path(file_name()), taken, seen=request.form.get("edition", ""))
        except NotWritten as refused:
            site.audit("accept companies", outcome="refused", connector=connector, reason=str(refused))
            return render_template("organization_refused.html", connector=connector, refused=refused), 409
        pairs = ", ".join(f"{one.organization_id} = {one.company}" for one in taken)
        site.audit("accept companies", connector=connector, rows=pairs)
        many = f"{len(taken)} rows" if len(taken) > 1 else "1 row"
        flash(f"{many} written to {Path(file_name()).name}. The running processes take them in within seconds.", "done")
        return redirect(url_for("organizations.propose", connector=connector), 303)

    return pages


def _shown(company: Company) -> Company:
    """As a person reads it: ticket systems keep whatever was typed into them."""
    return Company(company.id, shorten(one_line(company.name), 200), shorten(one_line(company.identifier), 100))


def _download(taken: list[Assignment]) -> Response:
    response = Response("".join(assignments_csv(taken)), mimetype="text/csv")
    response.headers["Content-Disposition"] = 'attachment; filename="organizations.csv"'
    return response
