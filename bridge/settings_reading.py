"""Reads what the settings are made from, a TOML file and the environment, and says what is wrong with it.

Nothing here knows a single setting: the models in `bridge.settings` and in the connectors do. A key is a path of
names, `("huntress", "api_key")`; people read it as `huntress.api_key`, and the environment spells it
`BRIDGE_HUNTRESS__API_KEY`. No value enters a message, because it may be a secret in the wrong place.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path, PurePath
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr, ValidationError

from connectors.base import SettingsModel, read_secret, why_unreadable

PREFIX = "BRIDGE_"
#: Names the file itself; not a setting.
CONFIG_VARIABLE = "BRIDGE_CONFIG"
#: Kubernetes injects these into every pod beside a service called "bridge".
IGNORED_VARIABLES = ("BRIDGE_PORT", "BRIDGE_SERVICE_")

#: Stands in for a secret that could not be read, while the rest is checked.
UNREADABLE = "unreadable"

Key = tuple[str, ...]
Table = dict[str, Any]
#: Every key that may be given, with the type of its value.
KnownKeys = Mapping[Key, Any]


class ConfigurationError(Exception):
    """The configuration cannot be used. `problems` holds everything found, each a sentence that names its key."""

    problems: tuple[str, ...]

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


def variable(key: Key) -> str:
    """The environment variable for `key`."""
    return PREFIX + "__".join(key).upper()


class Problems:
    """Collects sentences about keys. Knows which keys the environment gave, so that the sentence points there."""

    def __init__(self) -> None:
        self.sentences: list[str] = []
        self._keys: set[Key] = set()
        self._variables: dict[Key, str] = {}

    def came_from(self, key: Key, value: object, name: str) -> None:
        """Remembers that the variable `name` gave `value` under `key`."""
        if isinstance(value, dict):
            for inner, inner_value in value.items():
                self.came_from((*key, inner), inner_value, name)
        else:
            self._variables[key] = name

    def about(self, key: Key) -> str:
        """`key` as people read it, with the variable it came from."""
        name = next((self._variables[part] for n in range(len(key), 0, -1) if (part := key[:n]) in self._variables), "")
        return ".".join(key) + (f" ({name})" if name else "")

    def add(self, key: Key, sentence: str) -> None:
        """`sentence` is whole: it names the key itself."""
        self._keys.add(key)
        self.sentences.append(sentence)

    def add_validation(self, error: ValidationError, prefix: Key, known: KnownKeys) -> None:
        """Adds what pydantic found in the table `prefix`, each key once, and none that has a problem already."""
        found: dict[tuple[Key, Key], list[tuple[str, str]]] = {}
        for item in error.errors(include_input=False, include_url=False, include_context=False):
            key, place = _settle(prefix, item["loc"], known)
            entry = f" (item {place[0]})" if len(place) == 1 else ""
            # A table within a list has keys of its own; other entries are told together.
            found.setdefault((key, place[:2] if len(place) > 1 else ()), []).append((item["type"], item["msg"] + entry))
        told = set(self._keys)
        for (key, place), items in found.items():
            if key not in told:
                about = self.about(key) + (f" (item {place[0]}): {place[1]}" if place else "")
                inner = _keys_within(value_type(key, known)) if place else None
                self.add(key, _sentence(about, place[1:] or key, items, inner or known))


def _settle(prefix: Key, loc: Sequence[int | str], known: KnownKeys) -> tuple[Key, Key]:
    """Key and place within its value, from pydantic's location, whose tail also names list items and union branches.

    The place is empty, the number of an item, or that and a key of the table that the item is.
    """
    key = prefix
    for position, part in enumerate(loc):
        annotation = value_type(key, known)
        if isinstance(part, int) or (annotation is not None and not _is_table(annotation)):
            tail = loc[position:]
            item = next((place for place, step in enumerate(tail) if isinstance(step, int)), None)
            if item is None:
                return key, ()
            inner = [str(step) for step in tail[item + 1 : item + 2] if _keys_within(annotation)]
            return key, (str(int(tail[item]) + 1), *inner)
        key = (*key, part)
    return key, ()


def _keys_within(annotation: Any) -> KnownKeys:
    """The keys of the tables that a list of `annotation` holds; none where it holds no tables."""
    if get_origin(annotation) is Annotated:
        return _keys_within(get_args(annotation)[0])
    model = next(iter(get_args(annotation)), None)
    if not isinstance(model, type) or not issubclass(model, BaseModel):
        return {}
    return {(info.alias or name,): info.annotation for name, info in model.model_fields.items()}


def _sentence(about: str, key: Key, items: list[tuple[str, str]], known: KnownKeys) -> str:
    kind, message = items[0]
    if kind == "extra_forbidden":
        return f"{about} is not a known key; the nearest known one is {nearest('.'.join(key), map('.'.join, known))}"
    if kind == "missing":
        return f"{about} is missing"
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        entry = re.search(r" \(item [0-9]+\)$", message)
        return f"{about} must be a table{entry[0] if entry else ''}"
    if kind in ("too_short", "string_too_short") and "at least 1 " in message:
        return f"{about} is empty"
    if kind in ("value_error", "assertion_error"):
        text = message.removeprefix("Value error, ").removeprefix("Assertion failed, ")
        return f"{about} {text}" if re.match(r"(is|has|must|may|would) ", text) else f"{about}: {text}"
    first, *others = dict.fromkeys(re.sub(r"^\w+ should ", "must ", text) for _, text in items)
    return " or ".join([f"{about} {first}", *(other.removeprefix("must be ") for other in others)])


def nearest(name: str, candidates: Iterable[str]) -> str:
    """The candidate most like `name`."""
    return difflib.get_close_matches(name, list(candidates), n=1, cutoff=0.0)[0]


def keys_of(model: type[BaseModel], prefix: Key = ()) -> dict[Key, Any]:
    """Every key of `model` and of the tables in it, `<key>_file` of secrets included, with the type of its value."""
    keys: dict[Key, Any] = {}
    secret_keys = model.secret_keys() if issubclass(model, SettingsModel) else []
    for name, info in model.model_fields.items():
        keys[(*prefix, name)] = info.annotation
        if name in secret_keys:
            keys[(*prefix, f"{name}_file")] = str
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            keys |= keys_of(info.annotation, (*prefix, name))
    return keys


def value_type(key: Key, known: KnownKeys) -> Any:
    """Type of the value under `key`, also for an entry of a table with free names; None: no such key."""
    if key in known:
        return known[key]
    parent = known.get(key[:-1])
    return get_args(parent)[1] if get_origin(parent) is dict else None


def _kinds(annotation: Any) -> set[type]:
    """The plain types that a value of `annotation` may have."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _kinds(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return set[type]().union(*(_kinds(branch) for branch in get_args(annotation)))
    if origin is Literal:
        return {type(value) for value in get_args(annotation)}
    plain = origin or annotation
    return {plain} if isinstance(plain, type) else {object}


def _is_table(annotation: Any) -> bool:
    return any(issubclass(kind, (BaseModel, Mapping)) for kind in _kinds(annotation))


def _is_structured(kind: type) -> bool:
    return issubclass(kind, (BaseModel, Mapping, Sequence, Set)) and not issubclass(kind, (str, bytes))


#: Stands for a variable that is set but says nothing, as Compose passes `${UNSET:-}` on.
_ABSENT = object()


def decode(text: str, annotation: Any) -> Any:
    """The value that a variable's `text` means where a value of type `annotation` is wanted.

    Lists and tables are JSON. Where text and numbers are both possible (a name or an id), digits are a number and a
    JSON string is text, so `"12"` in quotes is a name. Everything else stays text: a password of digits is one too.
    Raises `ValueError` with the rest of a sentence.
    """
    kinds = _kinds(annotation)
    is_text = bool(kinds & {str, SecretStr, object}) or any(issubclass(kind, PurePath) for kind in kinds)
    if any(_is_structured(kind) for kind in kinds):
        if not text.strip():
            return _ABSENT
        wanted = "table" if _is_table(annotation) else "list"
        try:
            value = json.loads(text)
        except ValueError:
            value = None
        if isinstance(value, dict if wanted == "table" else list) or is_text:
            return text if value is None else value
        example = '{"name": "value"}' if wanted == "table" else '["first", "second"]'
        raise ValueError(f"must be a JSON {wanted} such as {example}")
    if is_text and kinds & {int, float, bool}:
        try:
            value = json.loads(text)
        except ValueError:
            return text
        return value if type(value) in kinds else text
    return text if is_text or text.strip() else _ABSENT


def _nested(key: Key, value: Any) -> Table:
    for name in reversed(key):
        value = {name: value}
    return value if isinstance(value, dict) else {}


def overlay(base: Mapping[str, Any], over: Mapping[str, Any]) -> Table:
    """`base` with `over` laid on it, key by key in tables."""
    merged = dict(base)
    for name, value in over.items():
        below = merged.get(name)
        merged[name] = overlay(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


class Environment:
    """The `BRIDGE_…` variables as keys. Names are matched in any case after the prefix."""

    def __init__(self, environ: Mapping[str, str], problems: Problems) -> None:
        self._problems = problems
        self._texts: dict[Key, tuple[str, str]] = {}
        for name, text in sorted(environ.items()):
            if not name.startswith(PREFIX) or name == CONFIG_VARIABLE or name.startswith(IGNORED_VARIABLES):
                continue
            key = self._spell(tuple(name.removeprefix(PREFIX).split("__")))
            if key in self._texts:
                problems.add(key, f"{name} and {self._texts[key][0]} mean the same key; keep one")
            self._texts[key] = (name, text)

    @staticmethod
    def _spell(parts: Key) -> Key:
        """Lower case, but for the name of a free entry (`…__FIELDS__subType`) that is not all in capitals."""
        return tuple(part if n > 2 and part != part.upper() else part.lower() for n, part in enumerate(parts))

    def connectors(self) -> Table:
        """What the environment says about connectors as far as their types are concerned: tables by name."""
        tables: Table = {}
        for key, (_, text) in sorted(self._texts.items(), key=lambda item: len(item[0])):
            if key[0] != "connectors":
                continue
            if len(key) < 3:
                try:
                    value = json.loads(text)
                except ValueError:
                    value = None
                if isinstance(value, dict):
                    tables = overlay(tables, value if len(key) == 1 else {key[1]: value})
            elif key[2:] == ("type",):
                tables = overlay(tables, {key[1]: {"type": text}})
        return {name: table for name, table in tables.items() if isinstance(table, dict)}

    def values(self, known: KnownKeys, undecided: Set[str]) -> Table:
        """Everything given, as nested tables, deeper variables over shallower ones. Wrong ones become problems.

        Variables of the connectors in `undecided`, whose type is not known, are passed over: that is a problem already.
        """
        table: Table = {}
        for key, (name, text) in sorted(self._texts.items(), key=lambda item: (len(item[0]), item[0])):
            if len(key) > 2 and key[0] == "connectors" and key[1] in undecided and key[2:] != ("type",):
                continue
            annotation = self._type_of(key, known)
            if annotation is None:
                near = nearest(name.upper(), map(variable, known))
                self._problems.add((name,), f"{name} is not a known variable; the nearest known one is {near}")
                continue
            try:
                value = decode(text, annotation)
            except ValueError as error:
                self._problems.add(key, f"{name} {error}")
                continue
            if value is not _ABSENT:
                self._problems.came_from(key, value, name)
                table = overlay(table, _nested(key, value))
        return table

    @staticmethod
    def _type_of(key: Key, known: KnownKeys) -> Any:
        if len(key) == 2 and key[0] == "connectors":
            return dict[str, Any]
        if key[:1] + key[2:] == ("connectors", "type"):
            return str
        return value_type(key, known)


def read_toml(path: Path) -> Table:
    """The tables of the file. Raises `ConfigurationError` when it cannot be read or is not TOML."""
    problem = ""
    try:
        # Windows editors put a byte-order mark first; TOML knows none.
        return tomllib.loads(path.read_bytes().decode().removeprefix("\ufeff"))
    except OSError as error:
        problem = f"cannot read the configuration file {path}: {why_unreadable(path, error)}"
    except UnicodeDecodeError as error:
        problem = f"{path} is not UTF-8 text (byte {error.start})"
    except tomllib.TOMLDecodeError as error:
        problem = f"{path} is not valid TOML: {error}"
    # Raised here and not above: a traceback must not carry the decoder's error, which holds the whole document.
    raise ConfigurationError([problem])


def take_secret_files(table: Table, model: type[BaseModel], key: Key, problems: Problems) -> tuple[Table, list[Path]]:
    """`table` with every `<key>_file` read into `<key>`, and the files. What is wrong becomes a problem."""
    table, files = dict(table), []
    for name, info in model.model_fields.items():
        inner = table.get(name)
        if isinstance(inner, dict) and isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            table[name], more = take_secret_files(inner, info.annotation, (*key, name), problems)
            files += more
    for name in model.secret_keys() if issubclass(model, SettingsModel) else []:
        given = table.pop(f"{name}_file", "")
        if not given:
            continue
        secret_key = (*key, name)
        about = problems.about((*key, f"{name}_file"))
        if not isinstance(given, str):
            problems.add(secret_key, f"{about} must be the path of a file")
        elif table.get(name):
            problems.add(secret_key, f"{problems.about(secret_key)} and {about} are both given; keep one")
        else:
            files.append(Path(given))
            try:
                table[name] = read_secret(Path(given), about)
                if not table[name]:
                    problems.add(secret_key, f"{about}: {given} is empty")
            except ValueError as error:
                problems.add(secret_key, str(error))
        # Where the file gave none, the problem is told; a secret reported missing would only be its echo.
        table[name] = table.get(name) or UNREADABLE
    return table, files


def secret_texts(table: Any, model: type[BaseModel]) -> Iterator[str]:
    """Texts in raw `table` that stand where `model` expects secrets."""
    for name, value in table.items() if isinstance(table, dict) else ():
        info = model.model_fields.get(name)
        if info is None:
            continue
        if isinstance(value, str) and value != UNREADABLE and SecretStr in _kinds(info.annotation):
            yield value
        elif isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from secret_texts(value, info.annotation)
