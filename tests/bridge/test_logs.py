"""What is logged: as JSON or for people, with what belongs together, without secrets and without control characters."""

from __future__ import annotations

import io
import json
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
import structlog

from bridge import logs
from connectors import redaction


class Terminal(io.StringIO):
    """A stream that says that a person reads it."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def configured(logging_restored: None) -> Callable[..., Any]:
    return logs.configure


HOSTILE = {
    "an escape sequence": "\x1b]0;owned\x07\x1b[2J",
    "the short form of escape": "\x9b31m",
    "direction of writing": "exe.\u202etxt",
    "half a character": "\ud800",
    "backspaces": "all is well\b\b\b\b\bbad",
    "a carriage return": "one\rtwo",
    "separators": "one\u2028two\u2029three",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_nothing_in_a_report_steers_a_terminal(
    configured: Callable[..., Any], stream: type[io.StringIO], text: str
) -> None:
    said = stream()
    configured("info", tuple, said)
    structlog.get_logger("t").info("seen", title=text, list=[text], mapping={"a": text})
    logging.getLogger("library").warning("%s", text)
    try:
        raise ValueError(text)
    except ValueError:
        structlog.get_logger("t").exception("failed")
    shown = said.getvalue()
    for colour in ("\x1b[0m", "\x1b[1m", "\x1b[2m", *(f"\x1b[3{digit}m" for digit in range(8))):
        shown = shown.replace(colour, "")
    assert not {each for each in shown if not each.isprintable()} - {"\n"}
    shown.encode("utf-8")
    plain = ascii(text)[1:-1]
    assert plain in shown or plain.replace("\\", "\\\\") in shown, "it can still be read what was there"


def test_a_report_cannot_write_a_line_of_its_own_for_people(configured: Callable[..., Any]) -> None:
    said = Terminal()
    configured("info", tuple, said)
    structlog.get_logger("t").info("seen", title="x\n2026-01-01 [error] all tickets are lost")
    assert said.getvalue().count("\n") == 1


def test_json_keeps_the_lines_of_a_value(configured: Callable[..., Any]) -> None:
    said = io.StringIO()
    configured("info", tuple, said)
    structlog.get_logger("t").info("seen", reason="one\ntwo\tthree")
    assert said.getvalue().count("\n") == 1
    assert json.loads(said.getvalue())["reason"] == "one\ntwo\tthree"


def test_what_is_known_of_a_turn_is_on_every_line_of_it_and_on_no_other(configured: Callable[..., Any]) -> None:
    said = io.StringIO()
    configured("debug", tuple, said)
    with logs.traced(trace_id=logs.new_trace(), report_id=7):
        structlog.get_logger("t").info("inside")
        logging.getLogger("library").info("inside, too")
    structlog.get_logger("t").info("outside")
    first, second, third = map(json.loads, said.getvalue().splitlines())
    assert first["report_id"] == second["report_id"] == 7
    assert first["trace_id"] == second["trace_id"]
    assert len(first["trace_id"]) == 16
    assert "trace_id" not in third


def test_secrets_learned_while_running_are_masked(
    configured: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redaction, "_learned", deque[str](maxlen=redaction.LEARNED_KEPT))
    said = io.StringIO()
    configured("debug", lambda: ["of-the-configuration"], said)
    for number in range(3 * redaction.LEARNED_KEPT):
        redaction.learn(f"a-token-{number:04}")
        redaction.learn(f"a-token-{number:04}")
        structlog.get_logger("t").info("asked", header=f"Bearer a-token-{number:04} of-the-configuration")
    assert "a-token" not in said.getvalue()
    assert "of-the-configuration" not in said.getvalue()
    assert len(redaction.learned()) == redaction.LEARNED_KEPT
