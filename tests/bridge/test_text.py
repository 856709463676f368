"""Cutting, cleaning and reading text from outside."""

from __future__ import annotations

import re

import pytest

from bridge.text import clean, fit, one_line, prose, quoted, shorten, size


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("plain", "plain"),
        ("a\r\nb\rc\x0bd\x0ce\x85f\u2028g\u2029h", "a\nb\nc\nd\ne\nf\ng\nh"),
        ("nul\x00 bell\x07 escape\x1b[31m del\x7f", "nul bell escape[31m del"),
        ("exe.\u202egnp.evil\u2066x\u2069\u200f", "exe.gnp.evilx"),
        ("half a pair \ud800 and \U000e0041 tags", "half a pair \ufffd and  tags"),
        ("tabs\tand spaces  stay", "tabs\tand spaces  stay"),
        ("emoji 👩‍💻 and 日本語 stay", "emoji 👩‍💻 and 日本語 stay"),
    ],
)
def test_clean(given: str, expected: str) -> None:
    assert clean(given) == expected


def test_one_line_joins_lines_and_keeps_spaces_within() -> None:
    assert one_line(" HIGH  -  a\r\n\n\u2028 b\tc \n") == "HIGH  -  a b c"


@pytest.mark.parametrize("text", ["word " * 400, "x" * 2000, "日本 " * 700, "👩‍💻" * 500, "line of text\n" * 150])
@pytest.mark.parametrize("limit", [0, 1, 2, 10, 60, 80, 100, 255, 1000, 1999])
def test_nothing_exceeds_its_limit(text: str, limit: int) -> None:
    assert size(fit(text, limit)) <= limit
    assert size(shorten(text, limit)) <= limit


@pytest.mark.parametrize("limit", [100, 255, 1000])
def test_the_note_counts_what_is_missing(limit: int) -> None:
    text = "word " * 999 + "end"
    cut = fit(text, limit)
    match = re.fullmatch(r"(.*word) \[… ([\d,]+) characters more in the Huntress portal\]", cut)
    assert match, cut
    assert len(match[1]) + int(match[2].replace(",", "")) == len(text)
    assert size(cut) > limit * 0.7


def test_cuts_at_a_word_and_leaves_short_text_alone() -> None:
    assert shorten("an incident on a host", 15) == "an incident on…"
    assert shorten("an incident", 11) == "an incident"
    assert fit("an incident", None) == "an incident"
    assert shorten("x" * 50, 10) == "x" * 9 + "…"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("plain text\n\n\n\nwith lines  \n", "plain text\n\nwith lines"),
        (
            "if a < b and c > d, see <user> and <script>x</script>",
            "if a < b and c > d, see <user> and <script>x</script>",
        ),
        ("<p>One</p><p>Two<br>three</p>", "One\n\nTwo\nthree"),
        ("<ul><li>one</li> <li>two</li></ul>after", "- one\n- two\n\nafter"),
        ("<b>bold</b> &amp; <i>slanted</i> &lt;tag&gt; &#8364;", "bold & slanted <tag> €"),
        ("<p>see <a href='https://example.com/a?b=1&amp;c'>this</a></p>", "see this (https://example.com/a?b=1&c)"),
        ('<p><a href="https://example.com">https://example.com</a></p>', "https://example.com"),
        ("<p><a href='javascript:alert(1)'>click</a></p>", "click"),
        ("<p>a</p><script>evil()</script><style>*{}</style>b", "a\n\nb"),
        ("<p>a</p><script>evil()", "a\n\n[the rest is inside <script> and not shown; see the Huntress portal]"),
        ("<table><tr><th>Key</th><td>Value</td></tr><tr><th>K2</th><td>V2</td></tr></table>", "Key | Value\nK2 | V2"),
        ("<pre>a\n  b</pre>", "a\n  b"),
        ("<p>from <soc@example.com> to <unknown x=1></p>", "from <soc@example.com> to <unknown x=1>"),
        ("<!DOCTYPE html><html><head><title>T</title></head><body>B<!-- no --></body></html>", "B"),
        ("<p>&#" + "9" * 6000 + ";</p>", "\ufffd"),
        ("<img src=x onerror=alert(1)>text", "text"),
    ],
)
def test_prose(given: str, expected: str) -> None:
    assert prose(given) == expected


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "piece",
    [
        "<!--",
        "<![CDATA[",
        "<a ",
        "<a href='",
        "</a>",
        "</p>",
        "<script>",
        "<",
        "</",
        "&",
        "&#",
        "<!DOCTYPE ",
        "\n ",
        " ",
    ],
)
def test_crafted_markup_costs_no_time(piece: str) -> None:
    """The standard library's parser needs minutes for the first of these."""
    assert prose("<p>start</p>" + piece * (300_000 // len(piece))).startswith("start")


def test_quoting_leaves_no_line_bare() -> None:
    text = "one\n* Severity: low\r== WHERE ==\u2028![x](http://example.com/x.png)\n\nlast"
    assert quoted(text) == ("> one\n> * Severity: low\n> == WHERE ==\n> ! [x](http://example.com/x.png)\n>\n> last")
