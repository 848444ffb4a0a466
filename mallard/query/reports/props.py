"""Which properties a site's events have. What values one has is a breakdown by it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mallard.query.answers import Answers
from mallard.query.engine import Session
from mallard.query.reports.chosen import DONE, Choice, chosen
from mallard.query.sql import Sql


@dataclass(frozen=True, slots=True)
class PropsQuestion:
    """Of which events, and which page of rows."""

    choice: Choice
    limit: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Key:
    """A property: how many events have it, and how many visitors did any of these."""

    key: str
    visitors: int
    events: int


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys asked for, and how many there are in all."""

    rows: list[Key]
    total_rows: int


def props(session: Session, answers: Answers, question: PropsQuestion) -> Keys:
    """Return the keys of properties, those of most events first."""
    found = _page(session, answers, question)
    if question.offset and not found.rows:
        first = _page(session, answers, replace(question, offset=0, limit=1))
        return Keys([], first.total_rows)
    return found


def _page(session: Session, answers: Answers, question: PropsQuestion) -> Keys:
    with chosen(session, answers, question.choice) as found:
        rows = session.rows(
            Sql(f"""
            SELECT key, count(DISTINCT (date, visitor_id)) FILTER (visitor_id IS NOT NULL),
                count(*) AS events, count(*) OVER () AS total_rows
            FROM (
                SELECT unnest(json_keys(props)) AS key, timestamp::DATE AS date, visitor_id
                FROM ({found.events}) WHERE props IS NOT NULL AND {DONE}
            )
            GROUP BY key ORDER BY events DESC, key
            LIMIT {int(question.limit)} OFFSET {int(question.offset)}""")
        )
    return Keys([Key(*row[:-1]) for row in rows], rows[0][-1] if rows else 0)
