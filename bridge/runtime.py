"""What one process of the bridge holds, built from the configuration and renewed when that changes."""

from __future__ import annotations

import hashlib
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis
import structlog
from pydantic import SecretStr

from bridge.bookkeeping import Bookkeeping
from bridge.broker import broker_client, check_server, queued, store_client
from bridge.budget import RedisBudget
from bridge.companies import Companies, OrganizationsFile, OrganizationsFileError
from bridge.delivery import Service, Surroundings
from bridge.details import REMEMBERED, Details
from bridge.embedded import EmbeddedRedis
from bridge.huntress import Budget, HuntressClient
from bridge.idempotency import IdempotencyStore
from bridge.jobs import QUEUE
from bridge.leases import Gate, LeaseKeeper
from bridge.models import Account
from bridge.probe import Prober
from bridge.rendering import Renderer
from bridge.request_counts import CONNECTOR, SOURCE, RequestCounts
from bridge.routing import Routes, not_before
from bridge.settings import ConfigurationError, Settings
from connectors.base import Connector, ConnectorContext, ConnectorSettings, Outcome, Unavailable
from connectors.registry import connector_classes

log = structlog.get_logger(__name__)

#: Seconds that a ticket's details may take at the source; longer ones follow as a note.
DETAILS_TIMEOUT = 5.0


def settings_digest(settings: ConnectorSettings) -> str:
    """Tells whether a connector's settings or credentials changed, and nothing of what they are."""
    secrets = [getattr(settings, key) for key in settings.secret_keys()]
    shown = [each.get_secret_value() for each in secrets if isinstance(each, SecretStr)]
    text = json.dumps([settings.model_dump(mode="json"), shown], sort_keys=True)
    return hashlib.scrypt(text.encode(), salt=settings.type.encode(), n=2**11, r=8, p=1, dklen=16).hex()


@dataclass(frozen=True)
class Assembly:
    """Everything that follows from one version of the configuration."""

    settings: Settings
    services: Mapping[str, Service]
    companies: Companies
    source: HuntressClient

    def close(self) -> None:
        for service in self.services.values():
            service.connector.close()
        self.source.close()


def _offline() -> None:
    raise Unavailable("this command asks no ticket system")


#: For connectors that must send nothing: previews and the check off line.
OFFLINE = ConnectorContext(before_request=_offline)


def make_connectors(
    settings: Settings, context: Callable[[str], ConnectorContext] = lambda name: ConnectorContext()
) -> dict[str, Connector]:
    """The configured connectors, by default free to ask. Raises `ConfigurationError` when two would share tickets."""
    classes = connector_classes()
    connectors: dict[str, Connector] = {}
    problems: list[str] = []
    reached: dict[tuple[str, str], str] = {}
    for name, table in settings.connectors.items():
        try:
            connector = classes[table.type](name, table, context(name))
        except Outcome as outcome:
            problems.append(f"connectors.{name}: {outcome}")
            continue
        connectors[name] = connector
        system = (connector.system(), table.reference_suffix)
        if connector.can_find and system in reached:
            problems.append(
                f"connectors.{name} and connectors.{reached[system]} reach the same system ({system[0]}) with the same "
                "reference_suffix, so each would take the other's tickets for its own; give one a reference_suffix"
            )
        reached.setdefault(system, name)
    if problems:
        for connector in connectors.values():
            connector.close()
        raise ConfigurationError(problems)
    return connectors


def make_companies(settings: Settings) -> Companies:
    """The resolver of companies. Raises `ConfigurationError` with every mistake in the organizations file."""
    file = None
    if settings.organizations.file:
        try:
            file = OrganizationsFile.load(Path(settings.organizations.file))
        except OrganizationsFileError as error:
            raise ConfigurationError([f"organizations.file: {line}" for line in str(error).splitlines()]) from None
    return Companies(file, settings.organizations.automatch)


def make_renderer(connector: Connector, settings: Settings) -> Renderer:
    return Renderer(
        connector,
        settings.connectors[connector.name],
        timezone=settings.timezone,
        portal_url=settings.huntress.portal_url,
    )


def make_source(
    settings: Settings,
    budget: Budget,
    timeout: float | None = None,
    answered: Callable[[str], None] = lambda status: None,
) -> HuntressClient:
    huntress = settings.huntress
    return HuntressClient(
        base_url=huntress.base_url,
        api_key=huntress.api_key.get_secret_value(),
        api_secret=huntress.api_secret.get_secret_value(),
        account_id=huntress.account_id,
        timeout=timeout or huntress.timeout,
        ca_file=huntress.ca_file,
        proxy=huntress.proxy,
        insecure_http=huntress.insecure_http,
        budget=budget,
        answered=answered,
    )


def make_routes(settings: Settings, store: IdempotencyStore, *, pin: bool = True) -> Routes:
    """The routing. `pin = False` writes no first start of `not_before = "now"` to the store."""
    moments = {"": not_before(store, settings.poll.not_before, "poll", pin=pin)}
    for name, table in settings.connectors.items():
        moments[name] = not_before(store, table.not_before, name, pin=pin)
    return Routes(
        connectors_settings=settings.connectors,
        only=frozenset(settings.organizations.only),
        disabled=frozenset(settings.organizations.disabled),
        not_before={name: moment for name, moment in moments.items() if moment is not None},
    )


@contextmanager
def redis_url(settings: Settings) -> Iterator[tuple[str, EmbeddedRedis | None]]:
    """The configured Redis, else the embedded one, started or found running, and let go at the end."""
    configured = settings.redis.url.get_secret_value()
    if configured:
        yield configured, None
        return
    embedded = EmbeddedRedis(settings.data_dir)
    url = embedded.acquire()
    try:
        yield url, embedded
    finally:
        embedded.release()


@contextmanager
def undisturbed(settings: Settings) -> Iterator[Settings]:
    """Settings under which a rehearsal leaves no trace: an existing store is read, a missing one is not made."""
    if settings.redis.url.get_secret_value() or (settings.data_dir / "appendonlydir").exists():
        yield settings
        return
    with tempfile.TemporaryDirectory(prefix="huntress-bridge-") as folder:
        yield settings.model_copy(update={"data_dir": Path(folder)})


class Runtime:
    """One process' hold on store, source and connectors. Use as a context manager.

    `keep_out`: only looks; an unused store is not taken into use.
    """

    def __init__(
        self, settings: Settings, reload: Callable[[], Settings] | None = None, *, keep_out: bool = False
    ) -> None:
        self._reload = reload
        self._keep_out = keep_out
        self._stack = ExitStack()
        self._settings = settings
        self.stopping = threading.Event()
        self._queue: redis.Redis | None = None
        self._queue_lock = threading.Lock()
        #: With the time at which it was read.
        self._account: tuple[float, Account] | None = None

    def __enter__(self) -> Runtime:
        with ExitStack() as stack:
            settings = self._settings
            self.url, self.embedded = stack.enter_context(redis_url(settings))
            client = store_client(self.url)
            stack.callback(client.close)
            for warning in check_server(client):
                log.warning(warning)
            settle = max((table.settle for table in settings.connectors.values()), default=60.0)
            self.store = IdempotencyStore(client, settings.redis.namespace, settle=settle)
            if not self._keep_out:
                self.store.open()
            self.requests = RequestCounts(self.store)
            if not self._keep_out:
                stack.callback(self.requests.flush)
            self.books = Bookkeeping(self.store)
            self.keeper = LeaseKeeper(self.store)
            stack.callback(self.keeper.stop)
            self._gates: dict[str, Gate] = {}
            self.prober = Prober(self.store, self._probing)
            self.moving: Callable[[], None] = lambda: None
            self.budget = RedisBudget(
                self.store,
                settings.huntress.requests_per_minute,
                stopping=self.stopping,
                moving=lambda: self.moving(),
            )
            self.assembly = self._assemble(settings)
            stack.callback(lambda: self.assembly.close())
            self._details_source = self._make_source(settings, DETAILS_TIMEOUT)
            self.details = Details(lambda: self._details_source, self.books)
            stack.callback(self.details.close)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._stack.close()
        if self._queue is not None:
            self._queue.close()

    def at_end(self, callback: Callable[[], None]) -> None:
        """Has `callback` called when this process lets go, while store and source are still there."""
        self._stack.callback(callback)

    @property
    def settings(self) -> Settings:
        return self.assembly.settings

    @property
    def services(self) -> Mapping[str, Service]:
        return self.assembly.services

    def routes(self) -> Routes:
        return make_routes(self.settings, self.store)

    def surroundings(self) -> Surroundings:
        assembly = self.assembly
        return Surroundings(assembly.services, assembly.companies, self.details, self.account, assembly.settings.zone)

    def account(self) -> Account | None:
        """The account as stored, now or some seconds ago: every report is of the same one."""
        now = time.monotonic()
        if self._account is None or now - self._account[0] > REMEMBERED:
            number, name, subdomain = self.store.recall_all("account_id", "account_name", "subdomain")
            if not number:
                return None
            self._account = now, Account(int(number), name, subdomain)
        return self._account[1]

    def queue_depth(self) -> int:
        """Messages in Dramatiq's queue that no worker has fetched yet. Raises `redis.RedisError`."""
        with self._queue_lock:
            if self._queue is None:
                self._queue, _ = broker_client(self.url, self.settings.redis.broker_url.get_secret_value())
        return queued(self._queue, self.settings.redis.namespace, QUEUE)

    def why_waiting(self, connector: str) -> str:
        """Why a delivery waits that has no reason of its own."""
        pause = self.store.paused(connector)
        if pause is not None:
            return f"the connector is paused: {pause.reason}"
        proving = self.store.proving_report(connector)
        if proving is not None:
            return f"waiting until the first ticket since the start (report {proving}) was found by its reference"
        return "waiting for its turn: the connector is busy, or no worker and poller run"

    def reload(self) -> bool:
        """Reads the configuration again. An invalid one is refused and the old stays; True when it was taken."""
        if self._reload is None:
            return False
        try:
            settings = self._reload()
            if settings.redis != self.settings.redis or settings.data_dir != self.settings.data_dir:
                raise ConfigurationError(["[redis] and data_dir change only with a restart"])
            assembly = self._assemble(settings)
        except ConfigurationError as error:
            log.error("the changed configuration is refused, the old one stays in use", problems=list(error.problems))
            self.books.save_configuration_problem(str(error))
            return False
        for name, service in assembly.services.items():
            before = self.services.get(name)
            if before is None or before.settings != service.settings:
                # First of all: it must not be forgotten when Redis goes away in the middle.
                self.store.unprove(name, settings_digest(service.settings))
        self.assembly = assembly
        self.budget.requests_per_minute = settings.huntress.requests_per_minute
        self.store.settle = max((table.settle for table in settings.connectors.values()), default=60.0)
        self._details_source = self._make_source(settings, DETAILS_TIMEOUT)
        self.books.save_configuration_problem("")
        for name in assembly.services:
            self.store.probe_now(name)
            if self.store.paused(name) is None:
                self.store.release_waiting(name)
        log.info("configuration reloaded", connectors=sorted(assembly.services))
        return True

    def _assemble(self, settings: Settings) -> Assembly:
        companies = make_companies(settings)
        connectors = make_connectors(settings, self._context)
        limits: dict[str, int] = {}
        for name, connector in connectors.items():
            group = connector.slot_group()
            limits[group] = max(limits.get(group, 0), settings.connectors[name].concurrency)
            self._gates[name].timeout = settings.connectors[name].timeout
        services = {
            name: Service(
                name,
                connector,
                settings.connectors[name],
                make_renderer(connector, settings),
                limits[connector.slot_group()],
            )
            for name, connector in connectors.items()
        }
        return Assembly(settings, services, companies, self._make_source(settings))

    def _make_source(self, settings: Settings, timeout: float | None = None) -> HuntressClient:
        return make_source(settings, self.budget, timeout, self.requests.counter(SOURCE))

    def _context(self, name: str) -> ConnectorContext:
        gate = self._gates.setdefault(name, Gate(self.store, self.keeper, name))
        return ConnectorContext(
            before_request=gate, before_send=gate.before_send, answered=self.requests.counter(CONNECTOR + name)
        )

    def _probing(self, name: str) -> AbstractContextManager[None]:
        return self._gates[name].probing()
