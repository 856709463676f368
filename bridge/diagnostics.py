"""`diagnostics`: one archive that says how an installation is doing, without secrets, for whoever helps.

Gathered with whatever works: a part that cannot be had is named in the bundle, and the others are there all the same.
Every text passes `Masking` on its way in.
"""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from bridge import diagnostics_facts as facts
from bridge.diagnostics_stored import Stored
from bridge.settings import ConfigurationError, Settings, load, secrets
from connectors.redaction import SHORTEST_SECRET, learned, redact

#: Names shorter than this are part of too many words to be replaced.
SHORTEST_NAME = 3
#: Keys and variables whose values count as secrets where the configuration cannot be read.
_SECRETIVE = re.compile(r"key|token|secret|password|passwd|credential|url|proxy", re.IGNORECASE)
_LOCAL_PART = re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]+@(?=[\w-]+\.)")

README = """\
What is in this archive, and what is not.

{contents}

Not in it: secrets of the configuration (each is only said to be set or not, and from where), log lines{left_out}.
Please look through the files before you send them: they are plain text.

Logs say the most. Add those around the time of the trouble; they are JSON without secrets when they go to a file or a
journal, and each line about a delivery carries report_id, connector and trace_id:
    journalctl --unit <the bridge's unit> --since "-2h" > bridge.log
    docker compose logs --since 2h --no-color > bridge.log
With log_level = "debug" they show every request, masked.
"""


@dataclass
class Masking:
    """What no text of the bundle shows: secrets, local parts of mail addresses, and names, replaced by ids."""

    secrets: list[str] = field(default_factory=list)
    #: By name in small letters, what stands in its place.
    names: dict[str, str] = field(default_factory=dict)
    addresses: bool = True

    def __call__(self, value: object) -> object:
        """Plain data as it may be shown."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(key)): self(inner) for key, inner in value.items()}
        if isinstance(value, (list, tuple, set, frozenset)):
            return [self(inner) for inner in value]
        return value if value is None or isinstance(value, (bool, int, float)) else self.text(str(value))

    def text(self, text: str) -> str:
        """One text as it may be shown."""
        text = redact(text, [*self.secrets, *learned()])
        folded = text.casefold()
        for name in sorted((name for name in self.names if name in folded), key=len, reverse=True):
            pattern = rf"(?<!\w){re.escape(name)}(?!\w)"
            text = re.sub(pattern, self.names[name].replace("\\", "/"), text, flags=re.IGNORECASE)
        return _LOCAL_PART.sub("***@", text) if self.addresses else text


@dataclass
class Bundle:
    """The files by name, and what could not be gathered, as sentences."""

    files: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    masking: Masking = field(default_factory=Masking)

    def add(self, name: str, make: Callable[[], object]) -> None:
        """Adds a file of what `make` returns, text or data, or a problem: what is broken keeps nothing else back."""
        try:
            shown = self.masking(make())
            text = shown if isinstance(shown, str) else json.dumps(shown, indent=2, ensure_ascii=False)
        except Exception as error:
            self.failed(name, error)
        else:
            self.files[name] = redact(text, [*self.masking.secrets, *learned()])

    def failed(self, what: str, error: Exception) -> None:
        said = f"{what} could not be gathered: {type(error).__name__}: {error}"
        self.problems.append(str(self.masking(said)))


def gather(
    path: Path | None,
    environ: Mapping[str, str] = os.environ,
    *,
    with_reports: bool = False,
    with_names: bool = False,
) -> Bundle:
    """Everything that can be had. `path` is the configuration file, as `load` takes it.

    `with_reports` adds the texts of reports that wait or could not be parsed; `with_names` leaves names of customers
    and mail addresses as they are.
    """
    bundle = Bundle(masking=Masking(secrets=_suspected(path, environ), addresses=not with_names))
    bundle.add("versions.json", facts.versions)
    settings = _configuration(bundle, path, environ)
    if settings is not None:
        bundle.masking.secrets = [*secrets(settings), *bundle.masking.secrets]
        if not with_names:
            try:
                bundle.masking.names |= _worth(facts.names_in_file(settings))
            except Exception as error:
                bundle.failed("organizations.file", error)
        with Stored(settings) as stored:
            if stored.problem:
                bundle.problems.append(bundle.masking.text(stored.problem))
            elif not with_names:
                try:
                    bundle.masking.names |= _worth(stored.names())
                except Exception as error:
                    bundle.failed("the names to leave out", error)
            bundle.add("configuration.json", lambda: facts.configuration(settings, environ))
            bundle.add("findings.json", lambda: facts.findings(settings))
            for name, make in stored.files(with_reports=with_reports):
                bundle.add(name, make)
    bundle.add("problems.json", lambda: bundle.problems)
    left_out = "" if with_reports else ", the texts of reports (--with-reports adds those that wait)"
    if not with_names:
        left_out += ", names of organizations (ids are in their place), the local part of mail addresses"
    contents = "\n".join(f"  {name:22} {facts.ABOUT.get(name, '')}".rstrip() for name in sorted(bundle.files))
    bundle.files["README.txt"] = README.format(contents=contents, left_out=left_out)
    return bundle


def _configuration(bundle: Bundle, path: Path | None, environ: Mapping[str, str]) -> Settings | None:
    try:
        return load(path, environ)
    except ConfigurationError as error:
        problems = error.problems
        bundle.problems.append("the configuration cannot be used; configuration.json says why")
        bundle.add("configuration.json", lambda: {"problems": problems, "variables": facts.variables(environ)})
    except Exception as error:
        bundle.failed("the configuration", error)
    return None


def _suspected(path: Path | None, environ: Mapping[str, str]) -> list[str]:
    """Values that may be secrets whatever the settings make of them: an invalid configuration names none."""
    found = [value for name, value in environ.items() if name.startswith("BRIDGE_") and _SECRETIVE.search(name)]
    found += [value for name, value in environ.items() if name.lower().endswith("_proxy") and "@" in value]
    named = path or Path(environ.get("BRIDGE_CONFIG") or "bridge.toml")
    try:
        text = named.read_text("utf-8", "replace")
    except OSError:
        text = ""
    # Line by line: what is not TOML at all may still hold secrets.
    for key, value in re.findall(r"""([\w-]+)["']?\s*[=:]\s*("(?:[^"\\]|\\.)*"|'[^']*')""", text):
        if _SECRETIVE.search(key) and not key.endswith("_file") and "url" not in key.lower():
            found += [value[1:-1], _unquoted(value)]
    return [value for value in found if len(value) >= max(SHORTEST_SECRET, 6)]


def _unquoted(value: str) -> str:
    try:
        return str(json.loads(value))
    except ValueError:
        return value[1:-1]


def _worth(names: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {name.strip().casefold(): place for name, place in names if len(name.strip()) >= SHORTEST_NAME}


def write(bundle: Bundle, path: Path | None = None) -> Path:
    """Writes the archive, readable for its owner only; where `path` is None, into this folder under a name of its own.

    Raises `OSError`, also when the file exists already.
    """
    now = datetime.now(UTC)
    path = path or Path(f"huntress-bridge-diagnostics-{now:%Y%m%dT%H%M%SZ}.zip")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in sorted(bundle.files.items()):
            archive.writestr(zipfile.ZipInfo(name, now.timetuple()[:6]), text, zipfile.ZIP_DEFLATED)
    return path
