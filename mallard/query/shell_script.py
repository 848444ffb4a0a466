"""`mallard.sql`: what the DuckDB shell runs at its start, to read the Parquet of a data folder.

The script is written anew after each commit, and names the files of that one snapshot: a shell that
ran it sees each event once, whatever the server does meanwhile, until files that were replaced are
removed. Site-days, which are many, lie beside it in `live/`, a file a month, named by its content.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from textwrap import dedent, indent

import orjson

from mallard.clock import Clock
from mallard.errors import StorageError
from mallard.files import Files
from mallard.query.macros import EXAMPLES, MACROS
from mallard.query.sql import Sql, literal
from mallard.query.views import (
    Listed,
    kept_visits,
    names_of_folders,
    unsettled,
    views,
)
from mallard.store.folder import EMPTY
from mallard.store.partition import RECENT, is_named
from mallard.store.snapshot import Day, SiteDay, Snapshot

NAME = "mallard.sql"  # in the data folder
LIVE = "live"  # in the data folder
# How long a month's file stays that the script no longer names: shells may have begun to run it.
KEEP_US = 60_000_000

_TYPES = {
    "site_id": "VARCHAR",
    "date": "VARCHAR",
    "named": "BOOLEAN",
    "parts": "VARCHAR[]",
    "visits": "VARCHAR",
}
_COLUMNS = ", ".join(f"{name} {kind}" for name, kind in _TYPES.items())
_JSON = "{" + ", ".join(f"{name}: '{kind}'" for name, kind in _TYPES.items()) + "}"
_HEAD = f"""\
-- Mallard's events for the DuckDB shell: duckdb -init {{data}}/{NAME}
-- The shell reads Parquet alone: events of the last seconds are still in the log, and are
-- in `mallard shell`, which reads both. `.read {{data}}/{NAME}` shows what was stored since.
-- If this folder moves, the next start of the server writes this file anew.
--
-- events: a row an event; sessions: a row a visit; and macros over both. Of a period the first
-- day is in it, the last is not (UTC):
{indent(EXAMPLES, "--   ")}
"""


class ShellScript:
    """Keeps `mallard.sql` true; told of one snapshot at a time."""

    def __init__(self, data: Path, files: Files, clock: Clock) -> None:
        """Take over what an earlier process left; raises StorageError when that cannot be."""
        self._path = data / NAME
        if self._path.is_dir():
            raise StorageError(f"{self._path} is a folder; a file of that name has to go there.")
        self._live = data / LIVE
        self._files = files
        self._clock = clock
        self._written = files.read(self._path) if NAME in files.names(data) else b""
        self._days: Mapping[SiteDay, Day] = {}
        self._months: dict[str, str] = {}  # to the name of its file
        self._outdated = dict.fromkeys(files.names(self._live), 0)  # to when they became so

    def tell(self, snapshot: Snapshot) -> None:
        """Make the script say what is live; raises OSError, and then it is as before."""
        months = self._write_months(snapshot.days)
        script = write_script(self._path.parent, snapshot, months.values()).encode()
        if script != self._written:
            # A power loss may bring an older one back, until the next start: to sync it would take
            # a fifth of a flush, and make the log wait meanwhile.
            self._files.replace(self._path, script, durable=False)
            self._written = script
        self._days, self._months = snapshot.days, months
        self._remove_outdated()

    def _write_months(self, days: Mapping[SiteDay, Day]) -> dict[str, str]:
        """Write the months that are not as they were, and return the names of all."""
        if days is self._days:
            return self._months
        changed = {key[1][:7] for key, day in days.items() if self._days.get(key) is not day}
        changed |= {key[1][:7] for key in self._days.keys() - days.keys()}
        by_month: dict[str, list[tuple[SiteDay, Day]]] = {month: [] for month in changed}
        for key, day in days.items():
            if key[1][:7] in changed:
                by_month[key[1][:7]].append((key, day))
        months = {month: name for month, name in self._months.items() if month not in changed}
        for month, found in by_month.items():
            if found:
                months[month] = self._write_month(month, found)
        return months

    def _write_month(self, month: str, found: Iterable[tuple[SiteDay, Day]]) -> str:
        days = sorted(found, key=lambda each: each[0])
        named = names_of_folders(site_id for (site_id, _), _ in days)
        content = b"\n".join(
            orjson.dumps(
                {
                    "site_id": site_id,
                    "date": date,
                    "named": named[site_id],
                    "parts": [part.location for part in day.parts],
                    "visits": file.location
                    if (file := kept_visits(day, named=named[site_id]))
                    else None,
                }
            )
            for (site_id, date), day in days
        )
        name = f"{month}.{sha256(content).hexdigest()[:16]}.json"
        if name not in self._files.names(self._live):
            self._files.make_folder(self._live)
            self._files.replace(self._live / name, content)
        return name

    def _remove_outdated(self) -> None:
        now, live = self._clock.now_us(), set(self._months.values())
        self._outdated = {name: since for name, since in self._outdated.items() if name not in live}
        for name in self._files.names(self._live):
            if name not in live and now - self._outdated.setdefault(name, now) > KEEP_US:
                self._files.remove(self._live / name)
                del self._outdated[name]


def write_script(data: Path, snapshot: Snapshot, months: Iterable[str]) -> str:
    """Return the script for a snapshot whose site-days are in these files of `live/`."""
    left = unsettled(snapshot)
    filled = {Listed.LOOSE, Listed.OPEN}  # there is a file without rows
    # Not list_files(): with years of site-days it would take most of a flush's time.
    if any(is_named(site_id) for site_id, _ in snapshot.days):
        filled.add(Listed.COMPACTED)
    if any(
        kept_visits(day, named=is_named(key[0]))
        for key, day in snapshot.days.items()
        if key not in left
    ):
        filled.add(Listed.VISITS)
    recent = [f"{RECENT}/{EMPTY}", *(part.location for part in snapshot.recent)]
    lists = {
        Listed.COMPACTED: _files("parts", "named"),
        Listed.LOOSE: _files("parts", "NOT named", recent),
        Listed.VISITS: _files("[visits]", "NOT open"),
        Listed.OPEN: _files("parts", "open", recent),
    }
    first = [
        *_read_days(data, months, left),
        # Views and macros find their columns in one file of each list.
        *(_set(variable, Sql(f"{files} LIMIT 1")) for variable, files in lists.items()),
        *views(filled, snapshot.rules, tail=False),
    ]
    last = [
        *(_set(variable, files) for variable, files in lists.items()),
        Sql("DROP TABLE mallard_days"),
    ]
    head = _HEAD.format(data=data)
    return "\n".join([head, *map(_statement, first), *_MACROS, *map(_statement, last), ""])


def _statement(sql: Sql) -> str:
    return f"{dedent(sql).strip()};"


# Once: each flush waits for the script.
_MACROS = [_statement(each) for each in MACROS]


def _read_days(data: Path, months: Iterable[str], left: Iterable[SiteDay]) -> list[Sql]:
    """Make the table of site-days; `open` are those whose visits have to be computed."""
    listed = ", ".join(
        f"getvariable('mallard_data') || {literal(f'{LIVE}/{name}')}" for name in sorted(months)
    )
    found = ", ".join(f"({literal(site_id)}, {literal(date)})" for site_id, date in sorted(left))
    unsettled_ = f"(site_id, date) IN ({found})" if found else "false"
    statements = [
        Sql(f"SET VARIABLE mallard_data = {literal(f'{data.absolute()}/')}"),
        Sql(f"CREATE OR REPLACE TEMP TABLE mallard_days ({_COLUMNS}, open BOOLEAN)"),
    ]
    if listed:
        statements.append(
            Sql(f"""
            INSERT INTO mallard_days SELECT *, visits IS NULL OR {unsettled_} FROM read_json(
                [{listed}], format = 'newline_delimited', columns = {_JSON}
            )""")
        )
    return statements


def _files(column: str, where: str, more: Iterable[str] = ()) -> Sql:
    listed = ", ".join(map(literal, more))
    return Sql(f"""
            SELECT unnest([{listed}]::VARCHAR[]) AS file
            UNION ALL SELECT unnest({column}) FROM mallard_days WHERE {where}""")


def _set(variable: Listed, files: Sql) -> Sql:
    return Sql(f"""
        SET VARIABLE {variable.value} = (
            SELECT list(getvariable('mallard_data') || file) FROM ({files})
        )""")
