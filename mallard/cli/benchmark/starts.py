"""How soon a server answers after it was started: on a new folder, an old one, after a crash."""

from __future__ import annotations

from statistics import median

from mallard.cli.benchmark.processes import first_answer, mallard
from mallard.cli.benchmark.rates import Setting
from mallard.cli.benchmark.rows import Row, Target
from mallard.cli.benchmark.traffic import BATCH_EVENTS, numbered_batch
from mallard.errors import MallardError
from mallard.query.events import open_folder


def first_accepted(setting: Setting) -> Row:
    """Return the row of the time from the start of a process to its first 202."""
    fresh: list[float] = []
    again: list[float] = []
    for number in range(min(setting.rounds, 3)):
        server = mallard(setting.folder / f"start-{number}", setting.cores.all)
        with server:
            fresh.append(first_answer(server))
            server.stop()
            server.start()
            again.append(first_answer(server))
    return Row(
        "process start to first 202: the later of a new folder and an old one",
        f"new {median(fresh):.2f} s, old {median(again):.2f} s",
        max(median(fresh), median(again)),
        Target(1.5, " s"),
    )


def after_kill(setting: Setting, events: int) -> Row:
    """Return the row of the start after kill -9 with so many events in the log, and count them."""
    never = {
        "buffer.capacity_events": str(2 * events + BATCH_EVENTS),
        "buffer.capacity_bytes": str(2**32),
        "buffer.flush_events": str(2 * events + BATCH_EVENTS),
        "buffer.flush_interval_seconds": "86400",
    }
    data = setting.folder / "killed"
    times: list[float] = []
    with mallard(data, setting.cores.all, never) as server:
        for first in range(0, events, BATCH_EVENTS):
            request = numbered_batch(server.port, first, min(BATCH_EVENTS, events - first))
            if (status := server.send(request)) != 202:
                raise MallardError(f"a batch was answered with {status}")
        for _ in range(min(setting.rounds, 3)):
            server.kill()
            server.start()
            times.append(first_answer(server))
    with open_folder(data) as connection:
        found = connection.execute(
            "SELECT count(number), count(DISTINCT number) FILTER (number BETWEEN 0 AND $1 - 1) "
            "FROM (SELECT json_extract(props, '$.number')::BIGINT AS number FROM events)",
            [events],
        ).fetchone()
    assert found is not None
    stored, distinct = found
    return Row(
        f"start after kill -9 with {events:,} events in the log, to first 202",
        f"{', '.join(f'{seconds:.2f} s' for seconds in times)}; {events - distinct} lost, "
        f"{stored - distinct} doubled",
        median(times),
        Target(2, " s"),
        sound=stored == distinct == events,
    )
