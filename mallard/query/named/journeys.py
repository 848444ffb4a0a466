"""Journeys: where visits go from a place or come from, and the paths that they begin with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from mallard.errors import InvalidInput
from mallard.query.answers import Answers
from mallard.query.engine import Session
from mallard.query.named.asking import PAGED, Asked, Asking, Found, Page
from mallard.query.named.columns import Column, Kind, Row, columns
from mallard.query.named.parameters import ROWS_MAX, number, word
from mallard.query.reports.chosen import percent
from mallard.query.reports.journeys import (
    STEPS_MAX,
    Direction,
    Flow,
    FlowsQuestion,
    Path,
    PathsQuestion,
    flows,
    paths,
)
from mallard.query.reports.steps import read_step

OF_JOURNEYS = (*PAGED, "of", "direction", "steps")
STEPS = 3
_COUNTS = (*columns(Kind.WHOLE, "visits", "visitors"), Column("share", Kind.NUMBER))


def journeys(asking: Asking) -> Asked:
    """The ways from a place, or the paths that visits begin with."""
    given, choice = asking.given, asking.choice()
    steps = number(given, "steps", STEPS, 1, STEPS_MAX)
    page = asking.page()
    if "of" in given:
        return _flows(asking, steps)
    if "direction" in given:
        raise InvalidInput(
            "A direction is from a place.", field="direction", rule="with of=page:/pricing"
        )

    def of(*, is_whole: bool) -> Asked:
        def answered(session: Session, answers: Answers, page: Page) -> Found:
            question = PathsQuestion(choice, steps, page.limit, page.offset, is_whole)
            found = paths(session, answers, question)
            return Found([_path_row(each) for each in found], count=len(found))

        told = (Column("path", Kind.TEXTS), *_COUNTS)
        return Asked(choice.period, told, answered, page, ROWS_MAX)

    return replace(of(is_whole=False), parts=lambda: (of(is_whole=True),))


def _flows(asking: Asking, steps: int) -> Asked:
    given, choice = asking.given, asking.choice()
    if "offset" in given:
        raise InvalidInput("Flows have no pages.", field="offset", rule="limit alone")
    place = read_step(given["of"], asking.context, "of")
    direction = Direction(word(given, "direction", tuple(Direction), Direction.AFTER))
    head = {"of": place.label, "direction": direction}

    told = (Column("step", Kind.WHOLE), *columns(Kind.TEXT, "from", "to"), *_COUNTS)

    def of(only: int | None) -> Asked:
        def answered(session: Session, answers: Answers, page: Page) -> Found:
            question = FlowsQuestion(
                choice, place.keep, direction, steps, page.limit, page.offset, only
            )
            found = flows(session, answers, question)
            return Found([_flow_row(direction, each) for each in found], head, len(found))

        return Asked(choice.period, told, answered, asking.page(), ROWS_MAX)

    def parts() -> Iterator[Asked]:
        yield from (of(n + 1) for n in range(steps))

    # A page has so many flows of each step: of one step alone they are in order.
    return replace(of(None), parts=parts)


def _path_row(found: Path) -> Row:
    return {
        "path": list(found.places),
        "visits": found.visits,
        "visitors": found.visitors,
        "share": percent(found.visits, found.of),
    }


def _flow_row(direction: Direction, found: Flow) -> Row:
    ways = [found.near, found.far]
    start, end = ways if direction is Direction.AFTER else reversed(ways)
    return {
        "step": found.step,
        "from": start,
        "to": end,
        "visits": found.visits,
        "visitors": found.visitors,
        "share": percent(found.visits, found.of),
    }
