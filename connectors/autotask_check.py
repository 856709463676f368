"""Does the configuration fit the Autotask tenant? Every finding at once, each with what to do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial

from connectors.autotask_api import AutotaskApi, Missing
from connectors.autotask_catalog import Catalog
from connectors.autotask_companies import Companies
from connectors.autotask_fields import NotOffered
from connectors.autotask_settings import AutotaskSettings
from connectors.base import Finding, Misconfigured

#: A reference that no report has; asking for it shows that tickets can be looked up.
NO_REFERENCE = "huntress-0-0-check"
#: Most characters of a reference.
REFERENCE_LENGTH = 50


def findings(
    settings: AutotaskSettings,
    api: AutotaskApi,
    catalog: Catalog,
    companies: Companies,
    find: Callable[[str], object],
) -> list[Finding]:
    """What does not fit. Raises `Unavailable` when the tenant cannot be asked."""
    try:
        api.zone()
    except Misconfigured as refused:
        return [Finding("zone_url" if str(refused).startswith("zone_url") else "username", _bare(refused))]
    try:
        _ask_threshold(api)
        catalog.refresh()
    except Missing as absent:
        return [Finding("zone_url", _bare(absent))]
    except Misconfigured as refused:
        return [Finding("secret", _bare(refused))]
    found = []
    for setting, attempt in _attempts(settings, catalog, find):
        try:
            attempt()
        except Misconfigured as wrong:
            found.append(Finding(setting, _bare(wrong)))
    found += [*_notes(settings, catalog), *_default_company(settings, companies)]
    return [*found, *_company_defaults(settings, companies), *_fields(settings, catalog), *_unfilled(settings, catalog)]


def _ask_threshold(api: AutotaskApi) -> None:
    try:
        api.get("ThresholdInformation")
    except Missing:
        return  # not needed: the questions that follow prove the credentials too


def _bare(wrong: Misconfigured) -> str:
    """The sentence without the key before it, which a `Finding` carries by itself."""
    return re.sub(r"^[a-z_]+(\.[^:]{1,100})?: ", "", str(wrong))


def _attempts(
    settings: AutotaskSettings, catalog: Catalog, find: Callable[[str], object]
) -> Iterator[tuple[str, Callable[[], object]]]:
    if settings.queue != "":
        yield "queue", partial(catalog.pick, "queue", "queueID", settings.queue)
    yield "status", partial(catalog.pick, "status", "status", settings.status)
    yield "closed_status", partial(catalog.pick, "closed_status", "status", settings.closed_status)
    for status in settings.untouched_statuses:
        yield "untouched_statuses", partial(catalog.pick, "untouched_statuses", "status", status)
    for severity, priority in settings.priorities.items():
        setting = f"priorities.{severity}"
        yield setting, partial(catalog.pick, setting, "priority", priority)
    yield "reference_field", partial(_reference, catalog, find)


def _reference(catalog: Catalog, find: Callable[[str], object]) -> None:
    field, _ = catalog.reference_field()
    if field.pick_list or field.read_only:
        raise Misconfigured(
            f"{field.name} is no text field that can be written; take externalID or a text field of your own"
        )
    if field.length is not None and field.length < REFERENCE_LENGTH:
        raise Misconfigured(
            f"{field.name} takes {field.length} characters, a reference may have {REFERENCE_LENGTH}; take a longer one"
        )
    find(NO_REFERENCE)


def _notes(settings: AutotaskSettings, catalog: Catalog) -> Iterator[Finding]:
    if settings.visibility != "internal":
        return
    try:
        catalog.refresh_notes()
    except Misconfigured as wrong:
        yield Finding("note_publish", _bare(wrong))
        return
    for setting, attempt in (("note_publish", catalog.publish), ("note_type", catalog.note_type)):
        try:
            attempt()
        except Misconfigured as wrong:
            yield Finding(setting, _bare(wrong))


def _default_company(settings: AutotaskSettings, companies: Companies) -> Iterator[Finding]:
    if settings.default_company is None:
        yield Finding(
            "default_company",
            "is not set: reports of organizations without a company have no place; give the id of a company for them",
        )
        return
    try:
        company = companies.named(settings.default_company)
    except Misconfigured as wrong:
        yield Finding("default_company", _bare(wrong))
        return
    if company is None:
        value = settings.default_company
        shown = f"id {value}" if isinstance(value, int) else f'"{value}"'
        yield Finding(
            "default_company",
            f"{shown} is no active company in Autotask, or not the only one of that name; give its id",
        )


def _company_defaults(settings: AutotaskSettings, companies: Companies) -> Iterator[Finding]:
    if not settings.company_defaults:
        return
    try:
        companies.defaults()
    except NotOffered as wrong:
        yield Finding(wrong.setting, _bare(wrong))
    except Misconfigured as wrong:
        yield Finding("company_defaults", _bare(wrong))


def _fields(settings: AutotaskSettings, catalog: Catalog) -> Iterator[Finding]:
    left = dict(settings.fields)
    for name, value in settings.fields.items():
        if isinstance(value, str) and ("{{" in value or "{%" in value):  # what it will say is not known yet
            try:
                catalog.settable(name)
            except Misconfigured as wrong:
                yield Finding(f"fields.{name}", _bare(wrong))
            del left[name]
    while left:  # together, for the choices of one may depend on another; what is wrong leaves the round
        try:
            catalog.standard_values(left)
            catalog.custom_values(left)
            return
        except NotOffered as wrong:
            yield Finding(wrong.setting, _bare(wrong))
            if left.pop(wrong.setting.removeprefix("fields."), None) is None:
                return


def _unfilled(settings: AutotaskSettings, catalog: Catalog) -> Iterator[Finding]:
    filled = {"companyid", "title", "status", "description", settings.reference_field.casefold()}
    filled |= {name.casefold() for name, value in settings.fields.items() if value != ""}
    if settings.queue != "":
        filled.add("queueid")
    if settings.priorities:
        filled.add("priority")
    keys = {"queueid": "queue", "priority": "priorities"}
    for key, field in catalog.ticket_fields().by_name.items():
        if field.required and not field.read_only and key not in filled and key != "id":
            setting = keys.get(key, f"fields.{field.name}")
            yield Finding(
                setting, f"Autotask requires {field.name} of every new ticket, and nothing fills it; set {setting}"
            )
