"""Where a connector's templates lie: its override folder, its own folder, and the common one."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, TemplateError, meta

#: Finds what a template includes; renders nothing.
_PARSER = Environment(autoescape=True)
_COMMON = Path(__file__).resolve().parent.parent / "templates"


@dataclass(frozen=True, slots=True)
class TemplateFile:
    """A file that has a say in one part of a ticket, or in one kind of note."""

    part: str
    path: Path
    #: Does it come from the connector's override folder?
    overridden: bool


class TemplateFiles:
    """The folders that templates are searched in, in this order; `override` is the setting, '' for none."""

    def __init__(self, override: str, own: Path) -> None:
        self.override = Path(override).resolve() if override else None
        self.folders = (self.override, own, _COMMON) if self.override else (own, _COMMON)
        #: As `where` answered first: what a file is compiled to is kept as well.
        self._where: dict[str, str] = {}

    def has(self, name: str) -> bool:
        return any((folder / name).is_file() for folder in self.folders)

    def where(self, name: str) -> str:
        """The path of the file that is used for `name`; `name` itself when there is none."""
        if name not in self._where:
            self._where[name] = str(next((each / name for each in self.folders if (each / name).is_file()), name))
        return self._where[name]

    def of(self, part: str, name: str) -> Iterator[TemplateFile]:
        """The file of a part, and those that it includes."""
        for path in self._used(name):
            yield TemplateFile(part, path, self.override is not None and path.is_relative_to(self.override))

    def unused(self, names: Sequence[str]) -> Iterator[str]:
        """A sentence for each override file that has no say where the templates `names` are rendered."""
        if self.override is None:
            return
        if not self.override.is_dir():
            yield f"{self.override} is not a folder; without it the built-in templates are used"
            return
        used = {path for name in names for path in self._used(name)}
        files = [Path(name).name for name in names]
        for path in sorted(self.override.glob("*.j2")):
            if path not in used:
                near = difflib.get_close_matches(path.name, files, n=1)
                hint = f"did you mean {near[0]}?" if near else f"the parts are {', '.join(files)}"
                yield f"{path} is used by no part of a ticket; {hint}"

    def _used(self, name: str, seen: tuple[str, ...] = ()) -> Iterator[Path]:
        path = Path(self.where(name))
        yield path
        try:
            referenced = meta.find_referenced_templates(_PARSER.parse(path.read_text("utf-8")))
            for other in referenced:
                if other and other not in (name, *seen):
                    yield from self._used(other, (name, *seen))
        except (OSError, UnicodeDecodeError, TemplateError):
            return  # said by `check`
