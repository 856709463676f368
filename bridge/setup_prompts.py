"""What `init` says and asks on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import click

from bridge.printing import one_line
from connectors.base import Choice

#: Most choices that are listed at once; of more, a person types a part of the name.
LISTED = 15


class Prompts:
    """A person at a terminal. `clean` masks secrets in whatever is shown."""

    def __init__(self, clean: Callable[[str], str]) -> None:
        self._clean = clean

    def say(self, text: str = "") -> None:
        """One line."""
        click.echo(one_line(self._clean(text)))

    def head(self, text: str) -> None:
        """The start of a new part."""
        self.say()
        click.secho(one_line(self._clean(text)), bold=True)

    def text(self, prompt: str, default: str = "") -> str:
        """What a person types; Enter means `default`."""
        shown = f"{prompt} [{one_line(self._clean(default))}]" if default else prompt
        return str(click.prompt(f"  {shown}", default=default, show_default=False)).strip() or default

    def secret(self, prompt: str, *, kept: bool) -> str:
        """What a person types unseen; '' when nothing."""
        how = "hidden; Enter keeps it" if kept else "hidden"
        return str(click.prompt(f"  {prompt} ({how})", default="", show_default=False, hide_input=True)).strip()

    def confirm(self, prompt: str, default: bool = True) -> bool:
        """Yes or no."""
        return click.confirm(f"  {prompt}", default=default)

    def choose(
        self, prompt: str, choices: Sequence[Choice], *, otherwise: str = "", default: str = ""
    ) -> Choice | None:
        """One of `choices`, by its number in the list or a part of its name; None: left open, which means `otherwise`.

        Enter takes the choice named `default`, else the ticket system's own, unless it may be left open.
        """
        chosen = _named(choices, default) or (
            None if otherwise else next((each for each in choices if each.default), None)
        )
        listed = list(choices) if len(choices) <= LISTED else []
        self.say(f"  {prompt}{'' if listed else f': {len(choices):,} to choose from'}")
        self._list(listed)
        while True:
            typed = self.text(_how(listed, chosen, otherwise))
            if not typed:
                if chosen or otherwise:
                    return chosen
                continue
            if typed.isdecimal() and 1 <= int(typed) <= len(listed):
                return listed[int(typed) - 1]
            exact = _named(choices, typed)
            if exact:
                return exact
            words = typed.casefold().split()
            hits = [each for each in choices if all(word in f"{each.name} {each.id}".casefold() for word in words)]
            if not hits:
                self.say(f"  nothing has {typed!r} in its name")
                continue
            listed, chosen = hits[:LISTED], hits[0] if len(hits) == 1 else None
            self._list(listed)
            if len(hits) > LISTED:
                self.say(f"       and {len(hits) - LISTED:,} more; type more of the name")

    def _list(self, choices: Sequence[Choice]) -> None:
        for number, choice in enumerate(choices, 1):
            number_there = f" ({choice.id})" if choice.id != choice.name else ""
            self.say(f"    {number:>2}  {choice.name}{number_there}")


def _named(choices: Sequence[Choice], name: str) -> Choice | None:
    """The one choice of that name."""
    found = [each for each in choices if each.name.casefold() == name.casefold()] if name else []
    return found[0] if len(found) == 1 else None


def _how(listed: Sequence[Choice], chosen: Choice | None, otherwise: str) -> str:
    what = "number, or part of a name" if listed else "part of a name"
    meant = chosen.name if chosen else otherwise
    return f"{what} [{one_line(meant)}]" if meant else what
