"""Is the configuration right? Finds every mistake at once, off line and on line."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import redis

from bridge.broker import ServerRefused, check_server, store_client
from bridge.budget import RedisBudget
from bridge.companies import Companies, look_up
from bridge.embedded import EmbeddedRedisError
from bridge.huntress import Budget, RequestKind, SourceError, SourceUnavailable
from bridge.idempotency import IdempotencyStore
from bridge.runtime import OFFLINE, make_companies, make_connectors, make_renderer, make_source, redis_url
from bridge.settings import ConfigurationError, Settings
from connectors.base import Connector, Finding, Misconfigured, Outcome
from connectors.registry import registry_errors

#: What to do about a system that does not answer.
REACHABLE = "check its address here and whether this machine may reach it (name service, firewall, proxy)"


class OwnBudget:
    """A handful of requests, when the shared window cannot be reached."""

    def acquire(self, kind: RequestKind, wait: float | None) -> None:
        """A check makes few requests; they go out."""

    def penalize(self, seconds: float) -> None:
        """The next request of a check is a person's next call."""


def check_offline(settings: Settings) -> Iterator[Finding]:
    """Renders every template on samples, and what start-up would refuse."""
    try:
        connectors = make_connectors(settings, lambda name: OFFLINE)
    except ConfigurationError as error:
        yield from (Finding("connectors", problem) for problem in error.problems)
        return
    try:
        named = make_companies(settings).connectors()
    except ConfigurationError as error:
        yield from (Finding("organizations", problem) for problem in error.problems)
    else:
        for name, line in named.items():
            if name not in connectors:
                known = ", ".join(connectors)
                yield Finding("organizations.file", f"line {line}: there is no connector {name}; configured: {known}")
    for name, connector in connectors.items():
        for finding in make_renderer(connector, settings).check():
            yield Finding(f"connectors.{name}.{finding.setting}", finding.message)
        connector.close()
    for broken in registry_errors():
        yield Finding("connectors", str(broken))


def advice(settings: Settings) -> Iterator[str]:
    """What works as it is and may still surprise."""
    names = set(settings.alerts.connectors)
    if len(names) == 1:
        name = names.pop()
        yield (
            f"alerts.connectors: {name} alone carries notices, and it is a destination too, so nobody is told when "
            f"{name} itself is paused; name a second one, or let an uptime monitor ask /status"
        )
    open_to_all = [path for path in settings.secret_files if _readable_by_all(path)]
    if open_to_all:
        yield f"every account of this machine can read these secrets; chmod 600 {' '.join(map(str, open_to_all))}"
    if settings.web.problem():
        yield f"`run` and `web` do not start: {settings.web.problem()}"


def _readable_by_all(path: Path) -> bool:
    """Containers are given their secrets so (in /run/secrets), where nobody else is."""
    try:
        return bool(path.stat().st_mode & stat.S_IROTH) and path.resolve().parts[:3] != ("/", "run", "secrets")
    except OSError:  # what cannot be read is said elsewhere
        return False


def check_online(
    settings: Settings, watched: Callable[[Sequence[str]], Iterable[str]] = lambda steps: steps
) -> list[Finding]:
    """Tries Redis, the source's credentials, and every connector's credentials, names and companies.

    `watched` passes on the names of what is tried, each when it begins.
    """
    findings: list[Finding] = []
    steps = iter(watched(["huntress", *settings.connectors]))
    next(steps)
    with _budget(settings, findings) as budget:
        findings += _check_source(settings, budget)
    try:
        companies = make_companies(settings)
        connectors = make_connectors(settings)
    except ConfigurationError:
        return findings  # said by the check off line
    for name in steps:
        findings += check_connector(connectors[name], companies, name)
        connectors[name].close()
    return findings


@contextmanager
def _budget(settings: Settings, findings: list[Finding]) -> Iterator[Budget]:
    """The shared request budget; where Redis is away, that is a finding and the check goes on."""
    try:
        with redis_url(settings) as (url, _):
            client = store_client(url)
            try:
                findings += [Finding("redis", warning) for warning in check_server(client)]
                store = IdempotencyStore(client, settings.redis.namespace)
                yield RedisBudget(store, settings.huntress.requests_per_minute)
            finally:
                client.close()
    except (redis.RedisError, EmbeddedRedisError, ServerRefused) as error:
        findings.append(Finding("redis", f"cannot be used: {error}"))
        yield OwnBudget()


def _check_source(settings: Settings, budget: Budget) -> Iterator[Finding]:
    try:
        source = make_source(settings, budget)
        account = source.account()
        organizations = {organization.id for organization in source.organizations()}
    except SourceUnavailable as error:
        yield Finding("huntress", f"{error} Try again later, or {REACHABLE}")
        return
    except SourceError as error:
        yield Finding("huntress", str(error))
        return
    finally_unknown = sorted({*settings.organizations.only, *settings.organizations.disabled} - organizations)
    if finally_unknown:
        names = ", ".join(map(str, finally_unknown))
        yield Finding("organizations", f"account {account.id} has no organization with these ids: {names}")
    for kind in settings.sources.kinds:
        try:
            source.further(kind)
        except SourceError as error:
            yield Finding(f"sources.{kind.value}s", str(error))


def check_connector(connector: Connector, companies: Companies, name: str) -> Iterator[Finding]:
    """Tries one connector's credentials, names and companies; what is wrong with them, also when it cannot be asked."""
    prefix = f"connectors.{name}"
    said = set()
    try:
        for finding in connector.check():
            said.add(_without_request(finding.message))
            yield Finding(f"{prefix}.{finding.setting}", finding.message)
        if connector.companies() is None:
            return
        for row in companies.rows(name):
            if look_up(connector, row.company) is None:
                yield Finding(
                    "organizations.file",
                    f"line {row.line}: {name} has no single company {row.company!r}; correct the row, or its "
                    "reports go to the connector's default_company",
                )
    except Misconfigured as error:
        if _without_request(str(error)) not in said:
            yield Finding(prefix, str(error))
    except Outcome as error:
        yield Finding(prefix, f"cannot be reached: {error}; try again later, or {REACHABLE}")


def _without_request(sentence: str) -> str:
    """The same refusal of another request is no news."""
    return re.sub(r"\b[A-Z]+ \S+: ", "", sentence)
