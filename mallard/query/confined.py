"""What one asker may read of the store, and nothing else: the views over some sites alone.

Files that hold only what the asker may see are read where they lie. Of all others, which are those
of level 0 (every site's events of a date) and those that a rule changes, the rows that may be seen
are copied first. A condition in a view would not do: DuckDB may work out a condition of the asker's
before it, and its error says what it was worked out from.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from mallard.event import ARROW_SCHEMA
from mallard.query.events import rows_of
from mallard.query.rules import apply
from mallard.query.sql import Sql, literal
from mallard.query.tail import TailView
from mallard.query.views import Listed, list_files, views
from mallard.store.part import Derived, Part
from mallard.store.snapshot import Rule, SiteDay, Snapshot


@dataclass(frozen=True, slots=True)
class Reading:
    """What one asker may read; it can be sent to another process.

    sites: None is every site. lists: sources that are read where they lie. copied: sources of which
    the rows of the sites, as rules leave them, are copied first. tail: the sites' events that are
    not in parts, of `ARROW_SCHEMA`. as_of_us: an instant, to see what was stored then; None is now.
    """

    sites: frozenset[str] | None
    lists: Mapping[Listed, tuple[str, ...]]
    copied: tuple[str, ...]
    rules: tuple[Rule, ...]
    tail: pa.Table
    as_of_us: int | None = None

    @property
    def sources(self) -> set[str]:
        """Every source that is read where it lies."""
        return {source for sources in self.lists.values() for source in sources}


def confine(
    tail: TailView,
    snapshot: Snapshot,
    sites: frozenset[str] | None,
    source: Callable[[Part | Derived], str],
    dates: tuple[str, str] | None = None,
    as_of_us: int | None = None,
) -> Reading:
    """Return what may be read of a snapshot and the tail taken before it.

    sites: those that may be seen; None is every one. source: where a file is. dates: the first and
    the last UTC date (ISO) whose files are wanted; None is every one. as_of_us: see `Reading`.
    """
    fresh = tail.all_after(snapshot.watermark, sites)
    seen = _of(snapshot, sites, dates)
    changed = {key for rule in seen.rules for key in rule.affected}
    recent: list[Part] = []
    copied: list[Part] = []
    open_days = _site_days(fresh)
    for part in seen.recent:
        held = {(site, part.date) for site in part.sites}
        mixed = sites is not None and not set(part.sites) <= sites
        (copied if mixed or held & changed else recent).append(part)
        open_days |= held
    copied += [part for key in changed & seen.days.keys() for part in seen.days[key].parts]
    clean = dataclasses.replace(
        seen,
        recent=tuple(recent),
        days={key: day for key, day in seen.days.items() if key not in changed},
        rules=(),
    )
    lists = list_files(clean, open_days, as_of_us)
    return Reading(
        sites,
        {each: tuple(source(file) for file in files) for each, files in lists.items() if files},
        tuple(source(part) for part in copied),
        seen.rules,
        fresh,
        as_of_us,
    )


def show_reading(connection: duckdb.DuckDBPyConnection, reading: Reading) -> None:
    """Make, or make anew, the views `events` and `sessions` of a connection.

    Nothing of what was copied has to be read again, so `copied` need not be readable after it.
    """
    connection.register("fresh", reading.tail)
    rows = [Sql(f"SELECT {_NAMES} FROM fresh")]
    if reading.copied:
        stored = Sql(f"FROM ({rows_of(reading.copied)})")
        if reading.sites is not None:
            listed = ", ".join(map(literal, sorted(reading.sites))) or "NULL"
            stored = Sql(f"{stored} WHERE site_id IN ({listed})")
        rows.append(Sql(f"SELECT {_NAMES} FROM ({apply(stored, reading.rules)})"))
    connection.execute(f"CREATE OR REPLACE TABLE tail AS {' UNION ALL '.join(rows)}")
    connection.unregister("fresh")
    _set(connection, {each: sources[:1] for each, sources in reading.lists.items()})
    for statement in views(reading.lists, (), tail=True, as_of_us=reading.as_of_us):
        connection.execute(statement)
    # As in query/events.py: views find their columns in one file of each list.
    _set(connection, reading.lists)


_NAMES = ", ".join(ARROW_SCHEMA.names)


def _set(connection: duckdb.DuckDBPyConnection, lists: Mapping[Listed, tuple[str, ...]]) -> None:
    for variable, sources in lists.items():
        connection.register("listed", pa.table({"file": list(sources)}))
        connection.execute(f"SET VARIABLE {variable.value} = (SELECT list(file) FROM listed)")
        connection.unregister("listed")


def _of(
    snapshot: Snapshot, sites: frozenset[str] | None, dates: tuple[str, str] | None
) -> Snapshot:
    """Return a snapshot of the files that hold anything of some sites and dates."""
    first, last = dates or ("", "~")

    def is_meant(part: Part) -> bool:
        meant = sites is None or not sites.isdisjoint(part.sites)
        return meant and first <= part.date <= last

    def is_key(key: SiteDay) -> bool:
        return (sites is None or key[0] in sites) and first <= key[1] <= last

    return dataclasses.replace(
        snapshot,
        recent=tuple(part for part in snapshot.recent if is_meant(part)),
        days={key: day for key, day in snapshot.days.items() if is_key(key)},
        rollups={},
        quarantined=(),
    )


def _site_days(events: pa.Table) -> set[SiteDay]:
    keys = {"site_id": events["site_id"], "date": pc.cast(events["timestamp"], pa.date32())}
    rows = pa.table(keys).group_by(list(keys)).aggregate([]).to_pylist()
    return {(row["site_id"], row["date"].isoformat()) for row in rows}
