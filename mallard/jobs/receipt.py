"""What stays of a rule: while it is active its terms, and when it is over a receipt.

The receipt says what was done, when, to how many events and in which files. Whom it was about it
says in words that are nobody's (`Definition.words`) and as a SHA-256: who knows the id can prove
that the receipt is about it, `sha256(salt + ":" + id)`, and nobody can read the id from it. A short
or guessable id can be found by trying; the receipt is for the operator's own records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from mallard.errors import CorruptData
from mallard.query.rules import Definition, read
from mallard.store.manifest import Version
from mallard.store.snapshot import Rule

COMPLETED = "completed_at"
# What no server can look into.
_NEVER_REACHED = (
    "backups made before completed_at, and whatever was exported or copied out of the data folder",
    "blocks that the file system has freed and not yet used again",
)


@dataclass(frozen=True, slots=True)
class Terms:
    """What a rule was agreed on with.

    salt: of the receipt's SHA-256. requested_at, rewrite_at: in microseconds; until the latter it
    is a filter alone, and can be cancelled. counts: (site, date, events) it meant when it began.
    """

    salt: str
    requested_at: int
    rewrite_at: int
    counts: tuple[tuple[str, str, int], ...]

    @property
    def events(self) -> int:
        """How many events it meant when it began."""
        return sum(events for _, _, events in self.counts)


def rule_text(definition: Definition, terms: Terms) -> str:
    """Return what the manifest keeps as a rule's definition."""
    return orjson.dumps(
        {
            "rule": definition.to_json(),
            "salt": terms.salt,
            "requested_at": terms.requested_at,
            "rewrite_at": terms.rewrite_at,
            "counts": terms.counts,
        }
    ).decode()


def terms_of(rule: Rule) -> Terms:
    """Return the terms of a rule of the manifest; raises CorruptData when they cannot be read."""
    try:
        kept = orjson.loads(rule.definition)
        return Terms(
            kept["salt"],
            kept["requested_at"],
            kept["rewrite_at"],
            tuple((site_id, date, events) for site_id, date, events in kept["counts"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptData(f"The rule {rule.rule_id} cannot be read.") from error


def receipt_of(
    rule: Rule, history: Sequence[Version], not_searched: Sequence[str]
) -> dict[str, Any]:
    """Return the receipt of a rule whose parts are rewritten; it is not complete yet.

    history: the store's; of it, the versions that name the rule. not_searched: files of the data
    folder that nobody could look into.
    """
    definition, terms = read(rule), terms_of(rule)
    done = [each.detail for each in history if rule.rule_id in each.detail.get("rules", ())]
    return {
        "rule": rule.rule_id,
        "action": "drop" if definition.drops else "replace",
        "about": definition.words,
        "salt": terms.salt,
        "sha256": definition.digest(terms.salt),
        "up_to_position": rule.last_position,
        "requested_at": _written(terms.requested_at),
        "applied_at": _written(rule.created_at),
        COMPLETED: None,
        "events": terms.events,
        "counts": [
            {"site_id": site_id, "date": date, "events": events}
            for site_id, date, events in terms.counts
        ],
        "files_before": _merged(done, "before"),
        "files_after": _merged(done, "after"),
        # Damaged files that were given up with all of their events, whosever they were.
        "discarded": _merged(done, "discarded"),
        "not_searched": list(not_searched),
        "not_reached": list(_NEVER_REACHED),
    }


def completed(receipt: Mapping[str, Any], at_us: int) -> str:
    """Return the JSON text of a receipt that is complete."""
    return orjson.dumps({**receipt, COMPLETED: _written(at_us)}).decode()


def _merged(details: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
    """Return what details say of each file by a name, by location."""
    return {file: said for detail in details for file, said in detail.get(name, {}).items()}


def _written(at_us: int) -> str:
    return datetime.fromtimestamp(at_us / 1e6, UTC).isoformat(timespec="seconds")
