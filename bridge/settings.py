"""Every setting, as one tree of small frozen models, and how to load it.

The configuration is a TOML file plus `BRIDGE_…` variables, which win key by key. `load` reports everything that is
wrong at once. `bridge.example.toml` documents every key; a test fails when one is missing there.
"""

from __future__ import annotations

import logging
import os
import re
import zoneinfo
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, Field, PrivateAttr, SecretStr, SerializeAsAny, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from bridge.models import Kind
from bridge.settings_reading import CONFIG_VARIABLE, ConfigurationError, read_toml
from bridge.settings_types import BaseUrl, HeartbeatUrl, PortalUrl, RedisUrl, SigningSecret, ZoneName
from bridge.web_settings import WebSettings
from connectors.base import ConnectorSettings, Duration, NotBefore, ProxyUrl, SettingsModel

if TYPE_CHECKING:
    from connectors.base import Connector

# With PYDANTIC_SETTINGS_DEBUG set it would log every value, secrets included.
logging.getLogger("pydantic_settings").addFilter(lambda _record: False)

#: Characters from which on a part of the heartbeat's URL may give its token away; masking shorter ones would shred
#: every log line that says "ping".
SHORTEST_TOKEN = 8

OrganizationId = Annotated[int, Field(ge=1)]


class HuntressSettings(SettingsModel):
    """Where incident reports come from."""

    #: Allow plain http to a host that is not loopback. Stands first: `base_url` is judged by it.
    insecure_http: bool = False
    base_url: BaseUrl = "https://api.huntress.io/v1"
    api_key: SecretStr = SecretStr("")
    api_secret: SecretStr = SecretStr("")
    #: With a reseller's key: the child account; 0: the key's own account.
    account_id: Annotated[int, Field(ge=0)] = 0
    dialect: Literal["auto", "incident_reports", "reports"] = "auto"
    #: This project's share of the account's 60 requests a minute.
    requests_per_minute: Annotated[int, Field(ge=1)] = 30
    #: Is a report resolved when people closed all its tickets? Needs a user's key; the account's own is read-only.
    resolve: bool = False
    portal_url: PortalUrl = "https://{subdomain}.huntress.io/org/{organization_id}/infection_reports/{report_id}"
    #: Seconds for a whole request, from connect to the last byte of the answer.
    timeout: Annotated[float, Field(gt=0, le=900)] = 30
    #: Bundle of certificate authorities, PEM; empty: the environment's, else the well-known ones.
    ca_file: str = ""
    #: Proxy URL; empty: the environment's.
    proxy: ProxyUrl = ""


class PollSettings(SettingsModel):
    """How the source is asked what is open."""

    #: Seconds from the start of one poll to the start of the next.
    interval: Annotated[float, Field(ge=1, le=86400)] = 15
    scope: Literal["auto", "account", "organization"] = "auto"
    not_before: NotBefore = ""

    def scope_for(self, dialect: str) -> Literal["account", "organization"]:
        """Is the account listed as a whole, or each organization by itself, which takes a request each?"""
        if self.scope == "auto":
            return "account" if dialect == "incident_reports" else "organization"
        return self.scope


class SourcesSettings(SettingsModel):
    """What becomes a ticket beside incident reports."""

    escalations: bool = False
    platform_actions: bool = False

    @property
    def kinds(self) -> list[Kind]:
        """The kinds that are turned on."""
        return [
            *([Kind.ESCALATION] if self.escalations else []),
            *([Kind.PLATFORM_ACTION] if self.platform_actions else []),
        ]


class RedisSettings(SettingsModel):
    """Where the store and Dramatiq's messages are. The URLs may carry a password, so they are secrets."""

    #: Empty: embedded.
    url: RedisUrl = SecretStr("")
    #: Empty: the next logical database of the same server.
    broker_url: RedisUrl = SecretStr("")
    #: Start of every key.
    namespace: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}$")] = "bridge"


KeptDays = Annotated[int, Field(ge=0, le=36500)]


class StoreSettings(SettingsModel):
    """How long the store keeps what is over. Days after the report's end; 0: for ever."""

    #: The report as the source last showed it, and what a later note on its ticket would be compared with.
    keep_snapshots: KeptDays = 30
    #: Which ticket it had, and what happened to it.
    keep_deliveries: KeptDays = 400

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if 0 < self.keep_deliveries < (self.keep_snapshots or self.keep_deliveries):
            raise ValueError("keep_deliveries must not be less than keep_snapshots")
        return self


class WorkerSettings(SettingsModel):
    """The process that delivers."""

    #: 0: what rule 12 asks for, `Settings.worker_threads`.
    threads: Annotated[int, Field(ge=0, le=1000)] = 0


class WebhooksSettings(SettingsModel):
    """Events that the source sends by itself, taken by `web` at `/webhooks/huntress`."""

    #: As the portal's View Signing Secret shows it; empty: no webhook is taken.
    secret: SigningSecret = SecretStr("")


class OrganizationsSettings(SettingsModel):
    """Which organizations are served, and as which company."""

    #: CSV file; empty: none.
    file: str = ""
    automatch: Literal["exact", "off"] = "exact"
    #: Empty: all.
    only: list[OrganizationId] = Field(default_factory=list)
    disabled: list[OrganizationId] = Field(default_factory=list)
    #: Seconds between looks at what was added, renamed or removed.
    sync: Annotated[Duration, Field(ge=60)] = 6 * 3600.0
    #: Connectors in which the sync makes a company for every organization without one.
    create_companies: list[str] = Field(default_factory=list)


class AlertsSettings(SettingsModel):
    """How a person hears of what needs one. `insecure_http`, `ca_file` and `proxy` concern `heartbeat_url` only."""

    #: Allow plain http to a host that is not loopback. Stands first: `heartbeat_url` is judged by it.
    insecure_http: bool = False
    #: Asked (GET) after every complete poll; empty: none.
    heartbeat_url: HeartbeatUrl = SecretStr("")
    #: As in `HuntressSettings`.
    ca_file: str = ""
    proxy: ProxyUrl = ""
    #: Connectors that carry notices, in the order in which they are tried; empty: no notices.
    connectors: list[str] = Field(default_factory=list)


class Settings(BaseSettings):
    """The whole configuration. `load` makes it; made directly, it takes its values from the arguments only."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, case_sensitive=True)

    #: Embedded Redis keeps its append-only file here.
    data_dir: Path = Path("data")
    #: For times shown in tickets; an IANA name.
    timezone: ZoneName = "UTC"
    #: What the processes log to standard error; `--log-level` overrides it.
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    huntress: HuntressSettings = HuntressSettings()
    poll: PollSettings = PollSettings()
    sources: SourcesSettings = SourcesSettings()
    redis: RedisSettings = RedisSettings()
    store: StoreSettings = StoreSettings()
    worker: WorkerSettings = WorkerSettings()
    web: WebSettings = WebSettings()
    webhooks: WebhooksSettings = WebhooksSettings()
    organizations: OrganizationsSettings = OrganizationsSettings()
    alerts: AlertsSettings = AlertsSettings()
    #: Connectors by name; each value is an instance of its connector's own settings class.
    connectors: dict[str, SerializeAsAny[ConnectorSettings]] = {}

    _source: Path | None = PrivateAttr(default=None)
    _secret_files: tuple[Path, ...] = PrivateAttr(default=())

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments only; `load` puts the file and the environment in their place."""
        return (init_settings,)

    @property
    def source(self) -> Path | None:
        """The configuration file; None: there was none."""
        return self._source

    @property
    def secret_files(self) -> tuple[Path, ...]:
        """Files that secrets were read from."""
        return self._secret_files

    @property
    def zone(self) -> zoneinfo.ZoneInfo:
        """The time zone for times shown in tickets."""
        return zoneinfo.ZoneInfo(self.timezone)

    @property
    def worker_threads(self) -> int:
        """Threads of a worker: as configured, else what `threads_needed` says."""
        return self.worker.threads or threads_needed(self.connectors)

    def require_source(self) -> None:
        """Raises `ConfigurationError` unless there are credentials for Huntress."""
        missing = [key for key in ("api_key", "api_secret") if not getattr(self.huntress, key).get_secret_value()]
        if missing:
            raise ConfigurationError(
                f"huntress.{key} is empty; make an API key in the Huntress portal and give its part here, as "
                f"BRIDGE_HUNTRESS__{key.upper()}, or in a file named by huntress.{key}_file"
                for key in missing
            )

    def require_connectors(self) -> None:
        """Raises `ConfigurationError` unless there is a connector."""
        if not self.connectors:
            raise ConfigurationError(
                ['no connector is configured; add a table such as [connectors.psa] with type = "connectwise"']
            )

    def require_page(self) -> None:
        """Raises `ConfigurationError` when strangers could use the page."""
        if self.web.problem():
            raise ConfigurationError([self.web.problem()])

    def masked(self) -> dict[str, Any]:
        """All settings as plain data for diagnostics, secrets and the users of proxies masked."""
        return self.model_dump(mode="json")


def threads_needed(connectors: Mapping[str, ConnectorSettings]) -> int:
    """One for each request that the connectors allow at once, plus two: one that hangs starves no other."""
    return sum(settings.concurrency for settings in connectors.values()) + 2


def load(
    path: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    classes: Mapping[str, type[Connector]] | None = None,
) -> Settings:
    """The configuration from `environ` and `path`, else what `BRIDGE_CONFIG` names, else `./bridge.toml` if it exists.

    `classes` are the connector classes by type, those of the registry by default. Credentials and connectors may be
    missing: `require_source` and `require_connectors` say whether that matters. Raises `ConfigurationError`.
    """
    if path is None and environ.get(CONFIG_VARIABLE):
        path = Path(environ[CONFIG_VARIABLE])
    if path is None and _may_exist(Path("bridge.toml")):
        path = Path("bridge.toml")
    # The loader needs this module's models.
    from bridge.settings_loading import Loader

    loader = Loader(read_toml(path) if path else {}, environ, classes)
    settings = loader.settings()
    settings._source = path
    settings._secret_files = tuple(loader.secret_files)
    return settings


def _may_exist(path: Path) -> bool:
    """False only when there is certainly no such file; one that cannot be looked at is to be an error with its path."""
    try:
        return path.exists()
    except OSError:
        return True


def secrets(settings: Settings) -> list[str]:
    """Every secret value, longest first, for redaction; passwords within URLs also by themselves."""
    found = {*_secrets_in(settings), *heartbeat_secrets(settings.alerts.heartbeat_url)}
    return sorted(filter(None, found), key=lambda text: (-len(text), text))


def heartbeat_secrets(url: SecretStr) -> list[str]:
    """The parts of a heartbeat's URL in which its token may stand, as logs and errors would show them.

    A single word counts only with a digit in it, as tokens have one: names such as `huntress-bridge` are said often.
    """
    parts = urlsplit(url.get_secret_value())
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    words = [word for word in re.split(r"[/&=?]", target) if re.search(r"\d", word)]
    found = (url.get_secret_value(), target, parts.path, parts.query, *words)
    return [text for text in found if len(text) >= SHORTEST_TOKEN]


def _secrets_in(value: object) -> Iterator[str]:
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
        yield from _secrets_in(value.get_secret_value())
    elif isinstance(value, BaseModel):
        yield from (secret for _, inner in value for secret in _secrets_in(inner))
    elif isinstance(value, Mapping):
        yield from (secret for inner in value.values() for secret in _secrets_in(inner))
    elif isinstance(value, (list, tuple)):
        yield from (secret for inner in value for secret in _secrets_in(inner))
    elif isinstance(value, str) and "@" in value:
        try:
            password = urlsplit(value if "://" in value else f"//{value}").password or ""
        except ValueError:
            return
        yield from (password, unquote(password))


def watched_files(settings: Settings) -> list[Path]:
    """Files whose change matters without a signal: secret files and the organizations' CSV."""
    return [*settings.secret_files, *([Path(settings.organizations.file)] if settings.organizations.file else [])]


def configuration_files(settings: Settings) -> list[Path]:
    """What SIGHUP re-reads besides: the configuration file and the connectors' template folders."""
    folders = [Path(connector.templates) for connector in settings.connectors.values() if connector.templates]
    return [*([settings.source] if settings.source else []), *folders]


__all__ = [
    "AlertsSettings",
    "ConfigurationError",
    "HuntressSettings",
    "OrganizationsSettings",
    "PollSettings",
    "RedisSettings",
    "Settings",
    "SourcesSettings",
    "WebSettings",
    "WebhooksSettings",
    "WorkerSettings",
    "configuration_files",
    "heartbeat_secrets",
    "load",
    "secrets",
    "threads_needed",
    "watched_files",
]
