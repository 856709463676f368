"""Text from outside, made harmless and made to fit. Pure functions; templates know some of them as filters."""

from __future__ import annotations

import re
from html import unescape

_BREAKS = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
# Control characters, marks that turn the direction of writing (they make text look like other text), invisible "tag"
# characters, and what is no character at all and that JSON or XML readers at the other side choke on.
_UNWANTED = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
    "\ufeff\ufffe\uffff\U000e0000-\U000e007f]"
)
_SURROGATES = re.compile("[\ud800-\udfff]")


def _names(names: str) -> frozenset[str]:
    return frozenset(names.split())


_DROPPED = _names("script style template title")
#: Tags with a blank line around them, tags on a line of their own, and those within a line.
_APART = _names("blockquote dl h1 h2 h3 h4 h5 h6 ol p pre table ul")
_BLOCKS = _APART | _names(
    "address article aside body br caption center dd details div dt figure footer header hr html li main nav section"
    " summary tbody tfoot thead tr"
)
_INLINE = _names(
    "a abbr b big cite code del dfn em figcaption font head i img ins kbd label link mark meta q s samp small span"
    " strike strong sub sup td th time tt u var"
)
_TAGS = _DROPPED | _BLOCKS | _INLINE
# Enough to tell markup from text that merely talks about `<script>` or `<user>`.
_LOOKS_LIKE_HTML = re.compile(
    r"</?(?:p|div|span|ul|ol|li|table|tr|td|th|h[1-6]|b|strong|i|em|u|code|pre|html|body|blockquote)>"
    r"|<[bh]r ?/?>|<!doctype html|<(?:p|div|span|table|td|th|h[1-6]|ul|ol|li|html|body|code|pre|img|a) [a-z-]{1,30}=",
    re.IGNORECASE,
)
_MARKUP = re.compile(
    r"<(?P<closing>/?)(?P<tag>[a-zA-Z][a-zA-Z0-9]{0,30})(?P<rest>(?:[\s/][^<>]*)?)>|<![a-zA-Z\[][^<>]*>"
)
_HREF = re.compile(
    r"""(?:^|[\s/])href=(?:"(?P<quoted>[^"]*)"?|'(?P<single>[^']*)'?|(?P<bare>[^\s"'>]+))""", re.IGNORECASE
)
_SPACE = re.compile(r"\s+")
# int() refuses thousands of digits, and html.unescape passes that on.
_HUGE_REFERENCE = re.compile("&#(?:[0-9]{9,}|[xX][0-9a-fA-F]{9,});?")


def clean(text: str) -> str:
    """`text` with every kind of line break as a line feed, and without characters that hide, reorder or control."""
    if text.isprintable():  # so is nothing of what is looked for, and most texts are
        return text
    return _SURROGATES.sub("\ufffd", _UNWANTED.sub("", _BREAKS.sub("\n", text)))


def visible(text: str) -> str:
    """`text` in which every character that `clean` would take away or change is spelled out, such as `\\u202e`."""
    for pattern in (_UNWANTED, _SURROGATES, _BREAKS):
        text = pattern.sub(lambda found: "".join(map(spelled, found[0])), text)
    return text


def spelled(character: str) -> str:
    """Its number in hexadecimal behind a backslash, as TOML reads it."""
    number = ord(character)
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def one_line(text: str) -> str:
    """`text` cleaned, its lines joined by single spaces; spaces within a line are kept."""
    if text.isprintable():
        return text.strip()
    lines = (line.strip() for line in clean(text).replace("\t", " ").split("\n"))
    return " ".join(line for line in lines if line)


def no_bullets(text: str) -> str:
    """`text` in which no ` * ` passes for the start of a field once a ticket system has joined lines."""
    return re.sub(r"(?<!\S)\*(?!\S)", "∗", text)


def size(text: str) -> int:
    """Length as ticket systems on .NET and SQL Server count it: in UTF-16 units, an emoji is two."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2


def _cut(text: str, room: int) -> str:
    """The longest start of `text` that has `size` at most `room` and ends at a word, unless one word fills it."""
    if size(text) <= room:
        return text
    head = text[: max(room, 0)]
    while size(head) > room:
        head = head[: -max(1, (size(head) - room) // 2)]
    if not text[len(head)].isspace():
        at = max(head.rfind(" "), head.rfind("\n"))
        if at > len(head) * 0.6:
            head = head[:at]
    return head.rstrip()


def shorten(text: str, limit: int | None) -> str:
    """`text`, or its start up to a word and an ellipsis; never over `limit`."""
    if limit is None or size(text) <= limit:
        return text
    return _cut(text, limit - 1) + "…" if limit > 0 else ""


def fit(text: str, limit: int | None) -> str:
    """`text`, or its start up to a word and a note that says how much is missing; never over `limit`."""
    if limit is None or size(text) <= limit:
        return text

    def note(missing: int) -> str:
        return f"[… {missing:,} characters more in the Huntress portal]"

    room = limit - size(note(len(text))) - 1
    if room < 20:
        return shorten(text, limit)
    head = _cut(text, room)
    return head + ("\n" if "\n" in head else " ") + note(len(text) - len(head))


class _Prose:
    """Collects the readable text of markup, in one pass whose time grows only with the length.

    The standard library's parser is not used: on crafted markup (an unclosed comment, repeated) Python 3.11's takes
    minutes for 400 kB. Tags that HTML does not know are evidence, and stay as they were written.
    """

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self._dropping = ""
        self._tail = ""
        self._pre = False
        self._link = ""
        self._link_from = 0

    def read(self, markup: str) -> str:
        markup, at = _without_comments(markup), 0
        for found in _MARKUP.finditer(markup):
            self._said(markup[at : found.start()])
            self._tag(found)
            at = found.end()
        self._said(markup[at:])
        if self._dropping:
            self._add(f"\n[the rest is inside <{self._dropping}> and not shown; see the Huntress portal]")
        return "".join(self.pieces)

    def _said(self, data: str) -> None:
        if self._dropping:
            return
        data = _unescape(data)
        if not self._pre:
            data = _SPACE.sub(" ", data)
            if self._ends_with("\n") or self._ends_with(" "):
                data = data.removeprefix(" ")
        if data:
            self._add(data)

    def _tag(self, found: re.Match[str]) -> None:
        if not found["tag"]:
            return
        closing, tag, rest = bool(found["closing"]), found["tag"].lower(), found["rest"]
        if self._dropping:
            if closing and tag == self._dropping:
                self._dropping = ""
        elif tag not in _TAGS:
            self._said(found[0])
        elif tag in _DROPPED:
            self._dropping = "" if closing or rest.endswith("/") else tag
        elif tag == "a":
            self._end_link()
            if not closing:
                href = _HREF.search(rest)
                self._link = one_line(_unescape(href["quoted"] or href["single"] or href["bare"] or "")) if href else ""
        elif tag in _BLOCKS:
            self._break("\n\n" if tag in _APART else "\n")
            if tag == "pre":
                self._pre = not closing
            elif tag == "li" and not closing:
                self._add("- ")
        elif tag in ("td", "th") and not closing:
            self._add("" if self._ends_with("\n") else "| " if self._ends_with(" ") else " | ")

    def _ends_with(self, end: str) -> bool:
        return not self._tail or self._tail.endswith(end)

    def _add(self, piece: str) -> None:
        self.pieces.append(piece)
        self._tail = (self._tail + piece[-2:])[-2:]

    def _break(self, wanted: str) -> None:
        if not self._ends_with(wanted):
            self._add("\n" if self._ends_with("\n") else wanted)

    def _end_link(self) -> None:
        if self._link.lower().startswith(("http://", "https://", "mailto:")):
            said = "".join(self.pieces[self._link_from :]).strip()
            if said != self._link:
                self._add(f" ({self._link})" if said else self._link)
        self._link, self._link_from = "", len(self.pieces)


def _without_comments(markup: str) -> str:
    pieces, at = [], 0
    while (start := markup.find("<!--", at)) >= 0:
        end = markup.find("-->", start + 4)
        if end < 0:
            break
        pieces.append(markup[at:start])
        at = end + 3
    return "".join(pieces) + markup[at:]


def _unescape(text: str) -> str:
    return unescape(_HUGE_REFERENCE.sub("\ufffd", text))


def prose(text: str) -> str:
    """`text`, or, if it is HTML, what a person would read of it: links with their address, no scripts, no markup."""
    text = clean(text)
    if _LOOKS_LIKE_HTML.search(text):
        text = clean(_Prose().read(text))
    lines = [line.rstrip() for line in text.split("\n")]
    kept = [line for number, line in enumerate(lines) if line or (number and lines[number - 1])]
    return "\n".join(kept).strip("\n")


def quoted(text: str) -> str:
    """`text` with `> ` before every line, so that nothing in it passes for a line of ours."""
    # `![` would make systems that render Markdown fetch a picture from wherever the text says.
    return "\n".join(f"> {line}".rstrip() for line in clean(text).replace("![", "! [").split("\n"))
