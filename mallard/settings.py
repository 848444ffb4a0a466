"""Reads the settings: a TOML file, overridden by MALLARD_* variables, overridden by flags.

Anything that is not a setting, or has a value that cannot be right, stops the start with a
ConfigError that says where it stands and what would be right.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from mallard.config import DERIVING_SECRET_LENGTH_MIN, Config, Rule, names_site
from mallard.errors import ConfigError

CONFIG_VARIABLE = "MALLARD_CONFIG"
PREFIX = "MALLARD_"
# 003 gives this setting a variable of its own; it has no other.
OWN_VARIABLES = {"privacy.secret": "MALLARD_SECRET"}

_SHAPES: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
    Path | None: "a path",
    tuple[str, ...]: "a list of texts",
    Mapping[str, int]: "a table of whole numbers",
}


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings, and where each that is not a default was set.

    origins: by "table.key", what to call the place in an error.
    """

    config: Config
    origins: Mapping[str, str]

    def located(self, error: ConfigError) -> ConfigError:
        """Return a room's error about one of these settings, with the place where it was set."""
        origin = self.origins.get(error.field or "")
        if origin is None:
            return error
        return ConfigError(f"{origin}: {error.detail}", field=error.field, rule=error.rule)


@dataclass(frozen=True, slots=True)
class _Known:
    """One setting: its name "table.key", its type, and its rule if it has one."""

    name: str
    shape: Any
    rule: Rule | None

    @property
    def right(self) -> str:
        """What its value must be."""
        shape = _SHAPES[self.shape]
        return f"{shape}, {self.rule.says}" if self.rule else shape


def load(
    path: Path | None, environment: Mapping[str, str], flags: Mapping[str, str | None]
) -> Settings:
    """Return the settings from all three sources; a flag that is None was not given.

    path: the TOML file; None: the one MALLARD_CONFIG names, else none.
    flags: by "table.key", as text. Raises ConfigError.
    """
    known = {setting.name: setting for setting in _known()}
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    if path is None and environment.get(CONFIG_VARIABLE):
        path = Path(environment[CONFIG_VARIABLE])
    if path is not None:
        _read_file(path, known, values, origins)
    _read_environment(environment, known, values, origins)
    for name, text in flags.items():
        if text is not None:
            origins[name] = f"--{name.partition('.')[2]}"
            values[name] = _from_text(text, known[name], origins[name])
    config = _build(values)
    _check_together(config, origins)
    return Settings(config, origins)


def _check_together(config: Config, origins: Mapping[str, str]) -> None:
    """Raise ConfigError for values that are right each by itself and wrong together."""
    if config.buffer.flush_events > config.buffer.capacity_events:
        raise ConfigError(
            f"{_place('buffer.flush_events', 'buffer.capacity_events', origins)}: "
            f"buffer.flush_events ({config.buffer.flush_events}) must not exceed "
            f"buffer.capacity_events ({config.buffer.capacity_events})."
        )
    privacy = config.privacy
    if privacy.visitor_salt == "derived" and 0 < len(privacy.secret) < DERIVING_SECRET_LENGTH_MIN:
        raise ConfigError(
            f"{_place('privacy.secret', 'privacy.visitor_salt', origins)}: privacy.secret must "
            f"have at least {DERIVING_SECRET_LENGTH_MIN} characters where visitor_salt is "
            '"derived".'
        )


def variable(name: str) -> str:
    """Return the environment variable that sets "table.key"."""
    return OWN_VARIABLES.get(name) or PREFIX + name.replace(".", "_").upper()


def setting_names() -> list[str]:
    """Return every setting as "table.key", in the order of the tree."""
    return [setting.name for setting in _known()]


def _known() -> Iterable[_Known]:
    for table, kind in get_type_hints(Config).items():
        hints = get_type_hints(kind)
        for key in fields(kind):
            yield _Known(f"{table}.{key.name}", hints[key.name], key.metadata.get("rule"))


def _build(values: Mapping[str, Any]) -> Config:
    tables: dict[str, Any] = {}
    for table, kind in get_type_hints(Config).items():
        given = {
            key.name: values[f"{table}.{key.name}"]
            for key in fields(kind)
            if f"{table}.{key.name}" in values
        }
        tables[table] = kind(**given)
    return Config(**tables)


def _place(first: str, second: str, origins: Mapping[str, str]) -> str:
    return origins.get(first) or origins.get(second, "settings")


# The file


def _read_file(
    path: Path, known: Mapping[str, _Known], values: dict[str, Any], origins: dict[str, str]
) -> None:
    text = _text(path)
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}.") from error
    tables = {name.partition(".")[0] for name in known}
    for table, content in tree.items():
        here = f"{path}, line {_line(text, (table,))}"
        if table not in tables:
            if not isinstance(content, dict):
                _refuse_misplaced(here, "outside of any table", table, known)
            raise ConfigError(_unknown(here, f"table [{table}]", table, tables, "[{}]"))
        if not isinstance(content, dict):
            raise ConfigError(f"{here}: {table} must be a table, written [{table}].")
        keys = {name.partition(".")[2] for name in known if name.startswith(f"{table}.")}
        for key, value in content.items():
            here = f"{path}, line {_line(text, (table, key))}"
            if key not in keys:
                _refuse_misplaced(here, f"in [{table}]", key, known)
                raise ConfigError(_unknown(here, f'key "{key}" in [{table}]', key, keys, '"{}"'))
            name = f"{table}.{key}"
            origins[name] = here
            if known[name].shape == Mapping[str, int] and isinstance(value, dict):
                places = {k: f"{path}, line {_line(text, (table, key, k))}" for k in value}
                values[name] = _mapping(value, known[name], places)
            else:
                values[name] = _checked(_from_toml(value, known[name], here), known[name], here)


def _refuse_misplaced(here: str, where: str, key: str, known: Iterable[str]) -> None:
    """Say where a key belongs that is one of another table's; nothing if it is none of ours."""
    homes = [name.partition(".")[0] for name in known if name.partition(".")[2] == key]
    if homes:
        right = " or ".join(f"[{table}]" for table in homes)
        raise ConfigError(f'{here}: key "{key}" stands {where}; it belongs in {right}.')


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text, as TOML must be.") from error


def _line(text: str, keys: tuple[str, ...]) -> int:
    """Return the line on which a key's statement begins.

    tomllib tells no positions, so find the first whole statement after which the key is there.
    """
    begins = 1
    lines = text.splitlines(keepends=True)
    for number in range(1, len(lines) + 1):
        try:
            tree: Any = tomllib.loads("".join(lines[:number]))
        except tomllib.TOMLDecodeError:
            continue  # in the middle of a statement of several lines
        for key in keys:
            tree = tree.get(key) if isinstance(tree, dict) else None
        if tree is not None:
            return begins
        begins = number + 1
    return begins


def _from_toml(value: Any, known: _Known, here: str) -> Any:
    shape = known.shape
    if shape is float and type(value) is int:
        return float(value)
    if shape == tuple[str, ...] and isinstance(value, list):
        if all(isinstance(item, str) for item in value):
            return tuple(value)
    elif shape in {Path, Path | None} and isinstance(value, str):
        return _path(value, known, here)
    elif shape in {bool, int, float, str} and type(value) is shape:  # a bool is no int here
        return value
    raise _wrong(value, known, here)


# The environment and flags


def _read_environment(
    environment: Mapping[str, str],
    known: Mapping[str, _Known],
    values: dict[str, Any],
    origins: dict[str, str],
) -> None:
    by_variable = {variable(name): setting for name, setting in known.items()}
    for name in sorted(environment):
        if not name.startswith(PREFIX) or name == CONFIG_VARIABLE:
            continue
        if name not in by_variable:
            candidates = [*by_variable, CONFIG_VARIABLE]
            raise ConfigError(_unknown("environment", f"variable {name}", name, candidates, "{}"))
        setting = by_variable[name]
        origins[setting.name] = name
        values[setting.name] = _from_text(environment[name], setting, name)


def _from_text(text: str, known: _Known, here: str) -> Any:
    shape = known.shape
    value: Any = text
    try:
        if shape is bool:
            value = {"true": True, "false": False}[text.lower()]
        elif shape is int:
            value = int(text)
        elif shape is float:
            value = float(text)
        elif shape == tuple[str, ...]:
            value = _items(text)
        elif shape == Mapping[str, int]:
            pairs = [item.rpartition("=") for item in _items(text)]
            value = {key.strip(): int(number) for key, _, number in pairs}
            return _mapping(value, known, dict.fromkeys(value, here))
        elif shape in {Path, Path | None}:
            value = _path(text, known, here)
    except (ValueError, KeyError) as error:
        raise _wrong(text, known, here) from error
    return _checked(value, known, here)


def _items(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(",") if item.strip())


# What both share


def _mapping(value: Mapping[str, Any], known: _Known, places: Mapping[str, str]) -> dict[str, int]:
    """Check each value of a table by itself, so that an error names its key and its line."""
    for key, number in value.items():
        one = _Known(f'{known.name}."{key}"', int, known.rule)
        if not names_site(key) or key.lower().startswith("www."):
            raise ConfigError(
                f'{places[key]}: {known.name} names "{key}"; it must be a site as it is stored, '
                'such as example.com without "www."'
            )
        if type(number) is not int:
            raise _wrong(number, one, places[key])
        _checked(number, one, places[key])
    return dict(value)


def _path(text: str, known: _Known, here: str) -> Path | None:
    if text and "\0" not in text:
        return Path(text)
    if not text and known.shape == Path | None:
        return None
    raise _wrong(text, known, here)


def _checked(value: Any, known: _Known, here: str) -> Any:
    if known.rule and not known.rule.holds(value):
        raise _wrong(value, known, here)
    return value


def _wrong(value: Any, known: _Known, here: str) -> ConfigError:
    shown = "a value not shown here" if known.rule and known.rule.secret else _shown(value)
    return ConfigError(
        f"{here}: {known.name} is {shown}; it must be {known.right}.",
        field=known.name,
        rule=known.right,
    )


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    return str(list(value)) if isinstance(value, tuple) else str(value)


def _unknown(here: str, what: str, word: str, candidates: Iterable[str], form: str) -> str:
    candidates = sorted(candidates)
    near = difflib.get_close_matches(word, candidates, n=1)
    if near:
        right = f"did you mean {form.format(near[0])}?"
    else:
        right = "known are " + ", ".join(form.format(name) for name in candidates) + "."
    return f"{here}: unknown {what}; {right}"
