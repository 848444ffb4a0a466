"""Filters as one line, for curl and spreadsheets: `page==/blog/**;country!=DE|FR;source~oo`.

A dimension, an operator, and values with `|` between, any of which may fit; conditions with `;`
between, all of which hold. Operators: `==` is, `!=` is not, `~` contains, `!~` contains not. In a
page `*` stands for anything within a segment of the path and `**` for anything. `\\` before one of
these characters takes it as it is. Names may be short: `page` is `event:page`, `props:plan`
is `event:props:plan`. `segment==Phones` is a saved segment by its name. Plausible's Stats API v1
writes filters this way.
"""

from __future__ import annotations

import re
from typing import Any

from mallard.errors import InvalidInput
from mallard.query.goals import page_expression
from mallard.query.plausible import names

LENGTH_MAX = 8_192
RULE = "conditions such as page==/pricing;country!=DE|FR;source~goo"
_OPERATORS = {"==": "is", "!=": "is_not", "!~": "contains_not", "~": "contains"}
_CONDITION = re.compile(r"((?:\\.|[^\\])+?)(==|!=|!~|~)(.*)", re.DOTALL)


def full_name(name: str) -> str:
    """Return the name of a dimension in the API, of a short one too; unknown ones as they are."""
    if name.startswith("props:"):
        return f"event:{name}"
    if ":" in name or name == "time":
        return name
    for scope in ("event", "visit"):
        if names.dimension(f"{scope}:{name}") or f"{scope}:{name}" == names.GOAL:
            return f"{scope}:{name}"
    return name


def read_compact(text: str) -> list[Any]:
    """Return the filters of one line in the form of Stats API v2; raises InvalidInput."""
    return [_read(each) for each in conditions(text)]


def conditions(text: str) -> list[str]:
    """Return the conditions of a line as they are written; raises InvalidInput."""
    if len(text) > LENGTH_MAX:
        raise InvalidInput("filters is too long.", field="filters", rule=f"{LENGTH_MAX} characters")
    return [each for each in split(text, ";") if each]


def condition(text: str) -> tuple[str, str, list[str]]:
    """Return a dimension's full name, an operator of v2, and the values as they are written."""
    found = _CONDITION.fullmatch(text)
    if not found:
        raise InvalidInput(f"{text!r} is no condition.", field="filters", rule=RULE)
    return full_name(plain(found[1])), _OPERATORS[found[2]], split(found[3], "|")


def _read(text: str) -> list[Any]:
    name, operator, values = condition(text)
    pages = ("event:page", "visit:entry_page", "visit:exit_page")
    if name in pages and operator in {"is", "is_not"} and any("*" in _bare(v) for v in values):
        expressions = [page_expression(plain(value)) for value in values]
        return [operator.replace("is", "matches"), name, expressions]
    return [operator, name, [plain(value) for value in values]]


def split(text: str, separator: str) -> list[str]:
    """Return what stands between separators that no backslash takes as they are."""
    pieces, start, at = [], 0, 0
    while at < len(text):
        if text[at] == "\\":
            at += 2
            continue
        if text[at] == separator:
            pieces.append(text[start:at])
            start = at + 1
        at += 1
    return [*pieces, text[start:]]


def _bare(text: str) -> str:
    return re.sub(r"\\.", "", text, flags=re.DOTALL)


def plain(text: str) -> str:
    """Return a text without the backslashes that take a character as it is."""
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)
