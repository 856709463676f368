"""From nothing to a delivered test ticket: by options, and by a person's keystrokes."""

from __future__ import annotations

import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bridge.demo import connectwise as pretend
from tests.end_to_end.conftest import COMMAND, Bridge, World
from tests.end_to_end.inside import inside
from tests.end_to_end.typist import Typist

GOLDEN = Path(__file__).parent.parent / "golden" / "init.toml"


class Place:
    """An empty folder for a configuration, beside the pretend systems."""

    def __init__(self, bridge: Bridge, world: World) -> None:
        self.bridge = bridge
        self.world = world
        self.folder = bridge.folder
        self.config = bridge.config
        self.source = world.huntress.settings()
        self.config.unlink()
        self.given = Path(bridge.folder, "given")
        self.given.mkdir()

    def file(self, text: str) -> str:
        """A file with a secret."""
        path = self.given / str(len(list(self.given.iterdir())))
        path.write_text(text)
        return str(path)

    def options(self, name: str, table: dict[str, Any]) -> list[str]:
        """The table of a connector as options."""
        said = [f"--connector={name}={table['type']}"]
        for key, value in table.items():
            if key in ("public_key", "private_key", "secret", "integration_code"):
                said.append(f"--set={name}.{key}_file={self.file(value)}")
            elif key == "priorities":
                said += [f"--set={name}.priorities.{severity}={priority}" for severity, priority in value.items()]
            elif key not in ("type", "fields"):
                said.append(f"--set={name}.{key}={','.join(value) if isinstance(value, list) else value}")
        return said

    def source_options(self) -> list[str]:
        return [
            f"--huntress-base-url={self.source['base_url']}",
            f"--huntress-api-key-file={self.file(self.source['api_key'])}",
            f"--huntress-api-secret-file={self.file(self.source['api_secret'])}",
        ]

    def init(self, *options: str) -> subprocess.CompletedProcess[str]:
        return self.bridge("init", "--unattended", *options)

    def refused(self, *options: str) -> list[str]:
        """What is said against these options, of which nothing is written."""
        result = inside("init", *options, config=self.config)
        assert (result.exit_code, self.left()) == (2, set())
        return result.stderr.splitlines()

    def typist(self, *options: str) -> Typist:
        command: list[str | Path] = [
            COMMAND,
            "--config",
            self.config,
            "init",
            f"--huntress-base-url={self.source['base_url']}",
            *options,
        ]
        return Typist(command, self.folder, self.bridge.environment())

    def secrets(self) -> list[str]:
        known = (pretend.PUBLIC_KEY, pretend.PRIVATE_KEY, self.source["api_key"], self.source["api_secret"])
        return [*known, self.world.autotask.secret, self.world.autotask.integration_code]

    def modes(self) -> dict[str, str]:
        """Of everything that was written."""
        paths = [self.config, self.folder / "secrets", *(self.folder / "secrets").iterdir()]
        return {path.name: f"{stat.S_IMODE(path.stat().st_mode):o}" for path in paths}

    def left(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()} - {"given", "data"}


@pytest.fixture
def place(make_bridge: Any, world: World) -> Place:
    return Place(make_bridge(world), world)


def marked(world: World) -> list[str]:
    """The statuses of test tickets in the pretend ConnectWise."""
    tickets = world.connectwise.tickets.values()
    return [ticket["status"]["name"] for ticket in tickets if ticket["summary"].startswith("[TEST]")]


def test_unattended(place: Place) -> None:
    world = place.world
    result = place.init(
        *place.source_options(),
        *place.options("psa", world.connectwise.settings()),
        *place.options("desk", world.autotask.settings()),
        *place.options("oncall", world.mailbox.settings()),
        "--not-before=2020-01-01",
        "--timezone=Europe/Berlin",
        "--only-organization=1",
        f"--set=web.port={place.bridge.port}",
        "--test-ticket",
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "check: all well" in result.stdout
    assert not [secret for secret in place.secrets() if secret in result.stdout + place.config.read_text()]
    written = re.sub(r"127\.0\.0\.1:[0-9]+", "127.0.0.1:PORT", place.config.read_text())
    written = re.sub(r"(?m)^port = [0-9]+$", "port = PORT", written)
    written = written.replace(world.autotask.username, "api@example.com")
    assert written == GOLDEN.read_text()
    assert place.modes() == {"bridge.toml": "600", "secrets": "700"} | dict.fromkeys(
        [
            *("huntress_api_key", "huntress_api_secret", "psa_public_key", "psa_private_key"),
            *("desk_secret", "desk_integration_code"),
        ],
        "600",
    )
    assert marked(world) == ["Closed"]
    world.report(7)
    once = place.bridge("run", "--once", "--wait", "60")
    assert once.returncode == 0, once.stdout + once.stderr
    assert world.connectwise_references()["huntress-5-7"] == world.autotask_references()["huntress-5-7"] == 1


def test_by_a_persons_keystrokes(place: Place) -> None:
    """Two wrong keys come first; each is said and asked again, and what was right stays."""
    with place.typist() as person:
        person.types("API key (hidden)", place.source["api_key"])
        person.types("API secret (hidden)", "a-wrong-api-secret")
        person.sees("That does not work: ")
        person.types("Change the answers?")
        person.types("API key (hidden; Enter keeps it)")
        person.types("API secret (hidden; Enter keeps it)", place.source["api_secret"])
        person.sees("The key opens ")
        person.types("number, or part of a name", "connectwise")
        person.types("Its name in the configuration [psa]")
        person.types("Site [https://api-na.myconnectwise.net]", "ftp://nowhere")
        person.sees("give the site as https://host")
        person.types("Site [https://api-na.myconnectwise.net]", place.world.connectwise.url)
        person.types("Company ID", pretend.COMPANY_ID)
        person.types("Public key (hidden)", pretend.PUBLIC_KEY)
        person.types("Private key (hidden)", "a-wrong-private-key")
        person.types("Client ID", pretend.CLIENT_ID)
        person.sees("That does not work: ")
        person.types("Change the answers?")
        person.types(f"Site [{place.world.connectwise.url}]")
        person.types(f"Company ID [{pretend.COMPANY_ID}]")
        person.types("Public key (hidden; Enter keeps it)")
        person.types("Private key (hidden; Enter keeps it)", pretend.PRIVATE_KEY)
        person.types(f"Client ID [{pretend.CLIENT_ID}]")
        person.sees("It answers.")
        person.sees("Service board of new tickets")
        person.types("number, or part of a name", "no such board")
        person.sees("nothing has 'no such board' in its name")
        person.types("number, or part of a name", "secur")
        person.types("number, or part of a name [Security]")
        person.types("[the board's default]")
        person.types("[the board's first]")
        person.sees("Company for organizations")
        person.types("number, or part of a name", "Catchall")
        for severity, priority in (("critical", "1"), ("high", "2"), ("low", "4")):
            person.sees(f"Priority of {severity} incidents")
            person.types("[its own default]", f"Priority {priority}")
            person.types("number, or part of a name")
        person.types("Another ticket system?", "n")
        person.types("Time zone", "Nowhere/At-all")
        person.types("Time zone", "Europe/Berlin")
        person.types("left alone [now]", "2020-01-01")
        person.sees("check: all well")
        person.types("Send a test ticket to psa?")
        assert person.ends() == 0
    assert not [secret for secret in place.secrets() if secret in person.seen + place.config.read_text()]
    assert marked(place.world) == ["Closed"]
    assert set(place.modes().values()) == {"600", "700"}
    place.world.report(7)
    with place.config.open("a") as file:
        file.write(f"\n[web]\nport = {place.bridge.port}\n")
    once = place.bridge("run", "--once", "--wait", "60")
    assert once.returncode == 0, once.stdout + once.stderr
    assert place.world.connectwise_references()["huntress-5-7"] == 1


def test_options_and_questions_mix(place: Place) -> None:
    """What an option says is not asked; the rest is, also for a second ticket system."""
    autotask, mailbox = place.world.autotask, place.world.mailbox
    options = [f"--set=desk.zone_url={autotask.url}", "--timezone=UTC", "--not-before=now", "--test-ticket"]
    with place.typist(
        *place.source_options()[1:], "--connector=desk=autotask", "--connector=mail=email", *options
    ) as it:
        it.types("API user", autotask.username)
        it.types("Its secret (hidden)", "has a blank")
        it.sees("has blanks")
        it.types("Its secret (hidden)", autotask.secret)
        it.types("Integration code (hidden)", autotask.integration_code)
        it.sees("Queue of new tickets")
        it.types("[left to Autotask]", "Security")
        it.types("[New]")
        it.types("[Complete]")
        it.sees("Company for organizations")
        it.types("part of a name", "catch-all")
        for severity in ("critical", "high", "low"):
            it.sees(f"Priority of {severity} incidents")
            it.types("[its own default]", severity)
        it.types("Mail server", "127.0.0.1")
        it.types("Its port [587]", str(mailbox.port))
        it.types("Encryption [starttls]", "none")
        it.types("User name (Enter: no log-in)")
        it.types("Sender's address", "bridge@example.com")
        it.types("Recipients", "one@example.com, two@example.com")
        assert it.ends(60) == 0
    assert not [secret for secret in place.secrets() if secret in it.seen + place.config.read_text()]
    assert [ticket["title"].split()[0] for ticket in autotask.tickets.values()] == ["[TEST]"]
    assert {str(mail.message["Subject"]).split()[0] for mail in mailbox.messages} == {"[TEST]"}


def test_a_person_who_gives_up_leaves_nothing(place: Place) -> None:
    with place.typist() as person:
        person.types("API key (hidden)", place.source["api_key"])
        assert person.gives_up("API secret (hidden)") == 1
    assert place.left() == set()


def test_what_is_missing_is_named_with_its_option(place: Place) -> None:
    assert place.refused("--connector=psa=connectwise", "--set=psa.url=https://psa.example.com") == [
        "init: connectors.psa.company_id is missing; give --set psa.company_id=VALUE",
        "init: connectors.psa.public_key is missing; give --set psa.public_key_file=PATH",
        "init: connectors.psa.private_key is missing; give --set psa.private_key_file=PATH",
        "init: connectors.psa.client_id is missing; give --set psa.client_id=VALUE",
        "init: connectors.psa.board is missing; give --set psa.board=VALUE",
        "init: huntress.api_key is empty; give --huntress-api-key-file",
        "init: huntress.api_secret is empty; give --huntress-api-secret-file",
        "init: nothing was written",
    ]


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("--connector=psa=nothing", "'nothing' is no connector type; there are: autotask, connectwise, email"),
        ("--connector=web=email", "'web' is the name of a table; give the connector another one"),
        ("--set=psa.board=Security", "psa.board is not a known key"),
        (
            "--set=huntress.api_key=abc",
            "huntress.api_key is a secret: give huntress.api_key_file=PATH, or the variable",
        ),
        ("--set=web.port=none", "web.port must be a valid integer"),
        ("--timezone=Nowhere", "timezone"),
        ("--not-before=soon", "poll.not_before"),
    ],
)
def test_bad_input(place: Place, option: str, sentence: str) -> None:
    assert place.refused(option)[0].startswith(f"init: {sentence}")


def test_a_configuration_that_exists_stays(place: Place) -> None:
    """Without --force it is refused; with it a copy stays, and the secrets that the copy names."""
    options = [*place.source_options(), *place.options("oncall", place.world.mailbox.settings())]
    assert place.init(*options).returncode == 0
    first = place.config.read_text()
    refused = place.init(*options)
    assert (refused.returncode, "--force" in refused.stderr) == (2, True)
    assert place.init(*options, "--force", "--timezone=Asia/Tokyo").returncode == 0
    (backup,) = (path for path in place.folder.iterdir() if path.suffix == ".bak")
    assert backup.read_text() == first
    assert 'timezone = "Asia/Tokyo"' in place.config.read_text()
    assert {path.name for path in (place.folder / "secrets").iterdir()} == {
        *("huntress_api_key", "huntress_api_key_2", "huntress_api_secret", "huntress_api_secret_2"),
    }


def test_a_wrong_key_is_a_finding(place: Place) -> None:
    options = place.options("oncall", place.world.mailbox.settings())
    place.source["api_secret"] = "a-wrong-api-secret"
    result = place.init(*place.source_options(), *options, "--no-test-ticket")
    assert result.returncode == 1
    assert "check: 1 found, see above" in result.stdout
