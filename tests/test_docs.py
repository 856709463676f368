"""What README and docs/ tell people to type exists: commands, options, tables, keys, files."""

from __future__ import annotations

import os
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from bridge.cli import main
from bridge.demo.run import toml
from bridge.settings import ConfigurationError, Settings, load
from bridge.settings_reading import keys_of
from connectors.quiet_windows import Maintenance, QuietHours
from connectors.registry import connector_classes

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
#: Words that stand for something to fill in, as the README writes them.
_OPTIONAL = re.compile(r"[\[\]]")
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, *languages: str) -> list[str]:
    found = _FENCE.findall(page.read_text("utf-8"))
    return [
        re.sub(rf"^{indent}", "", text, flags=re.MULTILINE) for indent, language, text in found if language in languages
    ]


def spans(page: Path) -> list[str]:
    """Code within sentences."""
    text = _FENCE.sub("", page.read_text("utf-8"))
    return [re.sub(r"\s+", " ", span) for span in re.findall(r"`([^`]+)`", text)]


def commands(page: Path) -> Iterator[str]:
    """Every call of the command, without the command's own name."""
    for block in blocks(page, "sh", "console", "powershell", ""):
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|\|(?![\w|])|;", line.split(" # ")[0]):
                if call := re.match(r"(?:\S*/)?huntress-bridge(?: (.*))?$", part.strip()):
                    yield call[1] or ""
    for span in spans(page):
        if call := re.match(r"huntress-bridge (.*)", span):
            yield call[1]
        elif span.split(" ")[0] in main.commands and " " in span:
            yield span


def problem(call: str) -> str:
    """Why this call cannot be made; '' when it can."""
    words = shlex.split(_OPTIONAL.sub(" ", call.replace("\\|", " ").replace("|", " ").replace("…", " ")))
    command: click.Command = main
    places = 0
    while words:
        word = words.pop(0)
        if word.startswith("-"):
            options = {opt: each for each in [*main.params, *command.params] for opt in each.opts}
            if word in ("-h", "--help", "--version"):
                continue
            if word not in options:
                return f"{command.name} has no option {word}"
            option = options[word]
            if not getattr(option, "is_flag", False):
                if not words or words[0].startswith("-"):
                    return f"{word} wants a value"
                value = words.pop(0)
                if isinstance(option.type, click.Choice) and value.islower() and value not in option.type.choices:
                    return f"{word} does not take {value}"
        elif isinstance(command, click.Group):
            if word not in command.commands:
                return f"{command.name} has no command {word}"
            command = command.commands[word]
        else:
            places += 1
            arguments = [each for each in command.params if isinstance(each, click.Argument)]
            choices = [c for each in arguments if isinstance(each.type, click.Choice) for c in each.type.choices]
            if places > max(len(arguments), len(choices)):
                return f"{command.name} takes no {word}"
    return ""


CALLS = [(name(page), call) for page in PAGES for call in dict.fromkeys(commands(page))]


@pytest.mark.parametrize(("page", "call"), CALLS, ids=[f"{page}: {call}" for page, call in CALLS])
def test_every_command_that_is_shown_exists(page: str, call: str) -> None:
    assert problem(call) == "", f"{page} shows `huntress-bridge {call}`"


@pytest.mark.parametrize(
    "call",
    [
        "retry --al",
        "retry --state lost",
        "organizations lists",
        "agents list more",
        "healthcheck nobody at all 4",
        "lost",
    ],
)
def test_a_command_that_does_not_exist_is_found(call: str) -> None:
    assert problem(call)


def test_the_pages_show_commands_and_configuration() -> None:
    assert len(PAGES) >= 10
    assert len(CALLS) > 40
    assert len(SNIPPETS) > 12
    shown = {call.split(" ")[0] for _, call in CALLS}
    assert set(main.commands) - shown <= {"demo", "web", "poller", "worker"}, "commands that no page shows"


SNIPPETS = [
    (name(page), text) for page in PAGES for text in blocks(page, "toml") if "project" not in tomllib.loads(text)
]
EXAMPLE = tomllib.loads((ROOT / "bridge.example.toml").read_text("utf-8"))


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` on top of `base`; a secret from a file takes the place of one that is given."""
    result = dict(base)
    for key, value in over.items():
        result.pop(key.removesuffix("_file"), None) if key.endswith("_file") else None
        before = result.get(key)
        inner = isinstance(value, dict) and isinstance(before, dict) and key not in ("fields", "only", "priorities")
        result[key] = merged(before, value) if inner else value  # type: ignore[arg-type]
    return result


def files_named(table: Any) -> Iterator[str]:
    for key, value in table.items() if isinstance(table, dict) else ():
        if isinstance(value, str) and (key.endswith("_file") or key == "file") and value:
            yield value
        yield from files_named(value)


@pytest.mark.parametrize(("page", "text"), SNIPPETS, ids=[f"{page}-{n}" for n, (page, _) in enumerate(SNIPPETS)])
def test_every_piece_of_configuration_that_is_shown_is_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: str, text: str
) -> None:
    """On top of the example, which gives what a piece leaves out."""
    monkeypatch.chdir(tmp_path)
    piece = tomllib.loads(text)
    whole = merged(EXAMPLE, piece)
    for carrier in piece.get("alerts", {}).get("connectors", []):
        whole["connectors"].setdefault(carrier, whole["connectors"]["oncall"])
    for path in map(Path, files_named(whole)):
        path.parent.mkdir(parents=True, exist_ok=True)
        secret = (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw" if "webhook" in path.name else "https://monitor.example/a1b2c3d4"
        )
        path.write_text("organization_id,connector,company\n" if path.suffix == ".csv" else secret, "utf-8")
    Path("bridge.toml").write_text(toml(whole), "utf-8")
    try:
        settings = load(Path("bridge.toml"), {})
    except ConfigurationError as error:
        pytest.fail(f"{page}: {error}\n{text}", pytrace=False)
    assert settings.connectors


KEYS = {".".join(key) for key in keys_of(Settings)} | {
    key[-1] for connector in connector_classes().values() for key in keys_of(connector.settings_class)
}
KEYS |= {info.alias or key for window in (QuietHours, Maintenance) for key, info in window.model_fields.items()}
#: Written as a key of a table, `[poll] interval`, or with a value, `interval = 15`.
NAMED = [
    (name(page), span)
    for page in PAGES
    for span in dict.fromkeys(spans(page))
    if re.match(r"\[[a-z]+\] [a-z]|[a-z_]+ = [\"\[{0-9tf]", span)
]


@pytest.mark.parametrize(("page", "span"), NAMED, ids=[f"{page}: {span}" for page, span in NAMED])
def test_every_key_that_is_named_exists(page: str, span: str) -> None:
    if found := re.match(r"\[([a-z]+)\] ([a-z_]+)", span):
        wanted = {f"{found[1]}.{found[2]}"}
    else:
        key = span.split(" ")[0]
        wanted = {key, *(f"{table}.{key}" for table in Settings.model_fields)}
    assert wanted & KEYS, f"{page} names {span}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_somewhere_and_lines_can_be_read(page: Path) -> None:
    text = page.read_text("utf-8")
    targets = [target.split("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    missing = [target for target in targets if target and not (page.parent / target).exists()]
    assert missing == []
    assert text.endswith("\n")
    assert "\t" not in text


def test_every_page_of_the_documents_is_reached_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    pages = [os.path.relpath(page, ROOT) for page in PAGES[1:] if page.parent == ROOT / "docs"]
    assert [page for page in pages if f"]({page})" not in readme] == []


def code() -> str:
    """All code, with what is one sentence to a reader on one line."""
    text = "".join(path.read_text("utf-8") for room in ("bridge", "connectors") for path in (ROOT / room).glob("*.py"))
    return re.sub(r'"\s+f?"', "", text).replace("\\'", "'")


QUOTES = [
    (name(page), part.strip())
    for page in PAGES
    for table in re.findall(r"\| it says \|.*?(?=\n\n|\Z)", page.read_text("utf-8"), re.DOTALL)
    for quote in re.findall(r"(?<![*\w])\*([^*\n]+)\*", table)
    for part in quote.split("…")
    if part.strip()
]


def test_what_a_check_is_said_to_say_is_what_it_says() -> None:
    everything = code()
    assert len(QUOTES) > 20
    assert [quote for quote in QUOTES if quote[1] not in everything] == []
