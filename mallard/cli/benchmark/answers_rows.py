"""How soon a year's questions are answered, against plain SQL over the same events.

Both are run in turn by one engine, with its threads; and with more memory than a server has, as
plain SQL over a hundred million events takes gigabytes (what ours takes, `served_rows` tells). What
is *first* is asked of an engine that keeps nothing yet; the operating system may hold the files by
then, for both. What is asked after that asks for a row more each time, because a whole answer is
kept too: to be given the same one again is a lookup, which is told by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, timedelta
from itertools import count
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from zoneinfo import ZoneInfo

from mallard.cli.benchmark import panels
from mallard.cli.benchmark.answers_store import DAYS, FIRST_DAY, SITE, ZONE
from mallard.cli.benchmark.panels import Panel
from mallard.cli.benchmark.rows import Pairs, Row, Target
from mallard.config import Config, ServerConfig
from mallard.query.answers import Answers
from mallard.query.dimensions import Dimension
from mallard.query.engine import Session
from mallard.query.events import annotated_rows_of
from mallard.query.filters import Condition, Operator
from mallard.query.reports.chosen import Choice
from mallard.query.reports.funnel import FunnelQuestion, Within, funnel
from mallard.query.reports.journeys import Direction, FlowsQuestion, PathsQuestion, flows, paths
from mallard.query.reports.steps import Step
from mallard.query.reports.table import Table, ask
from mallard.query.tail import Tail
from mallard.server import Server

LAST_DAY = FIRST_DAY + timedelta(days=DAYS - 1)
MONTH = date(2026, 2, 1), LAST_DAY
YEAR = FIRST_DAY, LAST_DAY
SHIFT = timedelta(days=7)
ASKED = 20  # times, of what is quick
ASKED_PLAIN = 3
PATHS = 100  # what a question without a limit gets
PLAIN_MEMORY_BYTES = 12 * 2**30
FILTER = Condition(Dimension.BROWSER, Operator.IS, ("Chrome",))
STEPS = tuple(
    Step(name, Condition(Dimension.NAME, Operator.IS, (name,)))
    for name in ("pageview", "search", "purchase")
)

Work = Callable[[Session], object]


@dataclass(frozen=True, slots=True)
class Asker:
    """Asks one server's engine in this process."""

    server: Server

    def fresh(self) -> Answers:
        """Return answers that keep nothing yet."""
        cache_bytes = self.server.config.query.cache_bytes
        return Answers(self.server.store, Tail(self.server.buffer), cache_bytes)

    def time_ms(self, works: Sequence[Work]) -> float:
        """Return how long it takes until all are done that are asked at once."""
        started = perf_counter()
        futures = [self.server.engine.submit(work) for work in works]
        for future in futures:
            future.result()
        return (perf_counter() - started) * 1000

    def table(self, panel: Panel, answers: Answers) -> Table:
        """Return the answer of a panel."""
        return self.server.engine.submit(_asks(panel, answers)).result()

    def plain(self, panel: Panel) -> list[tuple[object, ...]]:
        """Return the rows of its plain SQL."""
        return self.server.engine.submit(self.plainly(panel)).result()

    def plainly(self, panel: Panel) -> Callable[[Session], list[tuple[object, ...]]]:
        """Return the work of a panel's plain SQL."""
        store = self.server.store
        days = sorted(key for key in store.snapshot().days if key[0] == SITE)
        first, last = panel.question.period.first_day, panel.question.period.last_day
        parts = [
            store.source(part)
            for key in days
            if first.isoformat() <= key[1] <= last.isoformat()
            for part in store.snapshot().days[key].parts
        ]

        def work(session: Session) -> list[tuple[object, ...]]:
            session.view("events", annotated_rows_of(parts))
            return session.rows(panel.plain)

        return work


@contextmanager
def asking(data: Path) -> Iterator[Asker]:
    """Give who asks a data folder."""
    config = Config(server=ServerConfig(data=data))
    # A year of plain SQL may take minutes.
    query = replace(config.query, timeout_seconds=3_600, memory_bytes=PLAIN_MEMORY_BYTES)
    server = Server(replace(config, query=query))
    server.start()
    try:
        yield Asker(server)
    finally:
        server.stop()


def answers_rows(asker: Asker, say: Callable[[str], None]) -> Iterator[Row]:
    """Yield the rows of single questions and of whole dashboards."""
    year = panels.dashboard(*YEAR)
    for panel in [*year, panels.breakdown(panels.PROPERTY, *YEAR)]:
        say(f"{panel.name} ...")
        yield _against_plain(asker, [panel], f"{panel.name}, 12 months")
    say("A dashboard ...")
    yield _against_plain(asker, year, f"a dashboard of {len(year)} panels, 12 months", 100)
    yield _growth(asker)
    say("A filtered breakdown ...")
    yield _shifted(asker, "pages of one browser", _filtered)
    say("A funnel ...")
    yield _shifted(asker, f"a funnel of {len(STEPS)} steps within a visit", _funnel)
    say("Where visits go ...")
    yield _shifted(asker, "where visits go from the home page in 3 steps", _flows)
    say("Common paths ...")
    yield _shifted(asker, f"the {PATHS} most common paths of 3 steps", _paths)
    say("Another time zone ...")
    yield _zone(asker)


def _asks(panel: Panel, answers: Answers) -> Callable[[Session], Table]:
    return lambda session: ask(session, answers, panel.question)


class _Anew:
    """Asks for panels again and again, each time for a row more than before."""

    def __init__(self, asker: Asker, answers: Answers, asked: Sequence[Panel]) -> None:
        self._asker = asker
        self._answers = answers
        self._asked = asked
        self._more = count()

    def time_ms(self) -> float:
        """Return how long it takes until all are answered, asked at once."""
        more = next(self._more)
        works = [_asks(panel.with_more_rows(more), self._answers) for panel in self._asked]
        return self._asker.time_ms(works)

    def times_ms(self, times: int) -> list[float]:
        """Return how long it takes each time."""
        return [self.time_ms() for _ in range(times)]

    def given_ms(self) -> float:
        """Return how long what was asked before takes."""
        works = [_asks(panel.with_more_rows(0), self._answers) for panel in self._asked]
        return median(self._asker.time_ms(works) for _ in range(ASKED))


def _against_plain(
    asker: Asker, asked: Sequence[Panel], what: str, limit: float | None = None
) -> Row:
    answers = asker.fresh()
    anew = _Anew(asker, answers, asked)
    plain = [asker.plainly(panel) for panel in asked]
    first = anew.time_ms()
    ours: list[float] = []
    theirs: list[float] = []
    costs = [0.0, 0.0]
    for _ in range(ASKED_PLAIN):
        begun = process_time()
        theirs.append(asker.time_ms(plain))
        between = process_time()
        ours += anew.times_ms(ASKED // ASKED_PLAIN)
        costs[0] += between - begun
        costs[1] += process_time() - between
    cost_ms = costs[1] / len(ours) * 1000
    return Row(
        f"{what}, against plain SQL",
        f"first {first:.0f} ms, {_shown(ours)}, given again {anew.given_ms():.1f} ms; plain SQL "
        f"{median(theirs):,.0f} ms; of processor time {cost_ms:.1f} ms, "
        f"{costs[0] / costs[1] * len(ours) / len(theirs):.0f} x",
        median(theirs) / median(ours),
        Target(limit, " x", at_least=True) if limit else None,
        " x",
        sound=all(_same(asker, panel, answers) for panel in asked),
    )


def _same(asker: Asker, panel: Panel, answers: Answers) -> bool:
    """Whether visitors and pageviews are what the plain SQL says."""
    table = asker.table(panel, answers)
    plain = asker.plain(panel)
    if panel.name == "summary":
        return tuple(table.rows[0].metrics[:4]) == plain[0][:4]
    ours = [row.metrics[0] for row in table.rows if row.metrics[0]]
    return ours == [row[1] for row in plain if row[1]][: len(ours)]


def _growth(asker: Asker) -> Row:
    answers = asker.fresh()
    of_year = _Anew(asker, answers, panels.dashboard(*YEAR))
    of_month = _Anew(asker, answers, panels.dashboard(*MONTH))
    first = of_year.time_ms(), of_month.time_ms()
    pairs = Pairs([], [])
    for _ in range(ASKED):
        pairs.first.append(of_year.time_ms())
        pairs.second.append(of_month.time_ms())
    return Row(
        "the dashboard, 12 months against 1 month",
        f"{_shown(pairs.first)} : {_shown(pairs.second)} ({pairs.spread}); first "
        f"{first[0]:.0f} : {first[1]:.0f} ms",
        pairs.ratio,
        Target(2, " x"),
    )


def _shifted(asker: Asker, what: str, asks: Callable[[Answers, date, date], Work]) -> Row:
    """Ask of a year, and of one that begins a week later; asks: the work of such a question."""
    first, last = YEAR
    pairs = Pairs([], [])
    again: list[float] = []
    for _ in range(ASKED_PLAIN):
        answers = asker.fresh()
        pairs.first.append(asker.time_ms([asks(answers, first, last - SHIFT)]))
        after = asks(answers, first + SHIFT, last)
        pairs.second.append(asker.time_ms([after]))
        again += [asker.time_ms([after]) for _ in range(5)]
    return Row(
        f"{what}, 12 months, first time against a range shifted by a week",
        f"{median(pairs.first):,.0f} : {median(pairs.second):,.0f} ms ({pairs.spread}); given "
        f"again {median(again):.1f} ms",
        pairs.ratio,
        Target(10, " x", at_least=True),
    )


def _filtered(answers: Answers, first: date, last: date) -> Work:
    return _asks(panels.breakdown(Dimension.PAGE, first, last, keep=FILTER), answers)


def _funnel(answers: Answers, first: date, last: date) -> Work:
    choice = Choice(SITE, panels.summary(first, last).question.period)
    question = FunnelQuestion(choice, STEPS, Within.VISIT)
    return lambda session: funnel(session, answers, question)


def _flows(answers: Answers, first: date, last: date) -> Work:
    choice = Choice(SITE, panels.summary(first, last).question.period)
    home = Condition(Dimension.PAGE, Operator.IS, ("/",))
    question = FlowsQuestion(choice, home, Direction.AFTER, 3, panels.ROWS)
    return lambda session: flows(session, answers, question)


def _paths(answers: Answers, first: date, last: date) -> Work:
    choice = Choice(SITE, panels.summary(first, last).question.period)
    return lambda session: paths(session, answers, PathsQuestion(choice, 3, PATHS))


def _zone(asker: Asker) -> Row:
    anew = _Anew(asker, asker.fresh(), panels.dashboard(*YEAR, ZoneInfo(ZONE)))
    first = anew.time_ms()
    return Row(
        f"the dashboard of a site in {ZONE}, 12 months, first time",
        f"again {_shown(anew.times_ms(ASKED))}",
        first / 1000,
        None,
        " s",
    )


def _shown(times_ms: list[float]) -> str:
    ordered = sorted(times_ms)
    last = ordered[min(len(ordered) * 95 // 100, len(ordered) - 1)]
    return f"p50 {median(ordered):.1f} ms, p95 {last:.1f} ms"
