"""The commands that list what the source has: organizations, agents, memberships, reports.

They ask the source within half of the request budget, and say on standard error when they wait for it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bridge.cli import _clean, _fail, _runtime, _settings, _show, command, common_options, main

if TYPE_CHECKING:
    from bridge.delivery import Service
    from bridge.huntress import HuntressClient
    from bridge.models import Organization
    from bridge.progress import Meter
    from bridge.proposals import Proposal
    from bridge.runtime import Runtime
    from bridge.settings import Settings


@contextmanager
def _asking(settings: Settings, what: str) -> Iterator[tuple[Runtime, HuntressClient, Meter]]:
    """The source, asked within a command's share of the budget; its errors become sentences and exit codes.

    The meter shows how far the listing of `what` is, while a page is waited for.
    """
    from bridge.budget import CommandBudget
    from bridge.huntress import SourceError, SourceRefused
    from bridge.progress import Meter
    from bridge.runtime import make_source

    with _runtime(settings) as runtime:
        meter = Meter(what)
        budget = CommandBudget(
            runtime.budget, lambda sentence: meter.says(_clean(f"huntress: {sentence}")), going=meter.goes_on
        )
        source = make_source(settings, budget)

        def came(items: int, total: int | None) -> None:
            meter.moves(items, total)
            meter.rest()

        source.page_came = came
        try:
            with meter:
                yield runtime, source, meter
        except SourceRefused as error:
            _fail("huntress", str(error))
        except SourceError as error:
            _say(f"huntress: {error}")
            sys.exit(1)
        except BrokenPipeError:
            # Whoever read the output has seen enough; what Python still holds of it goes nowhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)
        finally:
            source.close()


def _say(sentence: str) -> None:
    from bridge.printing import one_line

    click.echo(one_line(_clean(sentence)), err=True)


def _write(pieces: Iterable[str]) -> None:
    """Prints each piece as soon as it is there."""
    for piece in pieces:
        click.echo(_clean(piece), nl=False)


# -- organizations -----------------------------------------------------------------------------------------------------


@main.group("organizations")
@common_options
def organizations() -> None:
    """The source's organizations, and which companies they are in the ticket systems."""


@command("list", group=organizations)
@click.option("--json", "as_json", is_flag=True, help="An array of objects, for scripts.")
def list_organizations(as_json: bool) -> int:
    """Every organization, with its company in each connector and how that was found.

    Ways: file (a row of the organizations file), name (an equal name), catch-all (the connector's default_company).
    Exit code 1: a ticket system could not be asked.
    """
    from bridge import printing_lists as texts
    from bridge.organization_list import places
    from bridge.progress import Meter
    from bridge.runtime import make_routes
    from connectors.base import Outcome

    settings = _settings(source=True)
    with _asking(settings, "organizations") as (runtime, source, _):
        found = sorted(source.organizations(), key=lambda organization: organization.id)
        columns = {}
        failed = False
        with Meter("companies", "ticket systems") as meter:
            for name, service in meter.each(runtime.services.items()):
                try:
                    columns[name] = places(service, runtime.assembly.companies, found)
                except Outcome as outcome:
                    meter.says(_clean(f"{name}: {outcome}"))
                    failed = True
        served = make_routes(settings, runtime.store, pin=False).serves
        if as_json:
            _write(texts.json_array(texts.organization_rows(found, columns, served)))
        else:
            texts.print_organizations(found, columns, served, _clean)
            for name, column in columns.items():
                click.echo(f"{name}: {texts.matched(column)}")
    return 1 if failed else 0


@command("match", group=organizations)
@click.argument("connector")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="File to write; else standard output.")
@click.option("--force", is_flag=True, help="Overwrite --output.")
def match_organizations(connector: str, output: Path | None, force: bool) -> int:
    """Proposes companies in CONNECTOR for organizations that have none of their own there.

    The result is CSV as [organizations] file reads it, the surest proposals first. Nothing of it is used until a person
    has edited it and put its rows into that file. Where no company stands out the cell is empty, and the last column
    names what comes nearest.
    """
    from bridge.proposals import proposals_csv
    from bridge.settings import ConfigurationError
    from connectors.base import Outcome

    settings = _settings(source=True)
    _show(connector, settings)
    if output is not None:
        _refuse_output(output, force, settings)
    with _asking(settings, "organizations") as (runtime, source, _):
        try:
            found = _proposals(runtime, runtime.services[connector], list(source.organizations()))
        except Outcome as outcome:
            _say(f"{connector}: {outcome}")
            return 1
        lines = proposals_csv(connector, found)
        if output is None:
            _write(lines)
        else:
            try:
                with output.open("w" if force else "x", encoding="utf-8", newline="") as file:
                    file.writelines(map(_clean, lines))
            except OSError as error:
                raise ConfigurationError([f"--output {output}: cannot write it ({error.strerror})"]) from None
    sure = sum(proposal.company is not None for proposal in found)
    _say(
        f"{len(found)} organizations have no company of their own in {connector}; one is proposed for {sure}. Check "
        "each row, fill in the others, and put them into the file that [organizations] file names."
        if found
        else f"every organization has a company of its own in {connector}"
    )
    return 0


def _refuse_output(output: Path, force: bool, settings: Settings) -> None:
    from bridge.settings import ConfigurationError

    used = settings.organizations.file
    if used and output.resolve() == Path(used).resolve():
        raise ConfigurationError(
            [f"--output {output} is the organizations file in use, whose rows would be lost; name another file"]
        )
    if output.exists() and not force:
        raise ConfigurationError([f"--output {output} exists; name another file, or overwrite it with --force"])


def _proposals(runtime: Runtime, service: Service, found: list[Organization]) -> list[Proposal]:
    """Raises an `Outcome` when the ticket system cannot be asked."""
    from bridge.organization_list import places, proposals
    from bridge.progress import Meter
    from bridge.settings import ConfigurationError

    companies = service.connector.companies()
    if companies is None:
        raise ConfigurationError([f"connector {service.name} ({service.settings.type}) has no companies to match"])
    placed = places(service, runtime.assembly.companies, found)
    with Meter("matching", "organizations") as meter:
        return proposals(meter.each(found), placed, companies)


@command("diff", group=organizations)
@click.option("--accept", is_flag=True, help="Compare with the present list from now on.")
def diff_organizations(accept: bool) -> int:
    """What was added (+), renamed (~) or removed (-) since the list was last accepted.

    The first time there is nothing to compare with, and the present list is accepted. The poller compares on a
    schedule, [organizations] sync, logs what it finds, and keeps a list of its own; neither moves the other's.
    """
    from bridge import printing_lists as texts
    from bridge.organization_sync import Changes, whole_list
    from bridge.printing import moment

    with _asking(_settings(source=True), "organizations") as (runtime, source, _):
        now = whole_list(source, runtime.store)
        baseline = runtime.books.baseline("diff")
        if baseline is None:
            runtime.books.save_baseline("diff", now)
            click.echo(f"nothing to compare with yet; {len(now)} organizations are remembered from now on")
            return 0
        changes = Changes.between(baseline.organizations, now)
        for line in texts.changes(changes):
            click.echo(_clean(line))
        click.echo(f"{changes} since {moment(baseline.at)}")
        if accept:
            runtime.books.save_baseline("diff", now)
    return 0


# -- agents ------------------------------------------------------------------------------------------------------------


@main.group("agents")
@common_options
def agents() -> None:
    """The source's agents."""


@command("list", group=agents)
@click.option("--organization", type=click.IntRange(min=1), help="Only this organization's, by its id.")
@click.option("--json", "as_json", is_flag=True, help="An array of objects; one that is not closed was cut short.")
@click.option("--csv", "as_csv", is_flag=True, help="Comma-separated values; harmless in spreadsheets.")
def list_agents(organization: int | None, as_json: bool, as_csv: bool) -> int:
    """Every agent, printed page by page as the source gives them: 500 take one request."""
    from bridge import printing_lists as texts

    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    with _asking(_settings(source=True), "agents") as (_, source, _):
        found = source.agents(organization)
        if as_json:
            _write(texts.json_array(map(texts.agent_row, found)))
        else:
            _write(texts.agents_csv(found) if as_csv else texts.agents_text(found))
    return 0


# -- memberships -------------------------------------------------------------------------------------------------------


@main.group("memberships")
@common_options
def memberships() -> None:
    """The source's users."""


@command("list", group=memberships)
@click.option("--json", "as_json", is_flag=True, help="An array of objects, for scripts.")
def list_memberships(as_json: bool) -> int:
    """The account's users and what each may do, where the API key may read that."""
    from bridge import printing_lists as texts
    from bridge.huntress import SourceForbidden, SourceNotFound

    with _asking(_settings(source=True), "memberships") as (_, source, meter):
        try:
            found = list(source.memberships())
        except SourceForbidden:
            meter.says(
                "Huntress does not show the account's users to this API key (403): it, or the user it belongs to, "
                "lacks the permission to read users. Nothing else here needs it."
            )
            return 1
        except SourceNotFound:
            meter.says(
                "Huntress has no list of users for this API key (404): the API offers it not to every account, and not "
                "to keys without the permission to read users. Nothing else here needs it."
            )
            return 1
        if as_json:
            _write(texts.json_array(map(texts.membership_row, found)))
        else:
            texts.print_memberships(found, _clean)
    return 0


# -- reports -----------------------------------------------------------------------------------------------------------


@main.group("reports")
@common_options
def reports() -> None:
    """The source's incident reports."""


@command("list", group=reports)
@click.option("--organization", type=click.IntRange(min=1), help="Only this organization's, by its id.")
@click.option("--json", "as_json", is_flag=True, help="An array of objects; one that is not closed was cut short.")
def list_reports(organization: int | None, as_json: bool) -> int:
    """The open reports of each organization, as the poller sees them.

    Exit code 1: an organization could not be listed, or a report could not be read.
    """
    from bridge import printing_lists as texts
    from bridge.report_list import ReportSource
    from bridge.runtime import make_routes

    settings = _settings(source=True)
    with _asking(settings, "reports") as (runtime, source, meter):
        names = _organizations(runtime, source)
        routes = make_routes(settings, runtime.store, pin=False)
        chosen = ReportSource.chosen(source, settings, runtime.store)
        scopes = chosen.scopes(organization, [id for id in sorted(names) if routes.serves(id)])
        if chosen.by_organization:
            meter.unit = "listings"
            meter.expects(len(scopes))
        half = max(1, settings.huntress.requests_per_minute // 2)
        if len(scopes) > half:
            _say(f"{len(scopes)} organizations are listed one by one, which takes about {len(scopes) // half} minutes")
        problems: list[str] = []

        def problem(sentence: str) -> None:
            problems.append(sentence)
            meter.says(_clean(sentence))

        rows = ((each, names.get(each.organization_id or 0)) for each in chosen.reports(scopes, problem))
        if as_json:
            _write(texts.json_array(texts.report_row(*row) for row in rows))
        else:
            _write(f"{texts.report_text(*row)}\n" for row in rows)
    return 1 if problems else 0


def _organizations(runtime: Runtime, source: HuntressClient) -> dict[int, Organization]:
    """By id: as the poller read them, unless that is too long ago."""
    from bridge.poller import ORGANIZATIONS_EVERY

    read_at = runtime.books.organizations_at()
    if read_at is not None and 0 <= runtime.store.now() - read_at < ORGANIZATIONS_EVERY:
        return runtime.books.organizations()
    return {organization.id: organization for organization in source.organizations()}
