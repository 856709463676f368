"""The connector protocol: a `Ticket` in, a `TicketRef` or an outcome out.

A connector is a class registered under the entry point ``huntress_bridge.connectors``; the entry point's name is its
`type` in the configuration. It speaks to one ticket system and decides nothing: when to look up, create or wait is
`bridge.reconcile`'s business.

Outcomes (exceptions)::

    Outcome
    ├── Unavailable     certainly not done, try again: refused connection, 429
    ├── OutcomeUnknown  the request may have been carried out: time-out, reset, 5xx
    ├── Misconfigured   a person must mend the configuration: 401, 403, unknown board
    ├── Rejected        the system said no to this ticket, for good
    └── Held            the outcome is unknown and nobody can be asked (only connectors with ``can_find = False``)
"""

from __future__ import annotations

import builtins
import os
import re
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol, runtime_checkable

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator

from bridge.models import Agent, Company, Note, Notice, Organization, Ticket, TicketRef, TicketState
from connectors.questions import Choice, Question, required_questions
from connectors.quiet_windows import Maintenance, Quiet


class Outcome(Exception):
    """What a ticket system's answer means for a delivery. `str()` is a sentence for people, free of secrets."""


class Unavailable(Outcome):
    """Certainly not done; try again. `retry_after` in seconds, when the system named one, pauses the connector."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class OutcomeUnknown(Outcome):
    """The request may have been carried out. `retry_after` as for `Unavailable`."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class Misconfigured(Outcome):
    """The configuration, credentials or permissions do not fit the ticket system; the sentence says what to mend."""


class Rejected(Outcome):
    """The system refused this ticket, for good; carries the system's own sentence."""


class Held(Outcome):
    """Outcome unknown and nobody can be asked; a person decides."""


def why_unreadable(path: Path, error: OSError) -> str:
    """Why `path` cannot be read, with its owner, its mode and our own uid as far as the system tells."""
    try:
        seen = path.stat()
        owner = f", owned by uid {seen.st_uid}, mode {stat.S_IMODE(seen.st_mode):o}"
    except OSError:
        owner = ""
    return f"{error.strerror}{owner}; this process runs as uid {os.getuid()}"


def read_secret(path: Path, key: str) -> str:
    """The secret in the file `path`, without white space around it. Raises `ValueError` with a sentence about `key`."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ValueError(f"{key}: cannot read {path} ({why_unreadable(path, error)})") from None
    except UnicodeDecodeError:
        raise ValueError(f"{key}: {path} is not UTF-8 text") from None


def _point_in_time(value: Any) -> Any:
    if value in ("", "now") or not isinstance(value, (str, date)):
        return value
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))  # TOML has own dates too
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC).isoformat()
    except (ValueError, OverflowError):
        raise ValueError('is neither an ISO date such as 2025-01-31 nor "now"') from None


#: `""`, `"now"` or an ISO date and time in UTC, ready for `datetime.fromisoformat`. Input without a zone means UTC.
NotBefore = Annotated[str, BeforeValidator(_point_in_time)]


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _seconds(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError('must be a number with its unit, such as "90s", "30m", "6h" or "7d"')
    found = re.fullmatch(r"([0-9]{1,6}) ?([smhd])", value.strip())
    if not found:
        raise ValueError(f'{value!r} is no number with its unit, such as "90s", "30m", "6h" or "7d"')
    return float(int(found[1]) * _UNITS[found[2]])


def _with_unit(seconds: float) -> str:
    unit = next(unit for unit in "dhms" if seconds % _UNITS[unit] == 0)
    return f"{seconds / _UNITS[unit]:.0f}{unit}"


#: A length of time in seconds, written as a number with its unit: `s`, `m`, `h` or `d`.
Duration = Annotated[float, BeforeValidator(_seconds), PlainSerializer(_with_unit)]


def _without_user(url: str) -> str:
    return re.sub(r"^([a-z0-9+.-]*://)?.*@", r"\1***@", url, flags=re.IGNORECASE)


#: URL of a proxy. It may carry a password, so representations and dumps leave that part out.
ProxyUrl = Annotated[str, Field(repr=False), PlainSerializer(_without_user)]


class SettingsModel(BaseModel):
    """Base of every settings table: unknown keys are errors; any secret also comes as ``<key>_file``, never both."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, frozen=True)

    @classmethod
    def secret_keys(cls) -> list[str]:
        """Names of the fields that hold secrets."""
        return [name for name, info in cls.model_fields.items() if "SecretStr" in repr(info.annotation)]

    @model_validator(mode="before")
    @classmethod
    def _secrets_from_files(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        data = dict(data)
        for key in cls.secret_keys():
            path = data.pop(f"{key}_file", "")
            if not path:
                continue
            if data.get(key):
                raise ValueError(f"{key} and {key}_file are both given; keep one")
            data[key] = read_secret(Path(str(path)), f"{key}_file")
        return data


class Only(SettingsModel):
    """Which reports a connector takes; an empty list means any."""

    severities: list[str] = []
    organizations: list[int] = []
    platforms: list[str] = []
    #: A report with any of these.
    indicator_types: list[str] = []


#: A string is a name, a number an id.
NameOrId = str | int


class ConnectorSettings(SettingsModel):
    """What every connector takes. A connector's own settings class derives from it and narrows `type` to a Literal."""

    type: str
    #: Requests at the same time, across all workers.
    concurrency: Annotated[int, Field(ge=1, le=100)] = 3
    #: Seconds for a whole request, from connect to the last byte of the answer.
    timeout: Annotated[float, Field(gt=0, le=900)] = 30
    #: Seconds after which a good, empty look-up means that an interrupted create never happened.
    settle: Annotated[float, Field(ge=1, le=3600)] = 60
    #: Appended to the reference, so that two connectors that reach the same system do not share tickets.
    reference_suffix: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{0,12}$")] = ""
    #: Field of the ticket system that carries the reference; empty: the connector's default.
    reference_field: str = ""
    #: Folder with templates that replace the built-in ones, any subset of files.
    templates: str = ""
    #: ISO date or "now": reports sent before are left alone by this connector.
    not_before: NotBefore = ""
    #: Bundle of certificate authorities, PEM; empty: the environment's, else the well-known ones.
    ca_file: str = ""
    #: Proxy URL; empty: the environment's.
    proxy: ProxyUrl = ""
    #: Allow plain http to a host that is not loopback.
    insecure_http: bool = False
    only: Only = Only()
    #: What happens to the ticket when its report is over: a note and the closed status, the note alone, or nothing.
    on_close: Literal["close", "note", "nothing"] = "close"
    #: Statuses (names or ids) that count as untouched by people, beside those that the bridge set or saw at first.
    untouched_statuses: list[NameOrId] = []
    #: Is the ticket of a report that is open again reopened? If not, a new one is made that links it.
    reopen: Literal["never", "within", "always"] = "within"
    #: How long after the end `within` still reopens.
    reopen_within: Duration = 7 * 86400.0
    #: Hours of the week in which deliveries wait.
    quiet: Quiet = []
    #: Single stretches of time in which deliveries wait.
    maintenance: list[Maintenance] = []


class PsaSettings(ConnectorSettings):
    """What connectors to ticket systems with companies and priorities take."""

    #: Company for organizations without one of their own; there is no default.
    default_company: NameOrId | None = None
    #: `internal`: incident text reaches no customer contact. `customer`: it may.
    visibility: Literal["internal", "customer"] = "internal"
    #: Ticket priority (name or id) by severity; `default` for severities not listed, else that of `high`.
    priorities: dict[str, NameOrId] = {}
    #: Further ticket fields by their API name; names resolve to ids, strings may be Jinja.
    fields: dict[str, str | int | float | bool] = {}

    def priority_for(self, severity: str) -> NameOrId | None:
        """Configured priority for the source's word `severity`; None: leave it to the ticket system."""
        for key in (severity, "default", "high"):
            if key in self.priorities:
                return self.priorities[key]
        return None


class Progress(Protocol):
    """What a connector wants remembered while it creates one ticket; kept in the store, survives a crash."""

    def get(self) -> Mapping[str, str]:
        """Everything saved so far for this delivery."""

    def save(self, key: str, value: str) -> None:
        """Remembers `key`; returns once stored. Raises `Unavailable` when the lease was lost or the store is away."""


@dataclass(frozen=True, slots=True)
class ConnectorContext:
    """What the bridge lends a connector."""

    #: Called before every request: raises `Unavailable` while the connector is paused.
    before_request: Callable[[], None] = field(default=lambda: None)
    #: Called once more right before the last bytes of a request leave: raises `Unavailable` when the lease on the
    #: delivery was lost meanwhile, e.g. while this process was frozen. Takes no time.
    before_send: Callable[[], None] = field(default=lambda: None)
    #: Called after every request with its answer's status, an HTTP status or SMTP code, or `none` when none came.
    answered: Callable[[str], None] = field(default=lambda status: None)
    #: Sender and Message-ID domain fallback, log context and the like must never need more than this.
    user_agent: str = "huntress-bridge"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing `check` found: what is wrong and what to do, as a sentence. `setting` is the key it belongs to."""

    setting: str
    message: str

    @property
    def blocking(self) -> bool:
        """Does it stop every ticket? A missing `default_company`, say, stops only those that need it."""
        only_some = ("default_company", "closed_status", "untouched_statuses", "company_defaults")
        return self.setting.partition(".")[0] not in only_some


@dataclass(frozen=True, slots=True)
class TemplatePart:
    """One text of a ticket and the template file that renders it."""

    #: Attribute of `Ticket`: `title`, `text`, `notice` or `html`.
    name: str
    #: File name in `templates/<type>/` and in the override folder.
    file: str
    #: Most characters the ticket system takes; None: no limit known.
    limit: int | None = None
    #: Line breaks are joined.
    single_line: bool = False


class PreparedTicket(Protocol):
    """Whatever `prepare` hands to `create`: the request, ready to send."""


class Connector(ABC):
    """One ticket system. Instances are shared by threads; methods may be called at the same time."""

    #: The entry point's name and the configuration's `type`.
    type: ClassVar[str]
    settings_class: ClassVar[builtins.type[ConnectorSettings]]
    #: Can a ticket be looked up by its reference? False makes delivery at-least-once (or `Held`).
    can_find: ClassVar[bool] = True
    #: Are notes replies to the ticket? Then a note's title is "Re: " and the ticket's, so that they stay together.
    notes_are_replies: ClassVar[bool] = False
    #: Most requests at the same time that the vendor allows, across all workers; None: no documented limit.
    max_concurrency: ClassVar[int | None] = None

    def __init__(self, name: str, settings: Any, context: ConnectorContext) -> None:
        self.name = name
        self.context = context
        # Subclasses narrow: self.settings: MySettings = settings

    @classmethod
    def questions(cls) -> Sequence[Question]:
        """What `init` asks a person who sets this connector up; by default the settings that must be given."""
        return required_questions(cls.settings_class)

    def choices(self, key: str) -> Sequence[Choice] | None:
        """What the ticket system offers for the setting `key` of a question; None: any answer may be right.

        Settings that are asked later are not known yet. Outcomes pass through.
        """
        return None

    @abstractmethod
    def parts(self) -> Sequence[TemplatePart]:
        """The texts of a ticket, with their template files and limits. May ask the ticket system for its own limits."""

    def template_folder(self) -> Path:
        """Where the built-in templates lie. A connector from another package overrides this."""
        return Path(__file__).resolve().parent.parent / "templates" / self.type

    @abstractmethod
    def system(self) -> str:
        """Identity of the system reached, e.g. `host/company`: connectors with the same one need different suffixes."""

    def slot_group(self) -> str:
        """Connectors that answer the same share one limit of concurrency (default: each its own)."""
        return self.name

    @abstractmethod
    def check(self) -> list[Finding]:
        """Tries credentials and every configured name; all findings at once. Raises `Unavailable` when unreachable."""

    def companies(self, fresh: bool = False) -> Sequence[Company] | None:
        """All active companies, from a cache unless `fresh`; None: this system has none (e-mail)."""
        return None

    def company(self, value: NameOrId) -> Company | None:
        """The company that a configured identifier, name or id means; None: there is none, or a name is ambiguous."""
        return None

    @abstractmethod
    def find(self, reference: str) -> list[TicketRef]:
        """Tickets that carry `reference`, lowest id first, closed ones included. An error is never an empty answer."""

    @abstractmethod
    def prepare(self, ticket: Ticket) -> Any:
        """Resolves names to ids and builds the request; sends nothing that changes anything."""

    @abstractmethod
    def create(self, prepared: Any, progress: Progress) -> TicketRef:
        """Sends exactly one create request. Whatever fails before it is sent raises `Unavailable`."""

    def complete(self, ref: TicketRef, ticket: Ticket) -> TicketRef:
        """Once the create is recorded: fetch number and link, attach the host. Safe to repeat, repeated until done."""
        return ref

    @abstractmethod
    def note(self, ref: TicketRef, reference: str, note: Note, progress: Progress | None = None) -> None:
        """Adds an internal note, with the marker `[<reference>/<note.key>]` in its text, unless the ticket has it.

        A connector that cannot look the marker up keeps what it sent in `progress`, whose keys are this note's own.
        """

    def has_note(self, ref: TicketRef, reference: str, key: str) -> bool | None:
        """Does the ticket have the note with the marker `[<reference>/<key>]`? None: it cannot be asked."""
        return None

    def look(self, ref: TicketRef) -> TicketState | None:
        """How the ticket stands now; None: this system cannot be asked, and its tickets get notes only.

        A ticket that a person deleted, merged or converted is an answer (`TicketState.gone`), not an error; one that
        the credentials may not see is `Misconfigured`.
        """
        return None

    def untouched(self, state: TicketState) -> bool:
        """Is the status the one that new tickets get, or among the configured `untouched_statuses`?"""
        return False

    def raise_priority(self, ref: TicketRef, before: str, now: str) -> bool:
        """Sets the priority of severity `now`, unless a person changed that of severity `before`: then False.

        True also when it has that priority already, or when both severities have the same. Raises `Rejected` when the
        system refuses.
        """
        return False

    def close_ticket(self, ref: TicketRef, resolution: str) -> str:
        """Sets the closed status, with `resolution` where the system has such a field; returns the status' id.

        Safe to repeat. Raises `Rejected` with the system's own sentence when it refuses, e.g. for a time entry.
        """
        raise Rejected(f"connector {self.name} ({self.type}) cannot close tickets")

    def reopen_ticket(self, ref: TicketRef, status: str) -> str:
        """Sets the status with id `status`, or the one that new tickets get when that is '' or closed; returns its id.

        Safe to repeat. Raises `Rejected` with the system's own sentence when it refuses.
        """
        raise Rejected(f"connector {self.name} ({self.type}) cannot reopen tickets")

    def create_company(self, organization: Organization, reference: str) -> Company:
        """The company that carries `reference`, made when there is none. Raises `Rejected` when this is not possible.

        `reference` is `huntress-org-<organization id>`; it is looked up first, so a repeat makes no second company.
        """
        raise Rejected(f"connector {self.name} ({self.type}) cannot make companies")

    def link(self, ticket: str, reference: str) -> TicketRef:
        """Writes `reference` into the existing ticket named by id or number. Raises `Rejected` when there is none."""
        raise Rejected(f"connector {self.name} ({self.type}) cannot link existing tickets")

    def close(self) -> None:  # noqa: B027 - most connectors have nothing to give up
        """Gives up connections."""


@runtime_checkable
class Notifier(Protocol):
    """What a connector may offer besides: it can tell a person about the bridge itself (`[alerts] connectors`)."""

    def notify(self, notice: Notice, progress: Progress) -> None:
        """Sends one notice, within the connector's `timeout`; returns when a person has it.

        Raises an outcome otherwise, and is then called again, later, with the same key and the progress kept under it.
        What has been saved as sent is not sent again; beyond that a notice may arrive twice, never not at all.
        """


__all__ = [
    "Agent",
    "Choice",
    "Connector",
    "ConnectorContext",
    "ConnectorSettings",
    "Duration",
    "Finding",
    "Held",
    "Misconfigured",
    "NameOrId",
    "NotBefore",
    "Notifier",
    "Only",
    "Outcome",
    "OutcomeUnknown",
    "Progress",
    "ProxyUrl",
    "PsaSettings",
    "Question",
    "Rejected",
    "SettingsModel",
    "TemplatePart",
    "Unavailable",
]
