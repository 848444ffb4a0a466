"""`mallard export`: a site's events, visits or a report as one file, also while the server runs."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import BinaryIO
from zoneinfo import ZoneInfo

from mallard.accounts.accounts import Accounts
from mallard.clock import Clock, to_datetime
from mallard.errors import InvalidInput, StorageError
from mallard.processes import give_way
from mallard.query.forms import Form
from mallard.query.named.asking import Asking
from mallard.query.plausible.filtering import Context
from mallard.store.reader import DATABASE
from mallard.transfer.exporter import STORED, export_folder, first_day, read_wanted


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
    parameters: Sequence[str] = (),
) -> None:
    """Write the days from first to last, both included, in the site's time zone.

    output: None is the standard output. parameters: of the report, each as NAME=VALUE. Raises
    StorageError, InvalidInput.
    """
    give_way()
    if not (data / DATABASE).is_file():
        raise StorageError(f"{data} is not a Mallard data folder: it has no {DATABASE}.")
    if first and last and first > last:
        raise InvalidInput(f"{last} is not after {first}.")
    asking = replace(_asking(data, site_id), given=_read(parameters), with_ids=visitors)
    if first or last:
        asking = _within(asking, first, last)
    wanted = read_wanted(what, asking)
    with _opened(output) as sink:
        rows = export_folder(data, wanted, Form(form), sink)
    noun = what if what in STORED else f"rows of {what}"
    print(f"{rows} {noun} of {site_id}", file=sys.stderr)


def _read(parameters: Sequence[str]) -> dict[str, str]:
    given = {}
    for each in parameters:
        name, sign, value = each.partition("=")
        if not sign or name in given:
            raise InvalidInput(
                f"{each[:200]!r} is no parameter.", rule="NAME=VALUE, each name once"
            )
        given[name] = value
    return given


def _asking(data: Path, site_id: str) -> Asking:
    clock = Clock()
    accounts = Accounts(data / DATABASE, clock)
    try:
        directory = accounts.directory_now()
        site = directory.site(site_id)
        context = Context(
            ZoneInfo(site.timezone),
            to_datetime(clock.now_us()),
            first_day(data, site_id),
            directory.goals_of(site_id),
            directory.segments_of(site_id),
        )
    finally:
        accounts.close()
    return Asking(site, context, {}, default_period="all")


def _within(asking: Asking, first: date | None, last: date | None) -> Asking:
    """Return what is asked of some days; where one of them is not said, all there is."""
    context = asking.context
    today = context.now.astimezone(context.zone).date()
    first = first or min(context.first_day or today, last or today)
    last = last or max(today, first)
    return replace(
        asking, given={**asking.given, "from": first.isoformat(), "to": last.isoformat()}
    )


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
