"""Reports that are made once: to the same question of the same days the same answer is given again.

Such a report hangs on nothing but its question and what there is of the UTC days that its period
touches. Questions are hashable and say all that is asked. Answers can be pickled; who is given one
shares it with others, and does not change it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import wraps
from typing import Any, Protocol, TypeVar, cast

from mallard.query.answers import Answers, Asked
from mallard.query.engine import Session
from mallard.query.reports.chosen import Choice

Report = TypeVar("Report", bound=Callable[..., Any])


class Choosing(Protocol):
    """A question about chosen events."""

    @property
    def choice(self) -> Choice:
        """Which they are."""


def of_choice(question: Choosing) -> Asked:
    """Return whose days a question about chosen events is about."""
    return question.choice


def made_once(days: Callable[[Any], Asked]) -> Callable[[Report], Report]:
    """Return what makes of a report one whose answers are kept.

    A report gets a session, answers, a question, and more that is hashable too. days: returns whose
    days a question is about.
    """

    def of(report: Report) -> Report:
        @wraps(report)
        def asked(session: Session, answers: Answers, question: Any, **more: Hashable) -> Any:
            key = report.__name__, question, tuple(sorted(more.items()))
            return answers.answer(
                session,
                days(question),
                key,
                lambda at_once: report(session, at_once, question, **more),
            )

        return cast(Report, asked)

    return of
