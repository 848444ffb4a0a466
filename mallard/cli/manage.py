"""`mallard sites`, `keys`, `goals`, `segments`: what people say of sites, and who may ask.

They change the data folder's database, also while the server runs, which follows within a second.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mallard.accounts import shapes
from mallard.accounts.access import Scope
from mallard.accounts.accounts import Accounts, any_filters
from mallard.accounts.shapes import Shape
from mallard.clock import Clock
from mallard.errors import InvalidInput, StorageError

if TYPE_CHECKING:
    from mallard.accounts.control import Control
    from mallard.accounts.segments import FilterCheck

DATABASE = "mallard.db"

_Command = TypeVar("_Command", bound=Callable[..., Any])


_data = click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=Path("data"),
    show_default=True,
    metavar="DIR",
    help="The data folder.",
)


def _common(command: _Command) -> _Command:
    """Give a command what all have that print something."""
    return _data(click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command))


def _site_settings(command: _Command) -> _Command:
    for flag, metavar, says in (
        ("--currency", "CODE", "In which money is shown first, such as EUR; '' for none."),
        ("--timezone", "ZONE", "By which its days are cut, such as Europe/Berlin."),
        ("--kind", "KIND", "web, log or environment."),
    ):
        command = click.option(flag, metavar=metavar, help=says)(command)
    return command


@contextlib.contextmanager
def _accounts(data: Path, check_filters: FilterCheck = any_filters) -> Iterator[Accounts]:
    path = data / DATABASE
    if not path.is_file():
        raise StorageError(
            f"{data} is not a Mallard data folder: it has no {DATABASE}. "
            "`mallard serve` makes one when it starts."
        )
    accounts = Accounts(path, Clock(), check_filters)
    try:
        yield accounts
    finally:
        accounts.close()


_T = TypeVar("_T")


def _read(data: Path, ask: Callable[[Control], _T]) -> _T:
    with _accounts(data) as accounts:
        return accounts.read_now(ask)


def _change(data: Path, change: Callable[[Control], _T]) -> _T:
    with _accounts(data) as accounts:
        return accounts.change_now(change)


def _print(rows: list[Shape], columns: list[str], as_json: bool) -> None:
    """Print records as JSON or as a table of some of their columns."""
    if as_json:
        _print_json(rows)
        return
    table = [columns, *([_cell(row[column]) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(columns))]
    for line in table:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def _print_json(value: object) -> None:
    import orjson  # noqa: PLC0415 - `mallard --help` needs none of it

    click.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2))


def _cell(value: object) -> str:
    if value is None or value == {}:
        return "-"
    if isinstance(value, Mapping):
        return " ".join(f"{name}={each}" for name, each in value.items())
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(value)


def _given(**flags: object) -> dict[str, Any]:
    """Return the flags that were given; '' stands for null."""
    return {name: value or None for name, value in flags.items() if value is not None}


# --- sites ---


@click.group()
def sites() -> None:
    """Say what a site's time zone and currency are.

    A site need not be added: it exists as soon as events name it, with UTC and no currency.
    """


_SITE_COLUMNS = ["site_id", "kind", "timezone", "currency", "created_at"]


@sites.command("list")
@_common
def list_sites(data: Path, as_json: bool) -> None:
    """Those that were added."""
    found = _read(data, lambda control: control.sites.all())
    _print([shapes.site(site) for site in found], _SITE_COLUMNS, as_json)


@sites.command("add")
@click.argument("site")
@_site_settings
@_common
def add_site(data: Path, as_json: bool, site: str, **flags: str | None) -> None:
    """Add a site."""
    added = _change(data, lambda control: control.sites.add(site, _given(**flags)))
    _print([shapes.site(added)], _SITE_COLUMNS, as_json)


@sites.command("set")
@click.argument("site")
@_site_settings
@_common
def set_site(data: Path, as_json: bool, site: str, **flags: str | None) -> None:
    """Change what is given, and leave the rest as it is."""
    changed = _change(data, lambda control: control.sites.set(site, _given(**flags)))
    _print([shapes.site(changed)], _SITE_COLUMNS, as_json)


@sites.command("remove")
@click.argument("site")
@_data
def remove_site(data: Path, site: str) -> None:
    """Forget its settings, goals and segments; its events stay."""
    _change(data, lambda control: control.sites.remove(site))


# --- keys ---


@click.group()
def keys() -> None:
    """Make and revoke API keys."""


_KEY_COLUMNS = ["key_id", "name", "scopes", "sites", "created_at", "last_used_on", "revoked_at"]


@keys.command("list")
@_common
def list_keys(data: Path, as_json: bool) -> None:
    """Every key, the revoked ones too, without its token."""
    found = _read(data, lambda control: control.keys.all())
    _print([shapes.key(key) for key in found], _KEY_COLUMNS, as_json)


@keys.command("create")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice([*map(str, Scope)]),
    multiple=True,
    default=[str(Scope.STATS)],
    show_default=True,
    help="What it is for; can be repeated.",
)
@click.option(
    "--site",
    "sites_",
    multiple=True,
    metavar="SITE",
    help="A site it is for; can be repeated. Without any, it is for every site.",
)
@_common
def create_key(
    data: Path, as_json: bool, name: str, scopes: tuple[str, ...], sites_: tuple[str, ...]
) -> None:
    """Make a key, and print its token, which nothing shows again."""
    fields = {"name": name, "scopes": list(scopes), "sites": list(sites_) or "*"}
    key, token = _change(data, lambda control: control.keys.create(fields))
    if as_json:
        _print_json({**shapes.key(key), "token": token})
        return
    _print([shapes.key(key)], _KEY_COLUMNS, as_json)
    click.echo(f"\n{token}\n\nKeep it: it is not shown again.")


@keys.command("revoke")
@click.argument("key_id", type=click.IntRange(1, 2**31 - 1))
@_common
def revoke_key(data: Path, as_json: bool, key_id: int) -> None:
    """Make a key worthless, for ever and within a second."""
    key = _change(data, lambda control: control.keys.revoke(key_id))
    _print([shapes.key(key)], _KEY_COLUMNS, as_json)


# --- goals ---


@click.group()
def goals() -> None:
    """Say what counts as a conversion on a site."""


_GOAL_COLUMNS = ["goal_id", "display_name", "page", "event_name", "props", "currency"]


@goals.command("list")
@click.argument("site")
@_common
def list_goals(data: Path, as_json: bool, site: str) -> None:
    """A site's goals."""
    found = _read(data, lambda control: control.goals.of(site))
    _print([shapes.goal(goal) for goal in found], _GOAL_COLUMNS, as_json)


@goals.command("add")
@click.argument("site")
@click.option(
    "--page",
    metavar="PATTERN",
    help="Views of pages such as /blog/**: * is anything within one segment, ** anything.",
)
@click.option("--event", "event_name", metavar="NAME", help="Events of a name, such as signup.")
@click.option(
    "--prop",
    "props",
    multiple=True,
    metavar="NAME=VALUE",
    help="A property that it must have; can be repeated.",
)
@click.option("--currency", metavar="CODE", help="Of an event that brings money, such as EUR.")
@click.option("--name", "display_name", metavar="TEXT", help="What it is called.")
@_common
def add_goal(
    data: Path, as_json: bool, site: str, props: tuple[str, ...], **flags: str | None
) -> None:
    """Add a goal: of a page or of an event."""
    fields = {**_given(**flags), "props": dict(map(_pair, props))}
    goal = _change(data, lambda control: control.goals.add(site, fields))
    _print([shapes.goal(goal)], _GOAL_COLUMNS, as_json)


@goals.command("remove")
@click.argument("site")
@click.argument("goal_id", type=click.IntRange(1, 2**31 - 1))
@_data
def remove_goal(data: Path, site: str, goal_id: int) -> None:
    """Remove a goal."""
    _change(data, lambda control: control.goals.remove(site, goal_id))


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise InvalidInput("--prop has no =.", field="--prop", rule="NAME=VALUE")
    return name, value


# --- segments ---


@click.group()
def segments() -> None:
    """Keep filters of a site under a name."""


_SEGMENT_COLUMNS = ["segment_id", "name", "filters"]


@segments.command("list")
@click.argument("site")
@_common
def list_segments(data: Path, as_json: bool, site: str) -> None:
    """A site's segments."""
    found = _read(data, lambda control: control.segments.of(site))
    _print([shapes.segment(segment) for segment in found], _SEGMENT_COLUMNS, as_json)


@segments.command("add")
@click.argument("site")
@click.argument("name")
@click.argument("filters")
@_common
def add_segment(data: Path, as_json: bool, site: str, name: str, filters: str) -> None:
    """Add a segment. FILTERS is JSON, such as '[["is", "visit:country", ["DE"]]]'."""
    from mallard.query.plausible.segments import check_segment  # noqa: PLC0415 - it is heavy

    fields = {"name": name, "filters": _json(filters)}
    with _accounts(data, check_segment) as accounts:
        segment = accounts.change_now(lambda control: control.segments.add(site, fields))
    _print([shapes.segment(segment)], _SEGMENT_COLUMNS, as_json)


@segments.command("remove")
@click.argument("site")
@click.argument("segment_id", type=click.IntRange(1, 2**31 - 1))
@_data
def remove_segment(data: Path, site: str, segment_id: int) -> None:
    """Remove a segment."""
    _change(data, lambda control: control.segments.remove(site, segment_id))


def _json(text: str) -> object:
    from mallard.ingest.json_reader import read_json  # noqa: PLC0415 - as above

    return read_json(text.encode(errors="surrogateescape"))


GROUPS = (sites, keys, goals, segments)
