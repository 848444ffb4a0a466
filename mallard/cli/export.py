"""`mallard export`: a site's events, visits or a report as one file, also while the server runs."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import BinaryIO
from zoneinfo import ZoneInfo

from mallard.accounts.accounts import Accounts
from mallard.cli.polite import give_way
from mallard.clock import Clock, to_datetime
from mallard.errors import InvalidInput, StorageError
from mallard.query.forms import Form
from mallard.query.period import Period
from mallard.query.pieces import Wanted, What
from mallard.query.plausible.filtering import Context
from mallard.store.reader import DATABASE
from mallard.transfer.exporter import export_folder, export_report
from mallard.transfer.reports import dimension_of

_EARLIEST, _LATEST = date(1970, 1, 2), date(9998, 12, 31)


def export(
    data: Path,
    site_id: str,
    what: str,
    first: date | None,
    last: date | None,
    form: str,
    output: Path | None,
    *,
    visitors: bool,
) -> None:
    """Write the days from first to last, both included, in the site's time zone.

    output: None is the standard output. Raises StorageError, InvalidInput.
    """
    give_way()
    if not (data / DATABASE).is_file():
        raise StorageError(f"{data} is not a Mallard data folder: it has no {DATABASE}.")
    days = first, last
    first, last = first or _EARLIEST, last or _LATEST
    if not _EARLIEST <= first <= last <= _LATEST:
        raise InvalidInput(f"{last} is not after {first}.")
    if what not in [*What]:
        dimension_of(what)
        context = _context(data, site_id)
        with _opened(output) as sink:
            rows = export_report(data, site_id, what, days, context, Form(form), sink)
        print(f"{rows} rows by {what} of {site_id}", file=sys.stderr)
        return
    whole = (first, last) == (_EARLIEST, _LATEST)
    period = None if whole else Period.of_days(first, last, _context(data, site_id).zone)
    wanted = Wanted(site_id, What(what), period, visitors)
    with _opened(output) as sink:
        rows = export_folder(data, wanted, Form(form), sink)
    print(f"{rows} {what} of {site_id}", file=sys.stderr)


def _context(data: Path, site_id: str) -> Context:
    clock = Clock()
    accounts = Accounts(data / DATABASE, clock)
    try:
        directory = accounts.directory_now()
        return Context(
            ZoneInfo(directory.site(site_id).timezone),
            to_datetime(clock.now_us()),
            goals=directory.goals_of(site_id),
            segments=directory.segments_of(site_id),
        )
    finally:
        accounts.close()


@contextlib.contextmanager
def _opened(output: Path | None) -> Iterator[BinaryIO]:
    """Give a file that has its name once all of it is written."""
    if output is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    part = output.with_name(f"{output.name}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(output)
    except OSError as error:
        raise StorageError(f"{output} cannot be written ({error}).") from error
    finally:
        part.unlink(missing_ok=True)
