"""Proposes rules that make history what today's lists would have made of it.

Invariant: a proposal changes nothing; `Erasure.begin` does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from mallard.config import StoreConfig
from mallard.jobs.database import connect
from mallard.jobs.flush import Flusher
from mallard.jobs.rewriting import discreet
from mallard.query.events import rows_of
from mallard.query.rules import MAPPED_MAX, VALUES_MAX, Condition, Definition, Row, apply
from mallard.query.sql import Sql, name
from mallard.store.store import Store

FETCH_ROWS = 10_000


class Limits(NamedTuple):
    """What to stay within, as in `Definition`."""

    site_id: str | None = None
    first_date: str | None = None
    last_date: str | None = None


EVERYTHING = Limits()


class Judge(Protocol):
    """What today's lists say; `ingest.hindsight.Hindsight` is one."""

    def is_spam(self, referrer: str) -> bool:
        """Whether a referrer is of a blocked host."""

    def is_bot(self, browser: str) -> bool:
        """Whether a browser's name is a bot's."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A rule, None when nothing would change, and what it would do: (what, events), most first.

    left: events that it leaves to another one, which is proposed once this one is active.
    """

    definition: Definition | None
    changes: list[tuple[str, int]] = field(default_factory=list)
    left: int = 0


class Reclassification:
    """Looks through what is stored; any thread may call it."""

    def __init__(
        self,
        work: StoreConfig,
        data: Path,
        store: Store,
        flusher: Flusher,
        judge: Judge,
        attribute: Callable[..., tuple[str | None, str]],
        attributed_by: Sequence[str],
    ) -> None:
        """Judge by today's lists.

        attribute: a visit's source and channel, of the columns attributed_by, each a text or None.
        """
        self._work = work
        self._data = data
        self._store = store
        self._flusher = flusher
        self._judge = judge
        self._attribute = attribute
        self._attributed_by = tuple(attributed_by)

    def sources(self, limits: Limits = EVERYTHING) -> Proposal:
        """Propose today's source and channel for each event that has others.

        Raises InvalidInput for limits that are none, and StorageError.
        """
        keys = (*self._attributed_by, "channel")
        columns = ("referrer_source", "channel")
        at = keys.index("referrer_source")
        mapping: dict[Row, Row] = {}
        found: Counter[Row] = Counter()
        # Events of doors that know no channel stay without one.
        for *row, events in self._found(keys, Sql("channel IS NOT NULL"), limits):
            *known, channel = row
            new = self._attribute(*known)
            if new != (known[at], channel):
                mapping[tuple(row)] = new
                found[tuple(row)] = events
        if not mapping:
            return Proposal(None)
        changes: Counter[str] = Counter()
        taken = {key: mapping[key] for key, _ in found.most_common(MAPPED_MAX)}
        for key, (source, channel) in taken.items():
            old = f"{key[at] or 'no source'} ({key[-1]})"
            changes[f"{old} becomes {source or 'no source'} ({channel})"] += found[key]
        definition = Definition(*limits, keys=keys, columns=columns, mapping=taken)
        left = found.total() - changes.total()
        return Proposal(definition, changes.most_common(), left)

    def spam(self, limits: Limits = EVERYTHING) -> Proposal:
        """Propose to drop what comes from referrers that are blocked now; see `sources`."""
        return self._drop("referrer", self._judge.is_spam, limits)

    def bots(self, limits: Limits = EVERYTHING) -> Proposal:
        """Propose to drop what comes from bots; see `sources`.

        The User-Agent is not stored: only bots that go by a browser's name of their own are found.
        """
        return self._drop("browser", self._judge.is_bot, limits)

    def _drop(self, column: str, judge: Callable[[str], bool], limits: Limits) -> Proposal:
        changes: Counter[str] = Counter()
        for value, events in self._found((column,), Sql(f"{name(column)} IS NOT NULL"), limits):
            if judge(value):
                changes[value] += events
        if not changes:
            return Proposal(None)
        taken = changes.most_common(VALUES_MAX)
        condition = Condition(column, "is", tuple(value for value, _ in taken))
        left = changes.total() - sum(events for _, events in taken)
        return Proposal(Definition(*limits, conditions=(condition,)), taken, left)

    def _found(
        self, columns: Sequence[str], where: Sql, limits: Limits
    ) -> Iterator[tuple[Any, ...]]:
        """Yield each combination of values that is stored, and how many events have it."""
        self._flusher.flush()
        listed = ", ".join(map(name, columns))
        with (
            discreet(),
            self._store.reading() as snapshot,
            connect(self._work, self._data) as connection,
        ):
            sources = [self._store.source(part) for part in snapshot.parts]
            if not sources:
                return
            within = Definition(*limits).where if any(limits) else Sql("true")
            found = connection.execute(
                f"SELECT {listed}, count(*) FROM ({apply(rows_of(sources), snapshot.rules)}) "
                f"WHERE {where} AND {within} GROUP BY ALL"
            )
            while rows := found.fetchmany(FETCH_ROWS):
                yield from rows
