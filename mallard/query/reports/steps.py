"""Steps of funnels and journeys as people write them: `page:/pricing`, `event:signup`, `goal:Paid`.

In a page `*` stands for anything within a segment of the path, `**` for anything. Several steps
have commas between; `\\` before a comma takes it as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

from mallard.errors import InvalidInput
from mallard.query.filters import Filter
from mallard.query.goals import conversions
from mallard.query.plausible.compact import plain, split
from mallard.query.plausible.filtering import Context
from mallard.site import Goal

RULE = "steps such as page:/pricing, event:signup or goal:Paid"
LENGTH_MAX = 2_048


@dataclass(frozen=True, slots=True)
class Step:
    """A step as it was written, and which events are one."""

    label: str
    keep: Filter


def read_steps(text: str, context: Context, *, least: int, most: int) -> tuple[Step, ...]:
    """Return the steps of a text; raises InvalidInput for none, or too few or many."""
    found = tuple(read_step(plain(each), context, "steps") for each in split(text, ","))
    if not least <= len(found) <= most:
        raise InvalidInput(
            f"steps has {len(found)}.", field="steps", rule=f"from {least} to {most} steps"
        )
    return found


def read_step(text: str, context: Context, field: str) -> Step:
    """Return one step; raises InvalidInput for what is none, and for an unknown goal."""
    kind, _, value = text.strip().partition(":")
    if not value or len(value) > LENGTH_MAX or kind not in {"page", "event", "goal"}:
        raise InvalidInput(f"{text[:200]!r} is no step.", field=field, rule=RULE)
    label = f"{kind}:{value}"
    if kind == "goal":
        return Step(label, conversions(read_goal(value, context, field)))
    page = value if kind == "page" else None
    goal = Goal(0, "", label, page=page, event_name=value if kind == "event" else None)
    return Step(label, conversions(goal))


def read_goal(name: str, context: Context, field: str) -> Goal:
    """Return the site's goal of a display name; raises InvalidInput."""
    goal = context.goal(name)
    if goal is None:
        known = ", ".join(repr(each.display_name) for each in context.goals) or "none"
        raise InvalidInput(
            f"The site has no goal {name[:200]!r}.", field=field, rule=f"one of its goals: {known}"
        )
    return goal
