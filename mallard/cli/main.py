"""The command line: what may be asked, and the exit code of what went wrong.

Each command's module is imported when the command runs, so that `mallard --help` is quick.
Exit codes: 0 all went well, 1 it did not, 2 the command line or a setting is wrong (also
an address that is taken), 3 the data folder cannot be used.
"""

from __future__ import annotations

import gc
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import click

from mallard.cli import erase, manage
from mallard.errors import ConfigError, MallardError, StorageError

EXIT_CODES: dict[type[MallardError], int] = {
    ConfigError: 2,
    StorageError: 3,
    MallardError: 1,
}

_DATA = click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=Path("data"),
    show_default=True,
    metavar="DIR",
    help="The data folder.",
)

_CONFIG = click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Settings in TOML; config.example.toml shows all of them.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("mallard"), prog_name="mallard", message="%(prog)s %(version)s")
def mallard() -> None:
    """Self-hosted analytics: one command and one data folder."""


@mallard.command()
@_CONFIG
@click.option("--data", metavar="DIR", help="The data folder [default: data].")
@click.option("--host", metavar="H", help="The address to listen on [default: 127.0.0.1].")
@click.option("--port", metavar="P", help="The port; 0 takes any free one [default: 8000].")
def serve(config: Path | None, data: str | None, host: str | None, port: str | None) -> None:
    """Collect events and answer until stopped.

    Flags override MALLARD_* variables, which override the file.
    """
    flags = {"server.data": data, "server.host": host, "server.port": port}
    gc.disable()  # until the server is up: what a start makes stays, and no search finds a cycle
    from mallard.cli import serve as command

    command.serve(config, flags)


@mallard.command()
@_DATA
@click.option("-c", "--command", "sql", metavar="SQL", help="Run this and leave.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv"]),
    default="table",
    show_default=True,
    help="How rows are printed.",
)
@click.option(
    "--as-of",
    # As people write it, and as `loaded_at` is shown.
    type=click.DateTime(
        ["%Y-%m-%d", *(f"%Y-%m-%d{sign}%H:%M:%S{more}" for sign in "T " for more in ("", ".%f"))]
    ),
    metavar="TIME",
    help="See what was stored at this time, UTC, such as 2026-11-21T12:00:00.",
)
def shell(data: Path, sql: str | None, form: str, as_of: datetime | None) -> None:
    """SQL over everything stored, also while the server runs.

    The view `events` has a row an event. Without -c, type statements that end with a semicolon.
    """
    from mallard.cli import shell as command

    command.shell(data, sql, form, as_of and as_of.replace(tzinfo=UTC))


@mallard.command()
@_DATA
@click.option("--site", required=True, metavar="SITE", help="Whose.")
@click.option(
    "--what",
    default="events",
    show_default=True,
    metavar="WHAT",
    help="events, sessions (visits), a report such as summary or funnel, or a dimension.",
)
@click.option(
    "--from", "first", type=click.DateTime(["%Y-%m-%d"]), metavar="DATE", help="The first day."
)
@click.option(
    "--to", "last", type=click.DateTime(["%Y-%m-%d"]), metavar="DATE", help="The last day."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "ndjson", "parquet"]),
    default="csv",
    show_default=True,
    help="How rows are written.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Where to [default: standard output].",
)
@click.option("--visitors", is_flag=True, help="With the ids of visitors and users.")
@click.argument("parameters", nargs=-1, metavar="[NAME=VALUE]...")
def export(
    data: Path,
    site: str,
    what: str,
    first: datetime | None,
    last: datetime | None,
    form: str,
    output: Path | None,
    visitors: bool,
    parameters: tuple[str, ...],
) -> None:
    """Write a site's events, visits or a report to a file, also while the server runs.

    Days are those of the site's time zone. A report has the parameters that `/api/stats` gives it,
    such as filters='country==DE' or, of a funnel, steps=page:/pricing,goal:Signup.
    """
    from mallard.cli import export as command

    command.export(
        data,
        site,
        what,
        first and first.date(),
        last and last.date(),
        form,
        output,
        visitors=visitors,
        parameters=parameters,
    )


@mallard.command()
@_DATA
@click.option("--deep", is_flag=True, help="Make all visits and sums again and compare.")
def verify(data: Path, deep: bool) -> None:
    """Check every stored byte against the manifest.

    The server may run meanwhile. Exits with 1 when something is damaged or missing.
    """
    from mallard.cli import verify as command

    sys.exit(command.verify(data, deep=deep))


@mallard.command()
@_CONFIG
@click.option("--data", metavar="DIR", help="The data folder [default: data].")
def doctor(config: Path | None, data: str | None) -> None:
    """Say what is wrong with the data folder and what to do.

    The server may run meanwhile. Exits with 1 when something is wrong.
    """
    from mallard.cli import doctor as command

    sys.exit(command.doctor(config, data))


@mallard.command()
@click.argument("target", type=click.Path(path_type=Path), metavar="DEST")
@_DATA
@click.option(
    "--with-secret",
    is_flag=True,
    help="Copy also the secret that visitor ids are keyed by; keep such a backup as one.",
)
def backup(target: Path, data: Path, with_secret: bool) -> None:
    """Copy everything stored to DEST, or what is new there.

    The server may run meanwhile. DEST is a data folder itself, of plain files; salts are never in
    it. Exits with 1 when something was damaged; all else was copied.
    """
    from mallard.cli import backup as command

    sys.exit(command.backup(data, target, with_secret=with_secret))


@mallard.command()
@click.argument("source", type=click.Path(path_type=Path), metavar="SRC")
@_DATA
def restore(source: Path, data: Path) -> None:
    """Make a data folder of a backup.

    The folder must be empty or not there. Exits with 1 when something was damaged; all else was
    restored.
    """
    from mallard.cli import backup as command

    sys.exit(command.restore(source, data))


@mallard.command()
@_CONFIG
@click.option("--data", metavar="DIR", help="The data folder [default: data].")
def retention(config: Path | None, data: str | None) -> None:
    """Show how long events are kept, and what the next run removes.

    The settings [retention] say so; nothing is changed here.
    """
    from mallard.cli import retention as command

    command.retention(config, data)


@mallard.command()
@_CONFIG
@click.option("--data", metavar="DIR", help="The data folder [default: data].")
def rebuild(config: Path | None, data: str | None) -> None:
    """Make all visits and sums again from the stored events.

    Stop the server first. Answers are the same before and after; they are slower until it is done.
    """
    from mallard.cli import rebuild as command

    sys.exit(command.rebuild(config, data))


@mallard.command()
@click.option(
    "--data-root",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=Path(),
    show_default="here",
    metavar="DIR",
    help="Where the data folders are made, and removed again.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 600),
    default=2.0,
    show_default=True,
    metavar="S",
    help="How long a rate is measured.",
)
@click.option(
    "--rounds",
    type=click.IntRange(1, 100),
    default=5,
    show_default=True,
    metavar="N",
    help="How often it is repeated.",
)
@click.option(
    "--events",
    type=click.IntRange(1, 10_000_000),
    default=100_000,
    show_default=True,
    help="How many are in the log at kill -9.",
    metavar="N",
)
@click.option(
    "--site-days",
    type=click.IntRange(1, 1_000_000),
    default=1_000,
    show_default=True,
    help="How many are stored beside flushes and a start; 10,000 take minutes to make.",
    metavar="N",
)
@click.option(
    "--answers",
    type=click.IntRange(1_000, 1_000_000_000),
    is_flag=False,
    flag_value=1_000_000,
    metavar="[N]",
    help="Measure answers instead, over a year of so many events [1000000 where N is left out]. "
    "It is made once and kept under --data-root for the next run.",
)
def bench(
    data_root: Path,
    seconds: float,
    rounds: int,
    events: int,
    site_days: int,
    answers: int | None,
) -> None:
    """Measure ingestion, or answers, on this machine, as ratios.

    Some minutes. Exits with 1 when an event was lost or doubled, or an answer was wrong.
    """
    from mallard.cli import bench as command

    if answers is not None:
        sys.exit(command.bench_answers(data_root, seconds, rounds, answers))
    sys.exit(command.bench(data_root, seconds, rounds, events, site_days))


for group in (*manage.GROUPS, *erase.COMMANDS):
    mallard.add_command(group)


def main() -> None:
    """Run the command line; end the process with its exit code."""
    try:
        mallard()
    except MallardError as error:
        rule = "" if not error.rule or error.rule in error.detail else f" It must be {error.rule}."
        click.echo(f"mallard: {error.detail}{rule}", err=True)
        sys.exit(next(EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES))
    except OSError as error:  # a file that may not be read, a disk that fails
        click.echo(f"mallard: {error}", err=True)
        sys.exit(EXIT_CODES[StorageError])
