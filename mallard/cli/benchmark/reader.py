"""Asks a data folder questions without a pause: `python -m mallard.cli.benchmark.reader DIR`.

It stops when its standard input ends, and prints how many questions it has had answered.
"""

from __future__ import annotations

import select
import sys
from pathlib import Path

from mallard.processes import pausing, take_idle_time
from mallard.query.events import open_folder, show_folder

QUESTIONS = (
    "SELECT hostname, count(*), count(DISTINCT visitor_id) FROM events GROUP BY ALL ORDER BY 2",
    "SELECT pathname, count(*) FROM events WHERE site_id = 'site-0.example' GROUP BY ALL "
    "ORDER BY 2 DESC LIMIT 10",
    "SELECT browser, os, device_type, count(*) FROM events GROUP BY ALL",
    "SELECT time_bucket(INTERVAL 1 MINUTE, timestamp) AS minute, count(*) FROM events GROUP BY ALL",
)


def main() -> None:
    """Ask until told to stop, as `mallard shell` would: it gives way to the server."""
    take_idle_time()
    data = Path(sys.argv[1])
    asked = 0
    with open_folder(data) as connection:
        print("asking", flush=True)
        while not select.select([sys.stdin], [], [], 0)[0]:
            show_folder(connection, data)
            for question in QUESTIONS:
                with pausing():
                    connection.execute(question).fetchall()
                asked += 1
    print(asked, flush=True)


if __name__ == "__main__":
    main()
