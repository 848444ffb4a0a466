"""The views of the shells, `events` and `sessions`, over a snapshot's files and maybe a log's tail.

A connection's variables list the files, and the views read what they list. A site-day's visits are
read from its file where that says what its events say, and computed from its events otherwise.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import Enum

from mallard.event import ARROW_SCHEMA, Event
from mallard.query.rules import apply
from mallard.query.sessions import SESSION_SCHEMA, SESSIONS_VERSION, annotated, visits
from mallard.query.sql import Sql
from mallard.query.stored import columns
from mallard.store import partition
from mallard.store.part import Derived, Part
from mallard.store.snapshot import Day, Rule, SiteDay, Snapshot

# A UUIDv7 of the milliseconds of `timestamp`, 12 bits of node, and the position in 62 bits.
# Not epoch_ms(): it rounds, and the last moment of a day must not name the next one.
_EVENT_ID = "printf('%012x7%03x8%015x', epoch_us(timestamp) // 1000, node::BIGINT, position)::UUID"
# An instant that equals `timestamp` is not stored.
_RESTORED = {"received_at": "coalesce(received_at, timestamp)"}
_COLUMNS = ", ".join(
    [
        f"{_EVENT_ID} AS event_id",
        "position",
        "loaded_at",
        *(f"{_RESTORED[name]} AS {name}" if name in _RESTORED else name for name in Event._fields),
    ]
)
_STORED = columns(ARROW_SCHEMA.names)
_IN_TAIL = ", ".join(ARROW_SCHEMA.names)
_VISIT = ", ".join(SESSION_SCHEMA.names)
# The folders say site and date; a condition on these then opens the files it is about alone.
_BY_FOLDER = "hive_partitioning = true, hive_types = {'site_id': VARCHAR, 'date': DATE}"


class Listed(Enum):
    """A list of files; its value is the variable that holds it."""

    # Parts of level 1 whose folders name their site.
    COMPACTED = "mallard_compacted"
    # All other parts.
    LOOSE = "mallard_loose"
    # The visits of settled site-days.
    VISITS = "mallard_visits"
    # The parts of all other site-days.
    OPEN = "mallard_open"

    @property
    def files(self) -> Sql:
        """What read_parquet is given."""
        return Sql(f"getvariable('{self.value}')")


def unsettled(snapshot: Snapshot, more: Collection[SiteDay] = ()) -> set[SiteDay]:
    """Return the compacted site-days whose files of level 1 do not say all.

    more: site-days that have events elsewhere, as in the log.
    """
    days = set(more)
    for part in snapshot.recent:
        days.update((site_id, part.date) for site_id in part.sites)
    for rule in snapshot.rules:
        days |= rule.affected
    return days & snapshot.days.keys()


def names_of_folders(sites: Iterable[str]) -> Mapping[str, bool]:
    """Return of each site whether its folders name it."""
    return {site_id: partition.is_named(site_id) for site_id in set(sites)}


def kept_visits(day: Day, *, named: bool) -> Derived | None:
    """Return the file that a site-day's visits are read from, if it is settled; None without one.

    named: whether its site's folders name it.
    """
    found = day.sessions
    return found if named and found and found.format == SESSIONS_VERSION else None


def list_files(
    snapshot: Snapshot, more: Collection[SiteDay] = (), as_of_us: int | None = None
) -> Mapping[Listed, Sequence[Part | Derived]]:
    """Return the files that each view reads of a snapshot; more: see `unsettled`.

    as_of_us: see `views`; what came later may not have a say in any visit.
    """
    left = unsettled(snapshot, more)
    lists: dict[Listed, list[Part | Derived]] = {
        Listed.COMPACTED: [],
        Listed.LOOSE: list(snapshot.recent),
        Listed.VISITS: [],
        Listed.OPEN: list(snapshot.recent),
    }
    named = names_of_folders(site_id for site_id, _ in snapshot.days)
    for key, day in snapshot.days.items():
        is_named = named[key[0]]
        lists[Listed.COMPACTED if is_named else Listed.LOOSE].extend(day.parts)
        found = kept_visits(day, named=is_named)
        if found and key not in left and day.is_as_of(as_of_us):
            lists[Listed.VISITS].append(found)
        else:
            lists[Listed.OPEN].extend(day.parts)
    return lists


def views(
    filled: Collection[Listed],
    rules: Sequence[Rule],
    *,
    tail: bool,
    as_of_us: int | None = None,
) -> list[Sql]:
    """Return the statements that make the views.

    filled: the variables that list any file at all; they must be set. rules: a snapshot's; they are
    about what is in parts, and never about the tail. tail: whether there is a relation `tail` of
    events that are not in parts. Of tail, LOOSE and OPEN the views need one each. as_of_us: an
    instant, to see what was stored then; None for now.
    """
    compacted = Sql(f"SELECT {_STORED} FROM read_parquet({Listed.COMPACTED.files}, {_BY_FOLDER})")
    parts = [compacted] if Listed.COMPACTED in filled else []
    if Listed.LOOSE in filled:
        parts.append(_read_loose(Listed.LOOSE))
    open_parts = [_read_loose(Listed.OPEN)] if Listed.OPEN in filled else []
    computed = visits(annotated(_as_of(_with_tail(open_parts, rules, tail=tail), as_of_us)))
    sessions = Sql(f"SELECT {_VISIT} FROM ({computed})")
    if Listed.VISITS in filled:
        kept = f"SELECT {_VISIT} FROM read_parquet({Listed.VISITS.files}, {_BY_FOLDER})"
        sessions = Sql(f"{kept} UNION ALL {sessions}")
    stored = _as_of(_with_tail(parts, rules, tail=tail), as_of_us)
    return [
        Sql(f"CREATE OR REPLACE VIEW events AS {as_events(stored)}"),
        Sql(f"CREATE OR REPLACE VIEW sessions AS {sessions}"),
    ]


def as_events(stored: Sql) -> Sql:
    """Return a query for events of `ARROW_SCHEMA` with the columns of the view `events`."""
    return Sql(f"SELECT {_COLUMNS} FROM ({stored})")


def _as_of(events: Sql, as_of_us: int | None) -> Sql:
    if as_of_us is None:
        return events
    return Sql(f"SELECT * FROM ({events}) WHERE epoch_us(loaded_at) <= {int(as_of_us)}")


def _read_loose(files: Listed) -> Sql:
    return Sql(f"SELECT {_STORED} FROM read_parquet({files.files}, hive_partitioning = false)")


def _with_tail(parts: Sequence[Sql], rules: Sequence[Rule], *, tail: bool) -> Sql:
    queries = [apply(Sql(" UNION ALL ".join(parts)), rules)] if parts else []
    if tail:
        queries.append(Sql(f"SELECT {_IN_TAIL} FROM tail"))
    return Sql(" UNION ALL ".join(queries))
