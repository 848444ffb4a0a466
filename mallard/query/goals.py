"""What a goal's conversions are, as a filter."""

from __future__ import annotations

import re

from mallard.query.dimensions import Dimension, Property
from mallard.query.filters import AllOf, Condition, Filter, Operator
from mallard.site import Goal

PAGEVIEW = "pageview"


def conversions(goal: Goal) -> Filter:
    """Return the filter that holds for a goal's conversions and nothing else."""
    parts: list[Filter] = [
        Condition(Dimension.NAME, Operator.IS, (goal.event_name or PAGEVIEW,)),
    ]
    if goal.page is not None:
        parts.append(Condition(Dimension.PAGE, *_page(goal.page)))
    parts += [Condition(Property(name), Operator.IS, (value,)) for name, value in goal.props]
    return AllOf(tuple(parts))


def _page(pattern: str) -> tuple[Operator, tuple[str]]:
    if "*" not in pattern:
        return Operator.IS, (pattern,)
    return Operator.MATCHES, (page_expression(pattern),)


def page_expression(pattern: str) -> str:
    """Return the RE2 expression of a page: `*` within one segment of the path, `**` anything."""
    pieces = re.split(r"(\*\*|\*)", pattern)
    wild = {"**": ".*", "*": "[^/]*"}
    return f"(?s)^{''.join(wild.get(each) or _escaped(each) for each in pieces)}$"


def _escaped(text: str) -> str:
    # Not re.escape: RE2 knows no escape of a space or of a letter that is not ASCII.
    return re.sub(r"([\\.+*?()|\[\]{}^$])", r"\\\1", text)
