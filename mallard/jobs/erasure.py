"""Drops or changes events after they were stored: at once for every read, then on disk for good.

A rule begins with one commit of the manifest; from then on reads apply it. After a grace, in which
it can be cancelled, a job writes the parts anew. A rule that drops events is over once nothing of
them is on disk: not in parts, derived files, what was kept of dropped days, the log or the
database. Then a receipt stays, which says what was done and nothing of whom it was about.
Invariants: whatever step fails, the rule is active and tried again, or over. An event that came in
after the rule's last position is not touched. Rules that are rewritten together, or before an older
one that waits, do not depend on each other's order.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import orjson

from mallard.buffer.buffer import Buffer
from mallard.clock import Clock
from mallard.config import ErasureConfig, StoreConfig
from mallard.errors import InvalidInput, NotFound, StorageError
from mallard.files import Files
from mallard.jobs.database import SPILLED, connect
from mallard.jobs.flush import Flusher
from mallard.jobs.receipt import COMPLETED, Terms, completed, receipt_of, rule_text, terms_of
from mallard.jobs.rewriting import (
    REASON,
    changes,
    could_hold,
    count,
    discreet,
    holders,
    outdated,
    unfinished,
)
from mallard.query.rules import Definition, check_expressions, commute, read
from mallard.store.part import Derived, Part
from mallard.store.partition import QUARANTINE
from mallard.store.snapshot import Change, Retired, Rule, SiteDay
from mallard.store.store import Store

DISCARDED = "damaged discarded"  # what history says when damaged files are given up
RULES_MAX = 100  # active at once: each is part of every query
RULE_BYTES_MAX = 4 * 1024 * 1024
# A rule whose end waits is looked at again so many times at once, and then ever later: each time
# what is stored of its site-days is read.
PROMPT_TRIES = 5
RETRY_SECONDS_MAX = 60.0


@dataclass(frozen=True, slots=True)
class Preview:
    """What a rule would do: how many events of each site-day. kept: site-days that were dropped
    and whose bytes are still kept, of which it would remove the files that hold such events.
    """

    counts: Mapping[SiteDay, int]
    kept: Sequence[SiteDay]


class Erasure:
    """Begins rules, cancels them, and makes them true on disk; any thread may call it."""

    def __init__(
        self,
        config: ErasureConfig,
        work: StoreConfig,
        data: Path,
        files: Files,
        store: Store,
        buffer: Buffer,
        flusher: Flusher,
        clock: Clock,
    ) -> None:
        """Begin with what the store says of rules; work: what DuckDB may use."""
        self._config = config
        self._work = work
        self._data = data
        self._files = files
        self._store = store
        self._buffer = buffer
        self._flusher = flusher
        self._clock = clock
        self._deciding = threading.Lock()  # over which rules there are, and which are claimed
        self._running = threading.Lock()
        self._claimed: frozenset[str] = frozenset()  # rules whose parts may be rewritten already
        self._waits: dict[str, str] = {}  # by rule, what its end waits for
        self._tries: Counter[str] = Counter()
        self._retry_at: dict[str, float] = {}
        self._spilled_before: dict[str, set[tuple[str, int]]] = {}
        self._stopping = False
        self._connections: set[duckdb.DuckDBPyConnection] = set()
        self._incomplete = True  # whether a receipt may be so; found out by the first run

    # --- what people ask for ---

    def preview(self, definition: Definition) -> Preview:
        """Return what a rule would do now; raises StorageError."""
        return self._examine(definition)[0]

    def begin(self, definition: Definition, *, grace_seconds: float | None = None) -> str:
        """Make a rule active, for every event until now, and return its id.

        grace_seconds: how long it can be cancelled; None for what is configured. Raises
        InvalidInput when there are too many, and StorageError; then there is no such rule.
        """
        with self._deciding:
            if len(self._store.snapshot().rules) >= RULES_MAX:
                raise InvalidInput(f"{RULES_MAX} rules are active; wait until one is done.")
            requested_at = self._clock.now_us()
            preview, days, watermark = self._examine(definition)
            # Rules apply in the order of their time, whatever the clock does.
            latest = max((rule.created_at for rule in self._store.snapshot().rules), default=0)
            now = max(self._clock.now_us(), latest + 1)
            grace = self._config.grace_seconds if grace_seconds is None else grace_seconds
            terms = Terms(
                secrets.token_hex(16),
                requested_at,
                now + int(grace * 1e6),
                tuple((site, date, events) for (site, date), events in preview.counts.items()),
            )
            rule = Rule(
                secrets.token_hex(6), now, watermark, rule_text(definition, terms), frozenset()
            )
            if len(rule.definition) > RULE_BYTES_MAX:
                raise InvalidInput("This rule is too long; each query would have to read it.")
            # What is damaged may come back, and then hold what is meant.
            damaged = [
                part for part, _ in self._store.snapshot().quarantined if could_hold(part, rule)
            ]
            days |= {day for each in damaged for day in _days(each)}
            rule = replace(rule, affected=frozenset(days))
            self._store.swap(Change("rule", rules_added=(rule,), detail={"rule": rule.rule_id}))
        return rule.rule_id

    def cancel(self, rule_id: str) -> None:
        """End a rule as if it had never been; raises NotFound, and InvalidInput when it is late."""
        with self._deciding:
            rules = {rule.rule_id for rule in self._store.snapshot().rules}
            if rule_id not in rules:
                raise NotFound(f"No rule {rule_id} is active.")
            if rule_id in self._claimed or self._is_begun(rule_id):
                raise InvalidInput(f"{rule_id} is being made physical; it cannot be cancelled.")
            self._store.swap(
                Change("rule cancelled", rules_removed=(rule_id,), detail={"rule": rule_id})
            )
        self._incomplete = True

    def discard(self, rule_id: str) -> int:
        """Give up the damaged files that a rule waits for; return how many events were in them.

        They and their bytes go with the rule's end, and its receipt names them. Raises NotFound,
        InvalidInput when it waits for none, and StorageError.
        """
        with self._deciding:
            snapshot = self._store.snapshot()
            rules = [rule for rule in snapshot.rules if rule.rule_id == rule_id]
            if not rules:
                raise NotFound(f"No rule {rule_id} is active.")
            damaged = [part for part, _ in snapshot.quarantined if could_hold(part, rules[0])]
            if not damaged:
                raise InvalidInput(f"{rule_id} waits for no damaged file.")
            rows = sum(part.rows for part in damaged)
            self._store.swap(
                Change(
                    DISCARDED,
                    removed=tuple(damaged),
                    lost_rows=rows,
                    lost_position_sum=sum(part.position_sum for part in damaged),
                    detail={
                        "rules": [rule_id],
                        "before": {part.location: part.digest for part in damaged},
                        "after": {},
                        "discarded": {part.location: part.rows for part in damaged},
                    },
                )
            )
            self._retry_at.pop(rule_id, None)
        return rows

    def status(self) -> list[dict[str, Any]]:
        """Return the active rules, the oldest first, without any value of theirs.

        Instants are microseconds; waits_for is "" while nothing keeps a rule from its end.
        """
        return [
            {
                "rule": rule.rule_id,
                "about": read(rule).words,
                "action": "drop" if read(rule).drops else "replace",
                "events": terms_of(rule).events,
                "created_at": rule.created_at,
                "rewrite_at": terms_of(rule).rewrite_at,
                "waits_for": self._waits.get(rule.rule_id, ""),
            }
            for rule in self._store.snapshot().rules
        ]

    @property
    def problems(self) -> list[str]:
        """What keeps rules from their end for long, a sentence each."""
        late = [each for each, tries in self._tries.items() if tries > PROMPT_TRIES]
        return [f"the erasure {each} waits for {self._waits.get(each, '')}" for each in late]

    def receipts(self) -> list[dict[str, Any]]:
        """Return the receipts, the oldest first; one without completed_at is nearly so."""
        return list(self._store.receipts().values())

    # --- the job ---

    def interrupt(self) -> None:
        """End what is under way, which goes on at the next start; call it until `run` has ended."""
        self._stopping = True
        for connection in tuple(self._connections):
            with contextlib.suppress(duckdb.Error):  # it was closed in this moment
                connection.interrupt()

    def run(self) -> None:
        """Rewrite what is due, and end the rules that nothing is left of.

        Raises StorageError; the next run goes on where this one ended.
        """
        with self._running:
            try:
                self._complete_receipts()
                if batch := self._claim():
                    self._rewrite(batch)
                    for rule in batch:
                        self._end(rule)
                    self._complete_receipts()
            except StorageError:
                if not self._stopping:
                    raise
            finally:
                self._claimed = frozenset()

    def _claim(self) -> tuple[Rule, ...]:
        """Return the rules whose grace is over and that need not wait for an older one."""
        with self._deciding:
            rules, now = self._store.snapshot().rules, self._clock.now_us()
            monotonic = self._clock.monotonic()
            batch = tuple(
                rule
                for number, rule in enumerate(rules)
                if terms_of(rule).rewrite_at <= now
                and self._retry_at.get(rule.rule_id, 0.0) <= monotonic
                and all(commute(read(older), read(rule)) for older in rules[:number])
            )
            self._claimed = frozenset(rule.rule_id for rule in batch)
        return batch

    def _is_begun(self, rule_id: str) -> bool:
        return any(
            rule_id in version.detail.get("rules", ())
            for version in self._store.history()
            if version.reason == REASON
        )

    def _rewrite(self, batch: Sequence[Rule]) -> None:
        with self._store.reading() as snapshot, self._connect() as connection:
            left = unfinished(connection, self._store, snapshot, batch)
            for change in changes(connection, self._store, snapshot, batch, left):
                if self._stopping:
                    self._store.discard(change.added)
                    return
                self._store.swap(change)

    def _end(self, rule: Rule) -> None:
        """End a rule that nothing is left to do for; else note what it waits for."""
        waits_for = self._parts_left(rule)
        not_searched: list[str] = []
        if not waits_for and read(rule).drops:
            waits_for = self._kept_left(rule) or self._log_left(rule) or self._spilled_left(rule)
            not_searched = [f"{QUARANTINE}/{name}" for name in self._quarantined_names()]
        self._waits[rule.rule_id] = waits_for
        if waits_for:
            self._put_off(rule.rule_id)
            return
        receipt = receipt_of(rule, self._store.history(), not_searched)
        self._store.swap(
            Change(
                "rule done",
                rules_removed=(rule.rule_id,),
                receipts={rule.rule_id: orjson.dumps(receipt).decode()},
                detail={"rule": rule.rule_id},
            )
        )
        for kept in (self._waits, self._tries, self._retry_at):
            kept.pop(rule.rule_id, None)
        self._spilled_before.pop(rule.rule_id, None)
        self._incomplete = True

    def _put_off(self, rule_id: str) -> None:
        self._tries[rule_id] += 1
        late = self._tries[rule_id] - PROMPT_TRIES
        seconds = min(RETRY_SECONDS_MAX, 2.0**late) if late > 0 else 0.0
        self._retry_at[rule_id] = self._clock.monotonic() + seconds

    def _parts_left(self, rule: Rule) -> str:
        with self._store.reading() as snapshot, self._connect() as connection:
            left = unfinished(connection, self._store, snapshot, [rule])
            damaged = [part for part, _ in snapshot.quarantined if could_hold(part, rule)]
        if left:
            return f"{len(left)} files to be rewritten"
        if damaged:
            return (
                f"{len(damaged)} damaged files that nobody can search ({damaged[0].location}): "
                "put them back from a backup and start the server again, or give their events up "
                f"with `mallard erasures discard {rule.rule_id}`"
            )
        return ""

    def _kept_left(self, rule: Rule) -> str:
        """Let go of the bytes that are still kept of removed files and hold what the rule drops."""
        if stale := outdated(self._store.snapshot(), rule):
            self._store.swap(
                Change("rollup", removed=tuple({each.location: each for each in stale}.values()))
            )
        with self._connect() as connection:
            kept = self._kept(connection, rule)
        if not kept:
            return ""
        self._store.expire(kept)
        self._store.sweep(hurry=True)
        gone = {each.file.location for each in kept}
        left = [each for each in self._store.retired() if each.file.location in gone]
        return f"{len(left)} files that are still being read" if left else ""

    def _kept(self, connection: duckdb.DuckDBPyConnection, rule: Rule) -> list[Retired]:
        """Return the retired files that hold events a rule drops."""
        retired = self._store.retired()
        of_source = {
            source: each
            for each in retired
            if isinstance(each.file, Part)
            and could_hold(each.file, rule)
            and (source := self._store.source_of_retired(each))
        }
        kept = [of_source[source] for source in holders(connection, list(of_source), rule)]
        days = rule.affected | {day for each in kept for day in _days(each.file)}
        # What nobody could read is in none of them; it goes all the same.
        kept += [
            each for each in of_source.values() if each.reason == DISCARDED and each not in kept
        ]
        derived = [each for each in retired if isinstance(each.file, Derived)]
        return kept + [each for each in derived if days & set(_days(each.file))]

    def _log_left(self, rule: Rule) -> str:
        """Have the log go on in a segment that holds no event of the rule's time."""
        first = self._buffer.wal.first_position
        if first is None or first > rule.last_position:
            self._buffer.sync_removals()
            return ""
        self._flusher.flush()
        self._buffer.roll(self._store.snapshot().watermark)
        return "the log to be rid of what is in parts"

    def _spilled_left(self, rule: Rule) -> str:
        """Wait for the end of what DuckDB had spilled when the files were gone."""
        now = self._spilled()
        before = self._spilled_before.setdefault(rule.rule_id, now)
        return "queries that were under way" if before & now else ""

    def _spilled(self) -> set[tuple[str, int]]:
        """Return what is in DuckDB's folders now; a name that comes again is another file."""
        folder = self._data / SPILLED
        found: set[tuple[str, int]] = set()
        for name in self._files.tree(folder):
            with contextlib.suppress(FileNotFoundError):
                found.add((name, (folder / name).stat().st_ino))
        return found

    def _quarantined_names(self) -> list[str]:
        return self._files.names(self._data / QUARANTINE)

    def _complete_receipts(self) -> None:
        """Say of a receipt that it is complete, once the rule's own bytes are gone as well."""
        if not self._incomplete or not self._store.forget_deleted():
            return
        open_ = {
            rule_id: receipt
            for rule_id, receipt in self._store.receipts().items()
            if receipt[COMPLETED] is None
        }
        if open_:
            now = self._clock.now_us()
            texts = {rule_id: completed(receipt, now) for rule_id, receipt in open_.items()}
            detail = {"rules_completed": sorted(texts)}
            self._store.swap(Change("receipt", receipts=texts, detail=detail))
        self._incomplete = False

    def _examine(self, definition: Definition) -> tuple[Preview, set[SiteDay], int]:
        """Return what a rule would do to the events until now, where, and the last one's position.

        The site-days are also those of files that are to be removed and are not yet.
        """
        self._flusher.flush()
        unbound = Terms("", 0, 0, ())
        with self._store.reading() as snapshot, self._connect() as connection:
            check_expressions(connection, definition)
            text = rule_text(definition, unbound)
            rule = Rule("", 0, snapshot.watermark, text, frozenset())
            counts = count(connection, self._store, snapshot, rule)
            kept = self._kept(connection, rule) if definition.drops else []
        now = self._clock.now_us()
        parts = [each for each in kept if isinstance(each.file, Part)]
        lasting = {day for each in parts if each.remove_at > now for day in _days(each.file)}
        days = {*counts, *(day for each in parts for day in _days(each.file))}
        preview = Preview(dict(sorted(counts.items())), sorted(lasting))
        return preview, days, snapshot.watermark

    @contextlib.contextmanager
    def _connect(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with discreet(), connect(self._work, self._data) as connection:
            self._connections.add(connection)
            try:
                yield connection
            except RuntimeError as error:  # is how DuckDB says that it was interrupted
                if self._stopping:
                    raise StorageError("The server is stopping.") from error
                raise
            finally:
                self._connections.discard(connection)


def _days(file: Part | Derived) -> list[SiteDay]:
    if isinstance(file, Part):
        return [(site_id, file.date) for site_id in file.sites]
    return [(file.site_id, date) for date in file.sources]
