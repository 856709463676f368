"""Loading the configuration: what wins, what is refused, and what is said about it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, cast

import pytest
from pydantic import BaseModel, Field, SecretStr, field_validator

from bridge.models import Notice
from bridge.settings import (
    ConfigurationError,
    HuntressSettings,
    Settings,
    configuration_files,
    load,
    secrets,
    watched_files,
)
from bridge.settings_reading import keys_of
from connectors.base import Connector, ConnectorSettings, NameOrId, Progress, PsaSettings
from connectors.registry import connector_classes

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "bridge.example.toml"


class HelpdeskSettings(PsaSettings):
    """A connector as another package would bring it: required keys, required and optional secrets."""

    type: Literal["helpdesk"]
    url: str
    board: NameOrId = "Security"
    private_key: Annotated[SecretStr, Field(min_length=1)]
    token: SecretStr = SecretStr("")
    watchers: list[str] = []  # noqa: RUF012 - a pydantic field

    @field_validator("token")
    @classmethod
    def _careless(cls, value: SecretStr) -> SecretStr:
        if value.get_secret_value().startswith("bad"):
            raise ValueError(f"token {value.get_secret_value()} will not do")
        return value


class PagerSettings(ConnectorSettings):
    """A second type."""

    type: Literal["pager"]
    number: str = ""


class Helpdesk(Connector):
    """Never made: only its settings are looked at."""

    settings_class: ClassVar[type[ConnectorSettings]] = HelpdeskSettings


class Pager(Connector):
    """Never made either."""

    settings_class: ClassVar[type[ConnectorSettings]] = PagerSettings

    def notify(self, notice: Notice, progress: Progress) -> None:
        """So it can be named in `[alerts]`."""


CLASSES = cast("dict[str, type[Connector]]", {"helpdesk": Helpdesk, "pager": Pager})
PSA = """
[connectors.psa]
type = "helpdesk"
url = "https://psa.example.com"
private_key = "toml-private-key"
"""
PAGER = """
[connectors.oncall]
type = "pager"
"""

Loader = Callable[..., Settings]


@pytest.fixture
def loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loader:
    """Loads TOML text and variables in an empty working directory."""
    monkeypatch.chdir(tmp_path)

    def loads(toml: str = "", /, classes: Mapping[str, type[Connector]] = CLASSES, **environ: str) -> Settings:
        file = tmp_path / "given.toml"
        file.write_text(toml, encoding="utf-8")
        return load(file, environ, classes)

    return loads


def refused(loads: Loader, toml: str = "", /, **environ: str) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as caught:
        loads(toml, **environ)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


# Where it comes from


def test_nothing_given_is_all_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load(None, {}, CLASSES)
    assert settings == Settings()
    assert settings.source is None
    assert settings.connectors == {}
    assert settings.worker_threads == 2


def test_the_file_is_the_argument_else_the_variable_else_bridge_toml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("argument", "variable", "bridge"):
        Path(f"{name}.toml").write_text(f'[redis]\nnamespace = "{name}"\n')
    environ = {"BRIDGE_CONFIG": "variable.toml"}
    assert load(Path("argument.toml"), environ, CLASSES).redis.namespace == "argument"
    assert load(None, environ, CLASSES).redis.namespace == "variable"
    assert load(None, {"BRIDGE_CONFIG": ""}, CLASSES).redis.namespace == "bridge"
    assert load(None, {}, CLASSES).source == Path("bridge.toml")


def test_the_environment_wins_key_by_key(loads: Loader) -> None:
    settings = loads(
        PSA + 'board = "Help"\nonly = { severities = ["low"], organizations = [7] }\n[poll]\ninterval = 20\n',
        BRIDGE_POLL__SCOPE="account",
        BRIDGE_CONNECTORS__PSA__BOARD="Security",
        BRIDGE_CONNECTORS__PSA__ONLY='{"severities": ["critical"]}',
        BRIDGE_CONNECTORS__PSA__ONLY__PLATFORMS='["windows"]',
    )
    psa = settings.connectors["psa"]
    assert isinstance(psa, HelpdeskSettings)
    assert (settings.poll.interval, settings.poll.scope) == (20, "account")
    assert (psa.board, psa.url) == ("Security", "https://psa.example.com")
    assert (psa.only.severities, psa.only.organizations, psa.only.platforms) == (["critical"], [7], ["windows"])


def test_a_connector_may_come_from_the_environment_alone(loads: Loader) -> None:
    named = loads(BRIDGE_CONNECTORS__OPS__TYPE="pager", BRIDGE_CONNECTORS__OPS__NUMBER="112")
    table = loads(BRIDGE_CONNECTORS__OPS='{"type": "pager", "number": "1"}', BRIDGE_CONNECTORS__OPS__NUMBER="112")
    whole = loads(BRIDGE_CONNECTORS='{"ops": {"type": "pager"}}', BRIDGE_CONNECTORS__OPS='{"number": "112"}')
    assert named == table == whole
    assert isinstance(named.connectors["ops"], PagerSettings)
    assert named.connectors["ops"].number == "112"


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("BOARD", "Security", "Security"),
        ("BOARD", "12", 12),
        ("BOARD", '"12"', "12"),
        ("BOARD", "1.5", "1.5"),
        ("BOARD", "true", "true"),
        ("DEFAULT_COMPANY", "175", 175),
        ("WATCHERS", '["a", "b"]', ["a", "b"]),
        ("WATCHERS", "", []),
        ("CONCURRENCY", "5", 5),
        ("CONCURRENCY", "", 3),
        ("INSECURE_HTTP", "true", True),
        ("TEMPLATES", "", ""),
        ("PRIORITIES", '{"high": 2}', {"high": 2}),
        ("PRIORITIES__HIGH", "2", {"high": 2}),
        ("PRIORITIES__HIGH", "Urgent", {"high": "Urgent"}),
        ("FIELDS__subType", "Malware", {"subType": "Malware"}),
        ("FIELDS__TYPE", "false", {"type": False}),
    ],
)
def test_a_variable_means_what_its_key_takes(loads: Loader, key: str, text: str, value: object) -> None:
    settings = loads(PSA, **{f"BRIDGE_CONNECTORS__PSA__{key}": text})
    found = getattr(settings.connectors["psa"], key.split("__")[0].lower())
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("secret", ["0123", "true", "null", '"quoted"', "1e5", "{}", "päss wörd"])
def test_a_secret_in_a_variable_stays_the_text_it_is(loads: Loader, secret: str) -> None:
    settings = loads(PSA, BRIDGE_HUNTRESS__API_KEY=secret, BRIDGE_CONNECTORS__PSA__PRIVATE_KEY=secret)
    psa = settings.connectors["psa"]
    assert isinstance(psa, HelpdeskSettings)
    assert settings.huntress.api_key.get_secret_value() == secret
    assert psa.private_key.get_secret_value() == secret


def test_what_kubernetes_injects_and_what_is_not_ours_is_passed_over(loads: Loader) -> None:
    settings = loads(
        BRIDGE_PORT="tcp://10.0.0.1:80",
        BRIDGE_PORT_80_TCP="tcp://10.0.0.1:80",
        BRIDGE_SERVICE_HOST="10.0.0.1",
        PATH="/x",
    )
    assert settings.model_dump() == Settings().model_dump()


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    file = tmp_path / "bridge.toml"
    file.write_bytes(b"\xef\xbb\xbf[poll]\r\ninterval = 60\r\n")
    assert load(file, {}, CLASSES).poll.interval == 60


# What is refused, and how


@pytest.mark.parametrize(
    ("toml", "sentence"),
    [
        (
            '[huntress]\napi_kee = "x"\n',
            "huntress.api_kee is not a known key; the nearest known one is huntress.api_key",
        ),
        ("[huntres]\n", "huntres is not a known key; the nearest known one is huntress"),
        (
            "requests_per_minute = 5\n",
            "requests_per_minute is not a known key; the nearest known one is huntress.requests_per_minute",
        ),
        (
            PSA + 'bord = "x"\n',
            "connectors.psa.bord is not a known key; the nearest known one is connectors.psa.board",
        ),
        (
            PSA + 'only = { severity = ["low"] }\n',
            "connectors.psa.only.severity is not a known key; the nearest known one is connectors.psa.only.severities",
        ),
        (
            PSA + 'private_keyfile = "x"\n',
            "connectors.psa.private_keyfile is not a known key; "
            "the nearest known one is connectors.psa.private_key_file",
        ),
        ("poll = 5\n", "poll must be a table"),
        ("connectors = 5\n", "connectors must be a table"),
        ("connectors.psa = 5\n", "connectors.psa must be a table"),
        (
            '[connectors."my-psa"]\ntype = "pager"\n',
            "connectors.my-psa: a connector's name must match [a-z][a-z0-9_]*",
        ),
        ("[connectors.psa]\n", "connectors.psa.type is missing; known types are helpdesk, pager"),
        (
            '[connectors.psa]\ntype = "desk"\n',
            "connectors.psa.type: 'desk' is not a known connector type; known types are helpdesk, pager",
        ),
        (PSA.replace('url = "https://psa.example.com"', ""), "connectors.psa.url is missing"),
        (PSA.replace("toml-private-key", ""), "connectors.psa.private_key is empty"),
        (PSA + "watchers = [1]\n", "connectors.psa.watchers must be a valid string (item 1)"),
        (PSA + "board = []\n", "connectors.psa.board must be a valid string or a valid integer"),
        (
            PSA + "priorities.high = []\n",
            "connectors.psa.priorities.high must be a valid string or a valid integer",
        ),
        (PSA + "only.organizations = [1, 'x']\n", "connectors.psa.only.organizations must be a valid integer"),
        (PSA + 'not_before = "yesterday"\n', "connectors.psa.not_before is neither an ISO date such as 2025-01-31"),
        (PSA + "templates = 'nowhere'\n", "connectors.psa.templates: cannot read nowhere (No such file"),
        ('[poll]\nnot_before = "31.1.2025"\n', "poll.not_before is neither an ISO date"),
        ("[poll]\ninterval = 0.5\n", "poll.interval must be greater than or equal to 1"),
        ("[store]\nkeep_snapshots = -1\n", "store.keep_snapshots must be greater than or equal to 0"),
        ("[store]\nkeep_snapshots = 500\n", "store: keep_deliveries must not be less than keep_snapshots"),
        ("[store]\nkeep_snapshots = 0\nkeep_deliveries = 0.5\n", "store.keep_deliveries"),
        ('[poll]\nscope = "all"\n', "poll.scope must be 'auto', 'account' or 'organization'"),
        ('[huntress]\ndialect = "v1"\n', "huntress.dialect must be 'auto', 'incident_reports' or 'reports'"),
        ("[huntress]\nrequests_per_minute = 0\n", "huntress.requests_per_minute must be greater than or equal to 1"),
        ("[huntress]\naccount_id = -1\n", "huntress.account_id must be greater than or equal to 0"),
        ("[huntress]\ntimeout = nan\n", "huntress.timeout must be less than or equal to 900"),
        ("[huntress]\napi_key = 5\n", "huntress.api_key must be a valid string"),
        ('[huntress]\nca_file = "no.pem"\n', "huntress.ca_file: cannot read no.pem (No such file"),
        (
            '[huntress]\nbase_url = "http://example.com/v1"\n',
            "huntress.base_url would send the API key over plain http",
        ),
        ('[huntress]\nbase_url = "api.huntress.io/v1"\n', "huntress.base_url is not a URL such as"),
        ('[huntress]\nbase_url = "https://x:99999"\n', "huntress.base_url is not a URL such as"),
        ('[huntress]\nbase_url = "https://a\\nb/v1"\n', "huntress.base_url is not a URL such as"),
        ('[huntress]\nbase_url = "https://user:pass@example.com"\n', "huntress.base_url must be a plain URL"),
        ('[huntress]\nbase_url = "https://example.com?x=1"\n', "huntress.base_url must be a plain URL"),
        ('[huntress]\nportal_url = "https://x/{report}"\n', "huntress.portal_url may only contain the placeholders"),
        ('[huntress]\nportal_url = "https://x/{}"\n', "huntress.portal_url may only contain the placeholders"),
        (
            '[huntress]\nportal_url = "https://x/{report_id.__class__}"\n',
            "huntress.portal_url may only contain the placeholders",
        ),
        ('[huntress]\nportal_url = "https://x/{report_id!r}"\n', "huntress.portal_url may only contain the placehol"),
        ('[huntress]\nportal_url = "https://x/{report_id:>9999999999}"\n', "huntress.portal_url may only contain the"),
        ('[huntress]\nportal_url = "https://x/{report_id"\n', "huntress.portal_url has a brace without its partner"),
        ('[huntress]\nportal_url = "javascript:alert(1)"\n', "huntress.portal_url is not a URL"),
        ('[alerts]\nheartbeat_url = "monitor.example.com"\n', "alerts.heartbeat_url is not a URL such as"),
        ('[alerts]\nheartbeat_url = "ftp://example.com/x"\n', "alerts.heartbeat_url is not a URL such as"),
        ('[alerts]\nheartbeat_url = "https://u:p@example.com/x"\n', "alerts.heartbeat_url must be a URL without user"),
        ('[alerts]\nheartbeat_url = "http://example.com/x"\n', "alerts.heartbeat_url would send the URL's token over"),
        ('[alerts]\nca_file = "no.pem"\n', "alerts.ca_file: cannot read no.pem (No such file"),
        (
            '[alerts]\nconnectors = ["psa"]\n',
            "alerts.connectors: item 1 is the name of no connector; configured: none",
        ),
        (
            PSA + PAGER + '[alerts]\nconnectors = ["oncall", "mail"]\n',
            "alerts.connectors: item 2 is the name of no connector; configured: psa, oncall",
        ),
        (
            PSA + '[alerts]\nconnectors = ["psa"]\n',
            "alerts.connectors: connector psa (helpdesk) cannot carry notices; types that can: pager",
        ),
        ('[alerts]\nconnectors = "oncall"\n', "alerts.connectors must be a valid list"),
        ("[alerts]\nconnectors = [5]\n", "alerts.connectors must be a valid string (item 1)"),
        ('[redis]\nurl = "localhost:6379"\n', "redis.url is not a Redis URL"),
        ('[redis]\nurl = "redis://:pa/ss@localhost"\n', "redis.url is not a Redis URL"),
        ('[redis]\nurl = "redis://localhost/one"\n', "redis.url must end in the number of a database"),
        ('[redis]\nbroker_url = "amqp://localhost"\n', "redis.broker_url is not a Redis URL"),
        ('[redis]\nnamespace = "a*"\n', "redis.namespace must match pattern"),
        ("[web]\nport = 65536\n", "web.port must be less than or equal to 65535"),
        ('[web]\nhost = ""\n', "web.host is empty"),
        ('timezone = "Mars/Olympus"\n', "timezone is not a known time zone"),
        ('timezone = "../../etc/passwd"\n', "timezone is not a known time zone"),
        ('timezone = "Europe"\n', "timezone is not a known time zone"),
        ('[organizations]\nautomatch = "fuzzy"\n', "organizations.automatch must be 'exact' or 'off'"),
        ("[organizations]\nsync = 6\n", "organizations.sync must be a number with its unit, such as"),
        ('[organizations]\nsync = "6 hours"\n', "organizations.sync: '6 hours' is no number with its unit, such as"),
        ('[organizations]\nsync = "30s"\n', "organizations.sync must be greater than or equal to 60"),
        (
            PSA + '[organizations]\ncreate_companies = ["psa", "desk"]\n',
            "organizations.create_companies: item 2 is the name of no connector; configured: psa",
        ),
        (
            PAGER + '[organizations]\ncreate_companies = ["oncall"]\n',
            "organizations.create_companies: connector oncall (pager) has no companies; remove it",
        ),
        (
            PSA + '[organizations]\nautomatch = "off"\ncreate_companies = ["psa"]\n',
            'organizations.create_companies needs organizations.automatch = "exact"',
        ),
        ('[organizations]\ncreate_companies = "psa"\n', "organizations.create_companies must be a valid list"),
        ("[organizations]\ncreate_companies = [[1]]\n", "organizations.create_companies must be a valid string (item"),
        ("[organizations]\nonly = [0]\n", "organizations.only must be greater than or equal to 1 (item 1)"),
        ('[organizations]\nfile = "no.csv"\n', "organizations.file: cannot read no.csv (No such file"),
        (PSA + "[worker]\nthreads = 4\n", "worker.threads must be 0 or at least 5"),
        (PSA + "concurrency = 0\n", "connectors.psa.concurrency must be greater than or equal to 1"),
        *(
            (f"{PSA}{given}\n", f"connectors.psa.{sentence}")
            for given, sentence in {
                "quiet = 5": "quiet must be a valid list",
                "quiet = [5]": "quiet must be a table (item 1)",
                'quiet = [{ from = "22:00" }]': "quiet (item 1): to is missing",
                'quiet = [{ from = "22:00", to = "07:00" }, { from = "25:00", to = "07:00" }]': (
                    'quiet (item 2): from must be a time such as "07:00"'
                ),
                'quiet = [{ from = 7, to = "07:00" }]': 'quiet (item 1): from must be a time such as "07:00"',
                'quiet = [{ from = "22:00", to = "22:00" }]': "quiet must end at another time than they start",
                'quiet = [{ days = ["Saturday"], from = "22:00", to = "07:00" }]': (
                    "quiet (item 1): days: 'Saturday' is no day; days are mon, tue, wed, thu, fri, sat, sun"
                ),
                'quiet = [{ days = [], from = "22:00", to = "07:00" }]': "quiet (item 1): days is empty",
                'quiet = [{ from = "22:00", to = "07:00", excpt = "high" }]': (
                    "quiet (item 1): excpt is not a known key; the nearest known one is except"
                ),
                'quiet = [{ from = "22:00", to = "07:00", except = "low" }]': (
                    "quiet (item 1): except must be 'critical', 'high' or 'nothing'"
                ),
                'quiet = [{ from = "00:00", to = "24:00" }]': "quiet would never end, so that reports would wait",
                'quiet = [{ from = "07:00", to = "22:00" }, { from = "22:00", to = "07:00", organizations = [4] }]': (
                    "quiet would never end, so that reports of organization 4 would wait"
                ),
                "maintenance = [{ from = 2026-12-02T04:00:00, to = 2026-12-01T22:00:00 }]": (
                    "maintenance would end (2026-12-01T22:00:00) before it starts (2026-12-02T04:00:00) (item 1)"
                ),
                "maintenance = [{ from = 2026-12-01T22:00:00, to = 2026-12-02T04:00:00Z }]": (
                    "maintenance must give from and to both with an offset, or both without"
                ),
                'maintenance = [{ from = "tonight", to = 2026-12-02T04:00:00Z }]': (
                    "maintenance (item 1): from must be a valid datetime"
                ),
            }.items()
        ),
    ],
)
def test_a_mistake_in_the_file_is_one_sentence_about_its_key(loads: Loader, toml: str, sentence: str) -> None:
    problems = refused(loads, toml)
    assert len(problems) == 1
    assert problems[0].startswith(sentence)


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("BRIDGE_HUNTRESS__API_KEE", "x", "is not a known variable; the nearest known one is BRIDGE_HUNTRESS__API_KEY"),
        ("BRIDGE_HUNTRESS_API_KEY", "x", "is not a known variable; the nearest known one is BRIDGE_HUNTRESS__API_KEY"),
        ("BRIDGE_WEB_PORT", "80", "is not a known variable; the nearest known one is BRIDGE_WEB__PORT"),
        ("BRIDGE_", "80", "is not a known variable; the nearest known one is BRIDGE_"),
        (
            "BRIDGE_CONNECTORS__PSQ__BOARD",
            "x",
            "is not a known variable; the nearest known one is BRIDGE_CONNECTORS__PSA__BOARD",
        ),
        (
            "BRIDGE_CONNECTORS__PSA__BORD",
            "x",
            "is not a known variable; the nearest known one is BRIDGE_CONNECTORS__PSA__BOARD",
        ),
        (
            "BRIDGE_CONNECTORS__PSA__BOARD__NAME",
            "x",
            "is not a known variable; the nearest known one is BRIDGE_CONNECTORS__PSA__BOARD",
        ),
        ("BRIDGE_ORGANIZATIONS__ONLY", "1,2", "must be a JSON list such as"),
        ("BRIDGE_ORGANIZATIONS__ONLY", '{"a": 1}', "must be a JSON list such as"),
        ("BRIDGE_POLL", "15", "must be a JSON table such as"),
        ("BRIDGE_CONNECTORS__PSA", "[]", "must be a JSON table such as"),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(loads: Loader, name: str, text: str, sentence: str) -> None:
    problems = refused(loads, PSA, **{name: text})
    assert len(problems) == 1
    assert problems[0].startswith(f"{name} {sentence}")


def test_a_bad_value_from_the_environment_names_key_and_variable(loads: Loader) -> None:
    problems = refused(loads, BRIDGE_WEB__PORT="http", BRIDGE_POLL='{"interval": 0}')
    assert problems[0].startswith("poll.interval (BRIDGE_POLL) must be greater")
    assert problems[1].startswith("web.port (BRIDGE_WEB__PORT) must be a valid integer")


def test_a_connector_of_the_environment_alone_needs_a_known_type(loads: Loader) -> None:
    unknown = refused(loads, BRIDGE_CONNECTORS__OPS__TYPE="pagr", BRIDGE_CONNECTORS__OPS__NUMBER="112")
    missing = refused(loads, BRIDGE_CONNECTORS__OPS='{"number": "112"}', BRIDGE_CONNECTORS__OPS__BOARD="x")
    assert unknown == (
        "connectors.ops.type (BRIDGE_CONNECTORS__OPS__TYPE): 'pagr' is not a known connector type; "
        "known types are helpdesk, pager",
    )
    assert missing == ("connectors.ops.type is missing; known types are helpdesk, pager",)


def test_a_type_whose_package_is_broken_says_why(tmp_path: Path) -> None:
    package = tmp_path / "acme_bridge-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-bridge\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[huntress_bridge.connectors]\nacme = acme_bridge:Acme\n")
    program = (
        "from bridge.settings import ConfigurationError, load\n"
        "try:\n    load(None, {'BRIDGE_CONNECTORS__OPS__TYPE': 'acme'})\n"
        "except ConfigurationError as error:\n    print(error)\n"
    )
    environ = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    command = [sys.executable, "-c", program]
    said = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environ, check=True).stdout
    assert "connectors.ops.type (BRIDGE_CONNECTORS__OPS__TYPE): connector type acme of acme-bridge 1.0" in said
    assert "No module named 'acme_bridge'" in said


def test_the_same_key_twice_in_the_environment_is_refused(loads: Loader) -> None:
    problems = refused(loads, BRIDGE_WEB__PORT="1", BRIDGE_web__port="2")
    assert problems == ("BRIDGE_web__port and BRIDGE_WEB__PORT mean the same key; keep one",)


def test_everything_wrong_is_told_at_once(loads: Loader) -> None:
    problems = refused(
        loads,
        PSA
        + """
        bord = "x"
        concurrency = 0
        token_file = "missing"
        templates = "missing"
        [connectors.ops]
        type = "pagr"
        [poll]
        interval = 0
        [worker]
        threads = 1
        [nonsense]
        """,
        BRIDGE_NONSENSE="x",
        BRIDGE_ORGANIZATIONS__ONLY="1",
        BRIDGE_CONNECTORS__OPS__NUMBER="1",
    )
    keys = sorted(problem.split()[0].rstrip(":") for problem in problems)
    assert keys == [
        "BRIDGE_NONSENSE",
        "BRIDGE_ORGANIZATIONS__ONLY",
        "connectors.ops.type",
        "connectors.psa.bord",
        "connectors.psa.concurrency",
        "connectors.psa.token_file",
        "nonsense",
        "poll.interval",
        "worker.threads",
    ]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"[huntress]\napi_key = \n", "is not valid TOML: Invalid value (at line 2"),
        (b"[web]\n[web]\n", "is not valid TOML: Cannot declare"),
        (b'timezone = "\xe9"\n', "is not UTF-8 text (byte 12)"),
    ],
)
def test_a_file_that_is_not_toml_is_named_with_the_place(tmp_path: Path, content: bytes, sentence: str) -> None:
    file = tmp_path / "bridge.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        load(file, {}, CLASSES)
    assert str(caught.value).startswith(f"{file} {sentence}")
    assert caught.value.__context__ is None


@pytest.mark.parametrize("name", ["missing.toml", "."])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot read the configuration file .*; this process runs as uid"):
        load(tmp_path / name, {}, CLASSES)


# Values that are more than text


@pytest.mark.parametrize(
    ("toml", "value"),
    [
        ('""', ""),
        ('"now"', "now"),
        ('"2025-01-31"', "2025-01-31T00:00:00+00:00"),
        ("2025-01-31", "2025-01-31T00:00:00+00:00"),
        ("2025-01-31T10:00:00", "2025-01-31T10:00:00+00:00"),
        ('"2025-01-31T10:00:00+02:00"', "2025-01-31T08:00:00+00:00"),
        ('"2025-01-31T10:00:00Z"', "2025-01-31T10:00:00+00:00"),
    ],
)
def test_not_before_becomes_utc_at_both_levels(loads: Loader, toml: str, value: str) -> None:
    settings = loads(f"{PSA}not_before = {toml}\n[poll]\nnot_before = {toml}\n")
    assert settings.poll.not_before == value
    assert settings.connectors["psa"].not_before == value


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://api.huntress.io/v1/", "https://api.huntress.io/v1"),
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1"),
        ("http://localhost:8000", "http://localhost:8000"),
        ("http://[::1]:8000/", "http://[::1]:8000"),
    ],
)
def test_base_url_is_kept_without_a_slash_and_may_be_plain_on_loopback(given: str, kept: str) -> None:
    assert HuntressSettings(base_url=given).base_url == kept


def test_plain_http_elsewhere_must_be_asked_for(loads: Loader) -> None:
    settings = loads('[huntress]\nbase_url = "http://proxy.example.com/v1"\ninsecure_http = true\n')
    assert settings.huntress.base_url == "http://proxy.example.com/v1"


def test_alerts_name_a_monitor_and_connectors_that_can_carry_notices(loads: Loader) -> None:
    url = "https://monitor.example.com/api/push/token?status=up"
    alerts = loads(f'{PSA}{PAGER}[alerts]\nheartbeat_url = "{url}"\nconnectors = ["oncall"]\n').alerts
    assert (alerts.heartbeat_url.get_secret_value(), alerts.connectors) == (url, ["oncall"])
    for given in ("http://127.0.0.1:3001/x", "", " "):
        alerts = loads(f'[alerts]\nheartbeat_url = "{given}"\n').alerts
        assert alerts.heartbeat_url.get_secret_value() == given.strip()
    alerts = loads('[alerts]\nheartbeat_url = "http://monitor.example.com/x"\ninsecure_http = true\n').alerts
    assert alerts.heartbeat_url.get_secret_value() == "http://monitor.example.com/x"


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "rediss://:secret@redis.example.com:6380/2",
        "unix:///run/redis.sock?db=1",
        "redis+sentinel://one:26379,two:26379/primary/0",
    ],
)
def test_redis_urls(loads: Loader, url: str) -> None:
    assert loads(BRIDGE_REDIS__URL=url).redis.url.get_secret_value() == url


def test_worker_threads_are_enough_for_every_connector(loads: Loader) -> None:
    toml = PSA + 'concurrency = 7\n[connectors.ops]\ntype = "pager"\n'
    assert loads(toml).worker_threads == 7 + 3 + 2
    assert loads(toml, BRIDGE_WORKER__THREADS="20").worker_threads == 20
    problems = refused(loads, toml, BRIDGE_WORKER__THREADS="11")
    assert problems[0].startswith("worker.threads (BRIDGE_WORKER__THREADS) must be 0 or at least 12")


def test_the_time_zone_is_one(loads: Loader) -> None:
    assert loads('timezone = "Europe/Berlin"\n').zone.key == "Europe/Berlin"


def test_settings_do_not_change(loads: Loader) -> None:
    settings = loads(PSA)
    with pytest.raises(ValueError, match="frozen"):
        settings.timezone = "UTC"
    with pytest.raises(ValueError, match="frozen"):
        settings.connectors["psa"].concurrency = 1


def test_what_only_some_commands_need_is_asked_for_by_them(loads: Loader) -> None:
    bare = loads(BRIDGE_HUNTRESS__API_KEY="key")
    with pytest.raises(ConfigurationError, match="no connector is configured"):
        bare.require_connectors()
    with pytest.raises(ConfigurationError) as caught:
        bare.require_source()
    assert len(caught.value.problems) == 1
    assert "huntress.api_secret is empty" in str(caught.value)
    assert "BRIDGE_HUNTRESS__API_SECRET" in str(caught.value)
    full = loads(PSA, BRIDGE_HUNTRESS__API_KEY="key", BRIDGE_HUNTRESS__API_SECRET="secret")
    full.require_connectors()
    full.require_source()


# Secrets


def test_secrets_come_from_files_and_are_watched(loads: Loader, tmp_path: Path) -> None:
    for name in ("key", "private", "redis"):
        (tmp_path / name).write_text(f"redis://:{name}@h/0\n" if name == "redis" else f"  {name}-secret\n")
    (tmp_path / "companies.csv").touch()
    (tmp_path / "mine").mkdir()
    settings = loads(
        '[huntress]\napi_key = ""\napi_key_file = "key"\n[organizations]\nfile = "companies.csv"\n'
        + PSA.replace('private_key = "toml-private-key"', 'templates = "mine"'),
        BRIDGE_CONNECTORS__PSA__PRIVATE_KEY_FILE=str(tmp_path / "private"),
        BRIDGE_REDIS__URL_FILE="redis",
        BRIDGE_HUNTRESS__API_SECRET_FILE="",
    )
    psa = settings.connectors["psa"]
    assert isinstance(psa, HelpdeskSettings)
    assert settings.huntress.api_key.get_secret_value() == "key-secret"
    assert settings.huntress.api_secret.get_secret_value() == ""
    assert psa.private_key.get_secret_value() == "private-secret"
    assert settings.redis.url.get_secret_value() == "redis://:redis@h/0"
    watched = [Path("key"), Path("redis"), tmp_path / "private", Path("companies.csv")]
    assert watched_files(settings) == watched
    assert configuration_files(settings) == [tmp_path / "given.toml", Path("mine")]


def test_a_secret_and_its_file_are_never_both_given(loads: Loader) -> None:
    Path("key").write_text("file-secret")
    in_file = refused(loads, '[huntress]\napi_key = "toml-secret"\napi_key_file = "key"\n')
    across = refused(loads, PSA, BRIDGE_CONNECTORS__PSA__PRIVATE_KEY_FILE="key")
    assert in_file == ("huntress.api_key and huntress.api_key_file are both given; keep one",)
    assert across == (
        "connectors.psa.private_key and connectors.psa.private_key_file (BRIDGE_CONNECTORS__PSA__PRIVATE_KEY_FILE) "
        "are both given; keep one",
    )


def test_a_secret_file_without_a_secret_is_one_problem(loads: Loader, tmp_path: Path) -> None:
    Path("empty").write_text(" \n")
    Path("binary").write_bytes(b"\xff\xfe")
    toml = PSA.replace("private_key =", "private_key_file =")
    assert refused(loads, toml.replace("toml-private-key", "empty")) == (
        "connectors.psa.private_key_file: empty is empty",
    )
    assert refused(loads, toml.replace("toml-private-key", "binary")) == (
        "connectors.psa.private_key_file: binary is not UTF-8 text",
    )
    assert refused(loads, toml.replace('"toml-private-key"', "5")) == (
        "connectors.psa.private_key_file must be the path of a file",
    )
    missing = refused(loads, toml, BRIDGE_HUNTRESS__API_KEY_FILE=str(tmp_path))
    assert len(missing) == 2
    mode = f"{tmp_path.stat().st_mode & 0o7777:o}"
    assert missing[0] == (
        f"huntress.api_key_file (BRIDGE_HUNTRESS__API_KEY_FILE): cannot read {tmp_path} (Is a directory, "
        f"owned by uid {tmp_path.stat().st_uid}, mode {mode}; this process runs as uid {os.getuid()})"
    )
    assert missing[1].startswith("connectors.psa.private_key_file: cannot read toml-private-key (No such file")


READ_AS_NOBODY = """
import os, sys
from pathlib import Path
from bridge.settings import ConfigurationError, load
load(None, {})  # imports everything while the source can still be read
os.setuid(65534)
try:
    load(Path(sys.argv[1]), {})
except ConfigurationError as error:
    print(error)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_secret_of_another_user_is_named_with_owner_mode_and_our_uid() -> None:
    with tempfile.TemporaryDirectory() as name:  # tmp_path lies in folders that nobody else may enter
        folder = Path(name)
        folder.chmod(0o755)
        secret = folder / "key"
        secret.write_text("hidden-secret")
        secret.chmod(0o600)
        (folder / "bridge.toml").write_text(f'[huntress]\napi_key_file = "{secret}"\n')
        command = [sys.executable, "-c", READ_AS_NOBODY, str(folder / "bridge.toml")]
        said = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout
    assert said.strip() == (
        f"huntress.api_key_file: cannot read {secret} "
        "(Permission denied, owned by uid 0, mode 600; this process runs as uid 65534)"
    )


SECRET = "s3cr3t-v4lue"


@pytest.mark.parametrize(
    ("toml", "environ"),
    [
        (f'[huntress]\napi_key = ["{SECRET}"]\n', {}),
        (f'[huntress]\napi_key = {{ value = "{SECRET}" }}\n', {}),
        (f'[huntress]\napi_kee = "{SECRET}"\n', {}),
        (f'[huntress]\nbase_url = "https://user:{SECRET}@example.com"\n', {}),
        (f'[huntress]\nportal_url = "{SECRET}"\n', {}),
        (f'[redis]\nurl = "redis://:{SECRET}@localhost/x"\n', {}),
        (f'[redis]\nurl = "{SECRET}"\n', {}),
        (f'[alerts]\nheartbeat_url = "https://monitor.example.com:x/{SECRET}"\n', {}),
        (f'[alerts]\nheartbeat_url = "http://monitor.example.com/{SECRET}"\n', {}),
        (f'[alerts]\nconnectors = ["{SECRET}"]\n', {}),
        (f'[huntress]\napi_key = "{SECRET}\n', {}),
        (PSA + f'token = "bad-{SECRET}"\n', {}),
        (PSA + 'token_file = "bad"\n', {}),
        (PSA + f'bord = "{SECRET}"\nconcurrency = "{SECRET}"\n', {}),
        (PSA, {"BRIDGE_CONNECTORS__PSA": f'{{"private_key": "{SECRET}"'}),
        (PSA, {"BRIDGE_CONNECTORS__PSA__PRIVAT_KEY": SECRET}),
        (PSA, {"BRIDGE_CONNECTORS__PSA__CONCURRENCY": SECRET}),
        (PSA, {"BRIDGE_ORGANIZATIONS__ONLY": SECRET}),
        ("", {"BRIDGE_POLL__SCOPE": SECRET}),
        ("", {"BRIDGE_TIMEZONE": SECRET}),
    ],
)
def test_no_secret_is_in_any_message_or_traceback(loads: Loader, toml: str, environ: dict[str, str]) -> None:
    Path("bad").write_text(f"bad-{SECRET}")
    with pytest.raises(ConfigurationError) as caught:
        loads(toml, **environ)
    assert caught.value.problems
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value)
    report = "".join(traceback.format_exception(caught.value))
    assert SECRET not in report
    assert "ValidationError" not in report


def test_no_secret_is_logged_at_debug_level(
    loads: Loader, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PYDANTIC_SETTINGS_DEBUG", "1")
    caplog.set_level("DEBUG")
    caplog.set_level("DEBUG", "pydantic_settings")
    settings = loads(PSA, BRIDGE_HUNTRESS__API_KEY=SECRET)
    assert settings.huntress.api_key.get_secret_value() == SECRET
    assert SECRET not in caplog.text
    assert "toml-private-key" not in caplog.text


def test_secrets_are_listed_for_redaction_and_masked_in_dumps(loads: Loader) -> None:
    settings = loads(
        PSA + 'token = "token-secret"\nproxy = "http://me:proxy%2Fsecret@proxy:3128"\n',
        BRIDGE_HUNTRESS__API_KEY="key-secret",
        BRIDGE_HUNTRESS__PROXY="me:other/secret@proxy:3128",
        BRIDGE_REDIS__URL="redis://:redis-secret@localhost/0",
    )
    found = secrets(settings)
    assert set(found) >= {
        "key-secret",
        "toml-private-key",
        "token-secret",
        "proxy%2Fsecret",
        "proxy/secret",
        "redis-secret",
        "redis://:redis-secret@localhost/0",
    }
    assert "" not in found
    assert found == sorted(found, key=len, reverse=True)
    dumps = [json.dumps(settings.masked()), settings.model_dump_json(), repr(settings), str(settings.model_dump())]
    for dump in dumps:
        assert "secret" not in re.sub(r"""(api_|client_|\b)secret(?=['"]?[:=])""", "", dump)
        assert "toml-private-key" not in dump
        assert "https://psa.example.com" in dump
    assert settings.masked()["connectors"]["psa"]["proxy"] == "http://***@proxy:3128"


# The documentation


def test_the_example_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load(EXAMPLE, {})
    assert {name: connector.type for name, connector in settings.connectors.items()} == {
        "psa": "connectwise",
        "desk": "autotask",
        "oncall": "email",
    }


def documented() -> dict[str, Any]:
    return tomllib.loads(EXAMPLE.read_text(encoding="utf-8"))


def leaves(model: type[BaseModel]) -> set[str]:
    """Keys as people write them, without tables and `_file` spellings."""
    keys = keys_of(model)
    tables = {key[:n] for key in keys for n in range(1, len(key))}
    secret_files = {key for key in keys if key[-1].endswith("_file") and (*key[:-1], key[-1][:-5]) in keys}
    return {".".join(key) for key in keys if key not in tables | secret_files}


def written(table: Mapping[str, Any], model: type[BaseModel]) -> set[str]:
    """Those of `leaves` that `table` holds."""
    found = set()
    for key in leaves(model):
        place: Any = table
        for part in key.split("."):
            place = place.get(part) if isinstance(place, dict) else None
        if place is not None:
            found.add(key)
    return found


def test_the_example_documents_every_setting_with_its_default() -> None:
    example = documented()
    assert leaves(Settings) - written(example, Settings) == set()
    example.pop("connectors")
    assert Settings(**example) == Settings()


def test_the_example_documents_every_connector_and_all_their_settings() -> None:
    tables = documented()["connectors"]
    by_type = {table["type"]: table for table in tables.values()}
    assert set(by_type) == set(connector_classes())
    common = leaves(ConnectorSettings)
    assert common - set().union(*(written(table, ConnectorSettings) for table in tables.values())) == set()
    for kind, connector in connector_classes().items():
        own = leaves(connector.settings_class) - common
        assert own - written(by_type[kind], connector.settings_class) == set(), kind


def test_the_example_says_that_secrets_come_from_files() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    models: list[type[BaseModel]] = [Settings, *(kind.settings_class for kind in connector_classes().values())]
    keys = {key[-1] for model in models for key in keys_of(model)}
    secret_files = {key for key in keys if key.endswith("_file") and key.removesuffix("_file") in keys}
    assert len(secret_files) >= 4
    assert {key for key in secret_files if not re.search(rf"\b{key}\b", text)} == set()


# The interface that people build on: these names never change.
FIXED = """
data_dir = "./data"
timezone = "UTC"
[huntress]
base_url = "https://api.huntress.io/v1"
api_key = ""
api_secret = ""
account_id = 0
dialect = "auto"
requests_per_minute = 30
portal_url = "https://{subdomain}.huntress.io/org/{organization_id}/infection_reports/{report_id}"
[poll]
interval = 15
scope = "auto"
not_before = ""
[redis]
url = ""
broker_url = ""
namespace = "bridge"
[worker]
threads = 0
[web]
host = "127.0.0.1"
port = 8080
[organizations]
file = ""
automatch = "exact"
only = []
disabled = []
[connectors.psa]
concurrency = 3
timeout = 30
settle = 60
reference_suffix = ""
reference_field = "externalXRef"
templates = "folder"
not_before = ""
ca_file = ""
insecure_http = false
type = "connectwise"
url = "https://api-na.myconnectwise.net"
company_id = "acme"
public_key = "public"
private_key = "private"
client_id = "client"
board = "Security"
status = ""
closed_status = ""
default_company = "Catchall"
visibility = "internal"
priorities = { critical = "Priority 1 - Critical", high = "Priority 2 - High", low = "Priority 4 - Low" }
fields = { type = "Security", source = "Huntress" }
only = { severities = [], organizations = [], platforms = [] }
[connectors.desk]
type = "autotask"
zone_url = "https://webservices.autotask.net"
username = "user"
secret = "secret"
integration_code = "code"
queue = "Security"
status = "New"
closed_status = "Complete"
default_company = 175
visibility = "internal"
priorities = { critical = "Critical", high = "High", low = "Low" }
[connectors.oncall]
type = "email"
host = "smtp.example.com"
port = 587
security = "starttls"
auth = "password"
username = ""
password = ""
sender = "bridge@example.com"
recipients = ["oncall@example.com"]
on_unknown = "resend"
only = { severities = ["critical"] }
"""


def test_the_fixed_keys_load_and_the_plain_ones_are_the_defaults(loads: Loader) -> None:
    Path("folder").mkdir()
    settings = loads(FIXED, classes=connector_classes())
    assert list(settings.connectors) == ["psa", "desk", "oncall"]
    assert settings.worker_threads == 11
    assert settings.model_copy(update={"connectors": {}}).model_dump() == Settings().model_dump()


def test_any_key_can_be_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    environ: dict[str, str] = {}

    def spell(table: Mapping[str, Any], name: str) -> None:
        for key, value in table.items():
            if isinstance(value, dict) and key not in ("priorities", "fields"):
                spell(value, f"{name}__{key.upper()}")
            else:
                environ[f"{name}__{key.upper()}"] = value if isinstance(value, str) else json.dumps(value)

    fixed = tomllib.loads(FIXED)
    spell(fixed, "BRIDGE")
    environ = {name.replace("BRIDGE__", "BRIDGE_"): text for name, text in environ.items()}
    assert load(None, environ).masked() == load_text(tmp_path, FIXED).masked()


def load_text(folder: Path, toml: str) -> Settings:
    (folder / "given.toml").write_text(toml)
    return load(folder / "given.toml", {})
