"""The parts of `init`: choosing from long lists, answers that do not fit, writing all or nothing."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from bridge.settings import load
from bridge.setup_draft import Draft, Unfit
from bridge.setup_files import Files, toml_of
from bridge.setup_interview import Interview
from bridge.setup_prompts import LISTED, Prompts
from bridge.toml_text import toml
from connectors.base import Choice
from connectors.connectwise import ConnectWise, ConnectWiseSettings
from connectors.questions import required_questions

COMPANIES = [Choice(str(number), f"Customer {number} Inc") for number in range(1, 2001)]
STATUSES = [Choice("1", "New", default=True), Choice("2", "Done"), Choice("3", "Done")]


def typed(ask: Callable[[Prompts], object], *lines: str) -> tuple[object, str]:
    """What `ask` makes of these lines, and what was shown."""
    answers: list[object] = []

    @click.command()
    def command() -> None:
        answers.append(ask(Prompts(lambda text: text)))

    result = CliRunner().invoke(command, input="\n".join([*lines, ""]), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return answers[0], result.output


@pytest.mark.parametrize(
    ("lines", "chosen"),
    [
        (["customer 1234"], "1234"),
        (["7 inc customer 12", "1"], "127"),
        (["customer 1", "17 customer", "customer 17 inc"], "17"),
        (["nobody", "1999", ""], "1999"),
    ],
    ids=["found and taken", "any order of words", "an exact name", "after nothing was found"],
)
def test_a_long_list_is_searched(lines: list[str], chosen: str) -> None:
    answer, shown = typed(lambda prompts: prompts.choose("Company", COMPANIES), *lines, "", "1")
    assert isinstance(answer, Choice)
    assert answer.id == chosen
    assert "2,000 to choose from" in shown
    assert shown.count("Customer") < 5 * LISTED


@pytest.mark.parametrize(
    ("line", "otherwise", "default", "chosen"),
    [
        ("2", "", "", "2"),
        ("", "", "", "1"),
        ("", "the board's own", "", None),
        ("", "the board's own", "New", "1"),
    ],
    ids=["by number", "the system's own", "left open", "the setting's own"],
)
def test_a_short_list_has_numbers(line: str, otherwise: str, default: str, chosen: str | None) -> None:
    def ask(prompts: Prompts) -> object:
        return prompts.choose("Status", STATUSES, otherwise=otherwise, default=default)

    answer, shown = typed(ask, line)
    assert (answer.id if isinstance(answer, Choice) else answer) == chosen
    assert "2  Done (2)" in shown


def test_names_cannot_steer_the_terminal() -> None:
    _, shown = typed(lambda prompts: prompts.choose("Status", [Choice("1", "New\x1b[2J\nStatus: fine")]), "1")
    assert "\x1b" not in shown
    assert "\nStatus: fine" not in shown


def draft(kind: str = "connectwise", environ: dict[str, str] | None = None) -> Draft:
    made = Draft(environ or {})
    made.add_connector("psa", kind)
    return made


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("psa.board", "Security", "Security"),
        ("psa.board", "12", 12),
        ("psa.board", '"12"', "12"),
        ("psa.concurrency", "2", 2),
        ("psa.insecure_http", "true", True),
        ("psa.priorities.high", "Priority 2", "Priority 2"),
        ("psa.fields.customFields.Report Ref", "x", "x"),
        ("connectors.psa.only", '{"severities": ["low"]}', {"severities": ["low"]}),
        ("organizations.only", "12, 34", [12, 34]),
        ("timezone", "Europe/Berlin", "Europe/Berlin"),
    ],
)
def test_answers_become_values(path: str, text: str, value: object) -> None:
    made = draft()
    key = made.key(path)
    made.put(key, text)
    assert made.answer(key) == value


@pytest.mark.parametrize(
    ("path", "text", "sentence"),
    [
        ("psa.concurrency", "many", "connectors.psa.concurrency must be a valid integer"),
        ("psa.url", "ftp://x", "connectors.psa.url: give the site as https://host"),
        ("psa.only", "low", "connectors.psa.only must be a JSON table"),
        ("organizations.only", "12, x", "organizations.only must be a valid integer"),
    ],
)
def test_answers_that_do_not_fit_leave_what_was_there(path: str, text: str, sentence: str) -> None:
    made = draft()
    made.set(made.key(path), "before")
    with pytest.raises(Unfit, match=sentence):
        made.put(made.key(path), text)
    assert made.answer(made.key(path)) == "before"


def whole(environ: dict[str, str] | None = None) -> Draft:
    """A draft with everything that must be given."""
    made = draft(environ=environ)
    for path, text in {
        "huntress.api_key": "key",
        "huntress.api_secret": "the-secret",
        "psa.url": "https://psa.example.com",
        "psa.company_id": "msp",
        "psa.public_key": "public",
        "psa.private_key": "private\\\"'",
        "psa.client_id": "id",
        "psa.board": 'A "board"\x7f 😀',
    }.items():
        made.put(made.key(path), text)
    return made


def test_what_is_written_is_what_was_answered(tmp_path: Path) -> None:
    written = Files(tmp_path / "bridge.toml").write(whole())
    settings = load(written.config, {})
    table = settings.connectors["psa"]
    assert isinstance(table, ConnectWiseSettings)
    assert (table.board, table.private_key.get_secret_value()) == ('A "board"\x7f 😀', "private\\\"'")
    assert written.backup is None


def test_a_secret_of_the_environment_stays_there(tmp_path: Path) -> None:
    made = draft("email", {"BRIDGE_CONNECTORS__PSA__PASSWORD": "outside"})
    assert made.given_outside(made.key("psa.password"))
    assert not made.given_outside(made.key("psa.username"))


@pytest.mark.parametrize("at", ["the first secret", "the configuration"])
def test_what_cannot_be_written_whole_is_not_written(tmp_path: Path, at: str) -> None:
    """The folder of the configuration turns out to be full of obstacles."""
    config = tmp_path / "bridge.toml"
    if at == "the first secret":
        (tmp_path / "secrets").write_text("no folder")
    else:
        (tmp_path / f".bridge.toml.{os.getpid()}").mkdir()
    before = {path.name for path in tmp_path.rglob("*")}
    with pytest.raises(OSError, match=r"File exists|Not a directory"):
        Files(config).write(whole())
    assert {path.name for path in tmp_path.rglob("*")} == before


def test_a_replaced_configuration_is_kept(tmp_path: Path) -> None:
    config = tmp_path / "bridge.toml"
    config.write_text("# before")
    written = Files(config, lambda: datetime(2026, 3, 2, 1, 2, 3, tzinfo=UTC)).write(whole())
    assert written.backup == tmp_path / "bridge.toml.20260302T010203Z.bak"
    assert written.backup.read_text() == "# before"


def test_a_connector_without_questions_is_asked_for_what_has_no_default() -> None:
    keys = [question.key for question in required_questions(ConnectWise.settings_class)]
    assert keys == ["url", "company_id", "public_key", "private_key", "client_id", "board"]


def test_a_system_that_cannot_be_asked_does_not_end_the_questions() -> None:
    """What it would list is typed instead, unchecked."""
    made = whole()
    made.set(made.key("psa.url"), "http://127.0.0.1:9")
    made.tables["connectors"]["psa"].pop("board")

    def ask(prompts: Prompts) -> None:
        Interview(made, prompts).ticket_systems()

    _, shown = typed(ask, "n", "Security", "", "", "Catchall", "", "", "", "")
    assert "That does not work: " in shown
    assert "what you type is not tried" in shown
    assert {key: made.answer(made.key(f"psa.{key}")) for key in ("board", "status", "default_company")} == {
        "board": "Security",
        "status": None,
        "default_company": "Catchall",
    }


@pytest.mark.parametrize("tables", [{"a": {"b c": 1, "d": {"e": ["x", True, 1.5]}}}, {"a": 'quote " \\ \n\t\x7f ü'}])
def test_what_is_written_as_toml_reads_the_same(tables: dict[str, object]) -> None:
    assert tomllib.loads(toml(tables)) == tables


def test_nothing_in_toml_reads_other_than_it_is() -> None:
    told = "\u202eexe.fdp \u2028\x85 \U000e0041 \N{NO-BREAK SPACE}é\N{GRINNING FACE}"
    written = toml({"a": told, told: 1})
    assert written.replace("\n", "").isprintable()
    assert "é\N{GRINNING FACE}" in written
    assert tomllib.loads(written) == {"a": told, told: 1}


def test_an_inline_table_reads_the_same() -> None:
    made = whole()
    made.put(made.key("psa.priorities.a b"), "x")
    assert tomllib.loads(toml_of(made, {}))["connectors"]["psa"]["priorities"] == {"a b": "x"}
