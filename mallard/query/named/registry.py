"""Every report by its name: the one list that doors, exports and their descriptions are made of.

`GET /api/stats/<name>` answers with a report, `/api/export?what=<name>` and `mallard export` write
one whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mallard.errors import InvalidInput
from mallard.query.named import insights, journeys, money, numbers, visits
from mallard.query.named.asking import PAGES, Asked, Asking
from mallard.query.plausible import names
from mallard.query.plausible.compact import full_name


@dataclass(frozen=True, slots=True)
class Report:
    """A report.

    name: what follows `/api/stats/`. parameters: all that it knows, by name. read: returns what is
    asked, or raises what is wrong with it. argument: what follows the name, where something does.
    of_visits: whether single visits are seen, which tell more of a person than sums do.
    export_name: what it is called where `name` means something else.
    """

    name: str
    parameters: tuple[str, ...]
    read: Callable[[Asking], Asked]
    argument: str = ""
    of_visits: bool = False
    export_name: str = ""

    @property
    def key(self) -> str:
        """What it is called where each report has a name of its own."""
        return self.read.__name__

    @property
    def whole(self) -> tuple[str, ...]:
        """The parameters of all of it, which has no pages."""
        return tuple(each for each in self.parameters if each not in PAGES)


REPORTS = (
    Report("summary", numbers.OF_SUMMARY, numbers.summary),
    Report("timeseries", numbers.OF_SERIES, numbers.timeseries),
    Report("breakdown", numbers.LISTED, numbers.breakdown, "dimension"),
    Report("goals", numbers.LISTED, numbers.goals),
    Report("realtime", insights.OF_REALTIME, insights.realtime),
    Report("funnel", insights.OF_FUNNEL, insights.funnel),
    Report("journeys", journeys.OF_JOURNEYS, journeys.journeys),
    Report("retention", insights.OF_RETENTION, insights.retention),
    Report("revenue", money.OF_REVENUE, money.revenue),
    Report("attribution", money.OF_ATTRIBUTION, money.attribution),
    # An export's `sessions` are the visits as they are stored.
    Report("sessions", visits.OF_SESSIONS, visits.sessions, "", True, "visits"),
    Report("sessions", visits.OF_SESSION, visits.session, "id", True, "visits"),
    Report("props", visits.OF_PROPS, visits.props),
    Report("props", numbers.LISTED, numbers.prop, "key"),
)
_EXPORTED = {(each.export_name or each.name, bool(each.argument)): each for each in REPORTS}


def exported_names() -> tuple[str, ...]:
    """Return what reports are called in exports, those alone that take no argument."""
    return tuple(name for name, has_argument in _EXPORTED if not has_argument)


def exported(what: str, known: tuple[str, ...] = ()) -> tuple[Report, str, Mapping[str, str]]:
    """Return the report that an export names, its argument, and what parameters the name says.

    Beside the names of reports: a dimension's name is a breakdown by it, and a time's a series.
    known: what else there is, for the error. Raises InvalidInput.
    """
    name, slash, argument = what.partition("/")
    found = _EXPORTED.get((name, bool(slash)))
    if found is not None:
        return found, argument, {}
    if what in names.TIMES:
        interval = what.partition(":")[2]
        return _EXPORTED["timeseries", False], "", {"interval": interval} if interval else {}
    dimension = full_name(what)
    if dimension == names.GOAL or names.dimension(dimension) is not None:
        return _EXPORTED["breakdown", True], what, {}
    listed = ", ".join((*known, *exported_names()))
    raise InvalidInput(
        f"what {what[:200]!r} is unknown.",
        field="what",
        rule=f"one of {listed}, or a dimension such as page or props:plan",
    )
