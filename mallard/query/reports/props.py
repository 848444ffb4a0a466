"""Which properties a site's events have. What values one has is a breakdown by it."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from mallard.query.answers import Answers
from mallard.query.engine import Session
from mallard.query.reports.chosen import DONE, Choice
from mallard.query.reports.daily import EVENTS, added
from mallard.query.reports.given import made_once, of_choice
from mallard.query.sql import Sql

_NUMBERS = {"visitors": pa.int64(), "events": pa.int64()}
_COUNTED = Sql(f"""
    SELECT date, key, count(DISTINCT visitor_id) AS visitors, count(*) AS events
    FROM (
        SELECT timestamp::DATE AS date, visitor_id, unnest(json_keys(props)) AS key
        FROM ({EVENTS}) WHERE props IS NOT NULL AND {DONE}
    )
    GROUP BY date, key""")


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


@made_once(of_choice)
def props(session: Session, answers: Answers, question: PropsQuestion) -> Keys:
    """Return the keys of properties, those of most events first."""
    sums = added(session, answers, question.choice, _COUNTED, {"key": pa.string()}, _NUMBERS)
    rows = session.rows(
        Sql(f"""
        SELECT key, visitors, events FROM {sums} ORDER BY events DESC, key
        LIMIT {int(question.limit)} OFFSET {int(question.offset)}""")
    )
    ((total,),) = session.rows(Sql(f"SELECT count(*) FROM {sums}"))
    return Keys([Key(*row) for row in rows], total)
