"""`mallard erase`, `erasures` and `reclassify`: events dropped or changed after they were stored.

A server that runs on the folder does it; without one these commands do it themselves.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from mallard.errors import InvalidInput

Ask = Callable[[str, Mapping[str, Any]], Any]

SUBJECTS = ("user", "anonymous", "session", "company", "visitor")
LINES_MAX = 30  # of a preview
POLL_SECONDS = 0.3
NOTES = {
    "bots": "The User-Agent is not stored: only bots with a browser's name of their own are found.",
    "sources": "The tags `ref` and `source` of links are not stored: sources that may come from "
    "them stay.",
    "spam": "",
}


def _common(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--data", metavar="DIR", help="The data folder [default: data]."),
        click.option(
            "--config", type=click.Path(path_type=Path), metavar="FILE", help="Settings in TOML."
        ),
    ):
        command = option(command)
    return command


def _limits(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--now", is_flag=True, help="Rewrite files at once; it cannot be cancelled."),
        click.option("--yes", is_flag=True, help="Do not ask."),
        click.option("--to", "last", metavar="DATE", help="The last UTC date."),
        click.option("--from", "first", metavar="DATE", help="The first UTC date."),
        click.option("--site", metavar="SITE", help="Events of this site alone."),
    ):
        command = option(command)
    return _common(command)


@click.command()
@click.option("--user", metavar="ID", help="Whose user_id this is.")
@click.option("--anonymous", metavar="ID", help="Whose anonymous_id this is.")
@click.option("--session", metavar="ID", help="Of this session_id.")
@click.option("--company", metavar="ID", help="Of this company_id.")
@click.option("--visitor", metavar="HEX", help="Of this visitor id, 16 hexadecimal digits.")
@click.option(
    "--where",
    multiple=True,
    metavar="'COLUMN OPERATOR VALUE'",
    help="Such as 'referrer contains spam.example'; also is, is_not, matches. Can be repeated.",
)
@_limits
def erase(
    config: Path | None,
    data: str | None,
    site: str | None,
    first: str | None,
    last: str | None,
    yes: bool,
    now: bool,
    where: tuple[str, ...],
    **subjects: str | None,
) -> None:
    """Remove stored events for good: everything that fits all of what is said.

    Shows what is meant and asks. Every answer leaves the events out at once; the files are written
    anew after a while ([erasure] grace_seconds), until when `mallard erasures cancel` takes it
    back. Events that come in later are not meant.
    """
    # `mallard --help` needs none of it.
    from mallard.query.rules import Condition, Definition, about  # noqa: PLC0415

    conditions = [about(kind, value) for kind, value in subjects.items() if value is not None]
    conditions += [Condition(column, how, (value,)) for column, how, value in map(_parse, where)]
    definition = Definition(site, first, last, tuple(conditions)).to_json()
    with _asking(config, data) as ask:
        found = ask("erasure.preview", {"definition": definition})
        _show_counts(found["counts"])
        if found["kept"]:
            click.echo(
                f"{len(found['kept'])} days that retention has dropped still hold such events in "
                "files that could bring them back; those files go too."
            )
        if not found["counts"] and not found["kept"]:
            return
        _begin(ask, definition, "Erase them?", yes=yes, now=now)


@click.group(invoke_without_command=True)
@_common
@click.pass_context
def erasures(context: click.Context, config: Path | None, data: str | None) -> None:
    """List what is being erased or changed, and the receipts of what is done."""
    if context.invoked_subcommand is None:
        with _asking(config, data) as ask:
            _show_status(ask("erasure.status", {}))


@erasures.command()
@click.argument("rule")
@_common
def cancel(config: Path | None, data: str | None, rule: str) -> None:
    """Take RULE back, as long as no file is written anew."""
    with _asking(config, data) as ask:
        ask("erasure.cancel", {"rule": rule})
    click.echo(f"{rule} is cancelled; its events are in every answer again.")


@erasures.command()
@click.argument("rule")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_common
def discard(config: Path | None, data: str | None, rule: str, yes: bool) -> None:
    """Give up the damaged files that RULE waits for, with all events that were in them."""
    with _asking(config, data) as ask:
        if not yes and not click.confirm("No backup can bring these files back then. Go on?"):
            click.echo("Nothing was changed.")
            return
        events = ask("erasure.discard", {"rule": rule})
    click.echo(f"{events:,} events of damaged files are given up; {rule} goes on without them.")


@erasures.command()
@click.argument("rule")
@_common
def receipt(config: Path | None, data: str | None, rule: str) -> None:
    """Print the receipt of RULE as JSON."""
    with _asking(config, data) as ask:
        found = _receipt(ask, rule)
    if found is None:
        raise InvalidInput(f"There is no receipt of {rule}.")
    click.echo(json.dumps(found, indent=2))


@click.command()
@click.argument("what", type=click.Choice(list(NOTES)))
@_limits
def reclassify(
    what: str,
    config: Path | None,
    data: str | None,
    site: str | None,
    first: str | None,
    last: str | None,
    yes: bool,
    now: bool,
) -> None:
    """Make history what today's lists would have made of it.

    sources: source and channel of each visit. spam: drop what came from blocked referrers. bots:
    drop bots. Shows what would change and asks; it can be cancelled as `mallard erase` can.
    """
    with _asking(config, data) as ask:
        limits = [site, first, last]
        found = ask("reclassify.propose", {"what": what, "limits": limits})
        if NOTES[what]:
            click.echo(NOTES[what])
        if found["definition"] is None:
            click.echo("Nothing would change.")
            return
        for label, events in found["changes"][:LINES_MAX]:
            click.echo(f"  {events:>10,}  {label}")
        click.echo(f"{found['events']:,} events in all.")
        if found["left"]:
            click.echo(f"{found['left']:,} more are too many for one rule; ask again after this.")
        question = "Change them?" if what == "sources" else "Drop them?"
        _begin(ask, found["definition"], question, yes=yes, now=now)


def _begin(ask: Ask, definition: Mapping[str, Any], question: str, *, yes: bool, now: bool) -> None:
    if not yes and not click.confirm(question):
        click.echo("Nothing was changed.")
        return
    grace = 0.0 if now else None
    rule = ask("erasure.begin", {"definition": definition, "grace_seconds": grace})
    click.echo(f"{rule}: no answer shows the events as they were from now on.")
    if now:
        _wait(ask, rule)
        return
    active = {each["rule"]: each for each in ask("erasure.status", {})["active"]}
    if rule in active:
        at = _instant(active[rule]["rewrite_at"])
        click.echo(
            f"The server writes the files anew after {at}; until then "
            f"`mallard erasures cancel {rule}` takes it back."
        )


def _wait(ask: Ask, rule: str) -> None:
    """Return once a rule is over; what it waits for is told when it changes."""
    said = ""
    while True:
        found = _receipt(ask, rule)
        if found and found["completed_at"]:
            break
        for each in ask("erasure.status", {})["active"]:
            if each["rule"] == rule and each["waits_for"] not in {"", said}:
                said = each["waits_for"]
                click.echo(f"waiting for {said}")
        time.sleep(POLL_SECONDS)
    click.echo(f"Done. `mallard erasures receipt {rule}` prints the receipt.")
    for name in found["not_searched"]:
        click.echo(f"not searched: {name}")


def _receipt(ask: Ask, rule: str) -> dict[str, Any] | None:
    receipts = ask("erasure.status", {})["receipts"]
    return next((each for each in receipts if each["rule"] == rule), None)


def _show_counts(counts: list[tuple[str, str, int]]) -> None:
    for site_id, date, events in counts[:LINES_MAX]:
        click.echo(f"  {events:>10,}  {date}  {site_id}")
    if len(counts) > LINES_MAX:
        click.echo(f"  and {len(counts) - LINES_MAX:,} more days")
    total = sum(events for _, _, events in counts)
    click.echo(f"{total:,} stored events are meant.")


def _show_status(status: Mapping[str, Any]) -> None:
    for each in status["active"]:
        waits = f", waits for {each['waits_for']}" if each["waits_for"] else ""
        click.echo(
            f"{each['rule']}  active    {each['action']} {each['events']:,} events by "
            f"{each['about']}; files from {_instant(each['rewrite_at'])} on{waits}"
        )
    for each in status["receipts"]:
        done = each["completed_at"]
        state = f"done {done}" if done else "nearly done"
        click.echo(
            f"{each['rule']}  {state}  {each['action']} {each['events']:,} events by "
            f"{each['about']}"
        )
    if not status["active"] and not status["receipts"]:
        click.echo("Nothing was ever erased or changed.")


def _parse(text: str) -> tuple[str, str, str]:
    words = text.split(maxsplit=2)
    if len(words) < 3:
        raise InvalidInput(f"--where {text!r} is not 'COLUMN OPERATOR VALUE'.")
    return words[0], words[1], words[2]


def _instant(us: int) -> str:
    return datetime.fromtimestamp(us / 1e6, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _asking(path: Path | None, folder: str | None) -> AbstractContextManager[Ask]:
    from mallard.cli.asking import asking  # noqa: PLC0415 - `mallard --help` needs none of it

    return asking(path, folder)


COMMANDS = (erase, erasures, reclassify)
