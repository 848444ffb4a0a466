"""Writes parts anew as rules leave them, and tells which parts are not yet as they should be.

Invariant: each swap makes a part of level 0, or a whole site-day of level 1 with its visits, be as
the rules leave it; the sums of its month go with it and are made anew. What a swap did stands in
the store's history, under `REASON`.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence

import duckdb

from mallard.errors import CorruptData, StorageError
from mallard.event import ARROW_SCHEMA
from mallard.jobs.day_files import write_days, write_merged
from mallard.query.events import rows_of
from mallard.query.rollup import is_true
from mallard.query.rules import affected, apply, read
from mallard.query.sql import Sql, literal
from mallard.query.stored import columns
from mallard.store.part import Derived, Part
from mallard.store.snapshot import Change, Rule, SiteDay, Snapshot
from mallard.store.store import Store

REASON = "erasure"
# In one query: what it costs to plan, and how many files are open at once.
FILES_AT_ONCE = 500

_COLUMNS = columns(ARROW_SCHEMA.names)


@contextlib.contextmanager
def discreet() -> Iterator[None]:
    """Say of DuckDB's errors only what kind they are: their text can quote a rule's values."""
    try:
        yield
    except duckdb.Error as error:
        kind = type(error).__name__
        raise StorageError(f"DuckDB could not read or write what is stored ({kind}).") from None


def could_hold(part: Part, rule: Rule) -> bool:
    """Whether a part can hold events that a rule is about, by what the manifest says of it."""
    return (
        part.first_position <= rule.last_position
        and read(rule).includes(part.date, part.sites)
        # A rule that has not begun does not know its site-days yet.
        and (not rule.affected or any((site, part.date) in rule.affected for site in part.sites))
    )


def count(
    connection: duckdb.DuckDBPyConnection, store: Store, snapshot: Snapshot, rule: Rule
) -> Counter[SiteDay]:
    """Return how many events a rule would drop or change, beside the rules that are active.

    A damaged part is set aside, and not counted.
    """
    counts: Counter[SiteDay] = Counter()
    parts = [part for part in snapshot.parts if could_hold(part, rule)]
    for start in range(0, len(parts), FILES_AT_ONCE):
        some = parts[start : start + FILES_AT_ONCE]
        try:
            found = _counted(connection, store, some, snapshot.rules, rule)
        except duckdb.Error:
            whole = [part for part in some if _is_whole(store, [part])]
            found = _counted(connection, store, whole, snapshot.rules, rule)
        for site_id, date, events in found:
            counts[site_id, date] += events
    return counts


def _counted(
    connection: duckdb.DuckDBPyConnection,
    store: Store,
    parts: Sequence[Part],
    active: Sequence[Rule],
    rule: Rule,
) -> list[tuple[str, str, int]]:
    if not parts:
        return []
    found = affected(apply(rows_of([store.source(part) for part in parts]), active), rule)
    rows: list[tuple[str, str, int]] = connection.execute(
        f"SELECT site_id, timestamp::DATE::VARCHAR, count(*) FROM ({found}) GROUP BY ALL"
    ).fetchall()
    return rows


def holders(connection: duckdb.DuckDBPyConnection, sources: Sequence[str], rule: Rule) -> set[str]:
    """Return which files, by where they are, hold events that a rule would drop or change.

    sources: of parts. One that cannot be read holds some, for all one knows.
    """
    found: set[str] = set()
    for some in _some(sources):
        try:
            found |= _holding(connection, some, rule)
        except duckdb.Error:
            for source in some:
                try:
                    found |= _holding(connection, [source], rule)
                except duckdb.Error:
                    found.add(source)
    return found


def _holding(connection: duckdb.DuckDBPyConnection, sources: Sequence[str], rule: Rule) -> set[str]:
    listed = ", ".join(literal(source) for source in sources)
    events = Sql(
        f"SELECT {_COLUMNS}, filename FROM "
        f"read_parquet([{listed}], hive_partitioning = false, filename = true)"
    )
    rows = connection.execute(f"SELECT DISTINCT filename FROM ({affected(events, rule)})")
    return {source for (source,) in rows.fetchall()}


def unfinished(
    connection: duckdb.DuckDBPyConnection, store: Store, snapshot: Snapshot, rules: Sequence[Rule]
) -> set[str]:
    """Return the locations of the live parts that are not as the rules leave them."""
    found: set[str] = set()
    for rule in rules:
        parts = [part for part in snapshot.parts if could_hold(part, rule)]
        of_source = {store.source(part): part.location for part in parts}
        found |= {of_source[source] for source in holders(connection, list(of_source), rule)}
    return found


def changes(
    connection: duckdb.DuckDBPyConnection,
    store: Store,
    snapshot: Snapshot,
    rules: Sequence[Rule],
    locations: set[str],
) -> Iterator[Change]:
    """Yield the swaps that make parts be as rules leave them; each has its files written already.

    The caller swaps each before it takes the next. A damaged part is set aside and left out.
    Raises StorageError and duckdb.Error; then nothing is left of the swap that was being made.
    """
    for part in snapshot.recent:
        if part.location in locations and _is_whole(store, [part]):
            yield _of_part(connection, store, part, rules)
    for (site_id, date), day in snapshot.days.items():
        parts = day.parts
        if any(part.location in locations for part in parts) and _is_whole(store, parts):
            events = apply(rows_of([store.source(part) for part in parts]), rules)
            added = write_days(store, connection, date, events)
            # As it is now: another of its days may have taken it out already.
            sums = store.snapshot().rollups.get((site_id, date[:7]))
            stale = (sums,) if sums and date in sums.sources else ()
            yield _change(rules, parts, added, stale)


def outdated(snapshot: Snapshot, rule: Rule) -> tuple[Derived, ...]:
    """Return the files of sums that were made of a rule's site-days and are of no use any more."""
    return tuple(
        file
        for file in snapshot.rollups.values()
        for date in file.sources
        if (file.site_id, date) in rule.affected
        and not (
            (day := snapshot.days.get((file.site_id, date))) and is_true(file, date, day.version)
        )
    )


def _of_part(
    connection: duckdb.DuckDBPyConnection, store: Store, part: Part, rules: Sequence[Rule]
) -> Change:
    events = apply(rows_of([store.source(part)]), rules)
    ((left,),) = connection.execute(f"SELECT count(*) FROM ({events})").fetchall()
    added = [write_merged(store, connection, part.date, events)] if left else []
    return _change(rules, [part], added, ())


def _change(
    rules: Sequence[Rule],
    parts: Sequence[Part],
    added: Sequence[Part | Derived],
    stale: tuple[Derived, ...],
) -> Change:
    written = [file for file in added if isinstance(file, Part)]
    return Change(
        REASON,
        added=tuple(added),
        removed=(*parts, *stale),
        lost_rows=sum(part.rows for part in parts) - sum(part.rows for part in written),
        lost_position_sum=sum(part.position_sum for part in parts)
        - sum(part.position_sum for part in written),
        detail={
            "rules": [rule.rule_id for rule in rules],
            "before": {part.location: part.digest for part in parts},
            "after": {part.location: part.digest for part in written},
        },
    )


def _some(sources: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(sources), FILES_AT_ONCE):
        yield sources[start : start + FILES_AT_ONCE]


def _is_whole(store: Store, parts: Sequence[Part]) -> bool:
    """Check what is about to be read; a damaged part would spread its damage, and is set aside."""
    try:
        for part in parts:
            store.check(part)
    except CorruptData:
        return False
    return True
