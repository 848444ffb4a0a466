"""What SQL of somebody else's may say: one SELECT over the views, with functions that compute.

Invariants: what is not known here is refused, so that what a later DuckDB adds is not allowed
before somebody looked at it. Names are looked at where DuckDB's own parser found them, never in the
text. This is one of three walls: DuckDB opens no file but those it was given, and the process it
runs in (`query/sandbox.py`) has limits of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import duckdb
import orjson

from mallard.errors import InvalidInput
from mallard.query.sql import Sql

SQL_LENGTH_MAX = 100_000
RELATIONS = frozenset({"events", "sessions"})
TABLE_MACROS = frozenset({"totals", "timeseries", "breakdown", "pages", "funnel"})
_TABLE_FUNCTIONS = TABLE_MACROS | {
    "generate_series",
    "json_each",
    "json_tree",
    "range",
    "repeat",
    "repeat_row",
    "unnest",
}
# Those that only compute and give another value each time, or are no function of the catalog.
_CHANGING = frozenset(
    {
        "current_date",
        "current_localtime",
        "current_localtimestamp",
        "error",
        "gen_random_uuid",
        "get_current_time",
        "get_current_timestamp",
        "now",
        "random",
        "setseed",
        "today",
        "transaction_timestamp",
        "unnest",
        "uuid",
        "uuidv4",
        "uuidv7",
        "version",
    }
)
# They are said to be constant, and look at more than their arguments.
_LOOKING = frozenset(
    {
        "can_cast_implicitly",
        "current_connection_id",
        "current_query",
        "current_query_id",
        "current_setting",
        "getenv",
        "getvariable",
        "in_search_path",
        "index_key",
        "json_deserialize_sql",
        "json_execute_serialized_sql",
        "json_serialize_plan",
        "json_serialize_sql",
        "parse_duckdb_log_message",
    }
)
_HIDDEN = ("__internal", "duckdb_", "pg_", "has_", "st_", "current_schema", "current_database")
# Macros that come with DuckDB and are expressions over their arguments.
_MACROS = frozenset(
    {
        "ago",
        "bounce_rate",
        "date_add",
        "days_in_month",
        "fdiv",
        "fmod",
        "generate_subscripts",
        "geomean",
        "geometric_mean",
        "histogram",
        "if",
        "json",
        "json_group_array",
        "json_group_object",
        "json_group_structure",
        "map_contains_entry",
        "map_contains_value",
        "md5_number_lower",
        "md5_number_upper",
        "nullif",
        "split_part",
        "visitors",
        "wavg",
        "weighted_avg",
    }
)
_CLASSES = frozenset(
    {
        "BETWEEN",
        "CASE",
        "CAST",
        "COLLATE",
        "COLUMN_REF",
        "COMPARISON",
        "CONJUNCTION",
        "CONSTANT",
        "FUNCTION",
        "LAMBDA",
        "OPERATOR",
        "POSITIONAL_REFERENCE",
        "STAR",
        "SUBQUERY",
        "TYPE",
        "WINDOW",
    }
)
_NODES = frozenset(
    {
        "BASE_TABLE",
        "CTE_NODE",
        "DISTINCT_MODIFIER",
        "EMPTY",
        "EXPRESSION_LIST",
        "JOIN",
        "LIMIT_MODIFIER",
        "LIMIT_PERCENT_MODIFIER",
        "ORDER_MODIFIER",
        "PIVOT",
        "RECURSIVE_CTE_NODE",
        "SELECT_NODE",
        "SET_OPERATION_NODE",
        "SHOW_REF",
        "SUBQUERY",
        "TABLE_FUNCTION",
    }
)
# Values of "type" that say how, and not what.
_ORDERS = frozenset({"ASCENDING", "DESCENDING", "ORDER_DEFAULT"})


class Permission:
    """Knows what a connection has, and checks SQL against it."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        """connection: with the views and macros, and nothing that was not made here."""
        self._connection = connection
        self._functions = _computing(connection) | _CHANGING | _MACROS
        self._catalog = {
            str(name).lower()
            for (name,) in connection.execute(
                "SELECT view_name FROM duckdb_views() UNION SELECT table_name FROM duckdb_tables()"
            ).fetchall()
        }

    def check(self, text: str) -> Sql:
        """Return a text of SQL that may run, without what ends it. Raises InvalidInput."""
        if len(text) > SQL_LENGTH_MAX:
            raise InvalidInput(
                "The SQL is too long.", field="sql", rule=f"at most {SQL_LENGTH_MAX} characters"
            )
        if "\0" in text:
            raise InvalidInput("SQL holds no NUL.", field="sql")
        try:
            statements = self._connection.extract_statements(text)
        except duckdb.Error as error:
            raise InvalidInput(str(error), field="sql") from None
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise _refused("There must be one statement, and it must be a SELECT.")
        query = statements[0].query.strip().rstrip(";")
        self._check_tree(self._tree(query))
        return Sql(query)

    def _tree(self, query: str) -> Any:
        row = self._connection.execute("SELECT json_serialize_sql($1::VARCHAR)", [query]).fetchone()
        assert row is not None
        try:
            tree = orjson.loads(row[0])
        except orjson.JSONDecodeError:
            raise _refused("The SQL is nested too deeply.") from None
        if tree["error"] or len(tree["statements"]) != 1:
            raise _refused("There must be one statement, and it must be a SELECT.")
        return tree["statements"][0]

    def _check_tree(self, tree: Any) -> None:
        named = {name.lower() for name in _named_queries(tree)}
        if hidden := sorted(named & self._catalog):
            raise _refused(f"A query cannot be named {hidden[0]}.")
        for node in _nodes(tree):
            kind = node.get("type")
            if "class" in node:
                if node["class"] not in _CLASSES:
                    raise _refused(f"{_words(node['class'])} cannot be used here.")
                if node["class"] in {"FUNCTION", "WINDOW"}:
                    self._check_function(node)
            elif isinstance(kind, str) and kind not in _NODES | _ORDERS:
                raise _refused(f"{_words(kind)} cannot be used here.")
            elif kind == "BASE_TABLE":
                _check_table(node, named)
            elif kind == "SHOW_REF" and node["show_type"] not in {"DESCRIBE", "SUMMARY"}:
                raise _refused("Of SHOW and the like, there are DESCRIBE and SUMMARIZE alone.")

    def _check_function(self, node: dict[str, Any]) -> None:
        name = str(node["function_name"]).lower()
        if node.get("is_table"):
            path = [str(each).lower() for each in node["qualified_name"]["path"]]
            if name not in _TABLE_FUNCTIONS or path not in ([name], ["main", name]):
                raise _refused(f"The table function {name} cannot be used here.")
        elif name not in self._functions:
            raise _refused(f"There is no function {name} here.")


def _computing(connection: duckdb.DuckDBPyConnection) -> set[str]:
    """Return the functions whose results follow from their arguments alone."""
    found = connection.execute(
        "SELECT DISTINCT lower(function_name) FROM duckdb_functions() WHERE "
        "function_type IN ('aggregate', 'window') OR function_type = 'scalar' "
        "AND stability = 'CONSISTENT' AND NOT coalesce(has_side_effects, false) "
        "OR function_type = 'macro' AND internal "
        "AND regexp_matches(function_name, '^(list|array)_')"
    ).fetchall()
    names = {str(name) for (name,) in found}
    return {name for name in names - _LOOKING if not name.startswith(_HIDDEN)}


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Yield every object of a tree; a table function's call is marked as one."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if node.get("type") == "TABLE_FUNCTION" and "class" not in node:
                call = node["function"]
                if not isinstance(call, dict) or call.get("class") != "FUNCTION":
                    raise _refused("Such a table function cannot be used here.")
                call["is_table"] = True
            yield node
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)


def _named_queries(tree: Any) -> Iterator[str]:
    for node in _nodes(tree):
        if "cte_map" in node:
            yield from (str(each["key"]) for each in node["cte_map"]["map"])
        if "cte_name" in node:
            yield str(node["cte_name"])


def _check_table(node: dict[str, Any], named: set[str]) -> None:
    path = [str(each).lower() for each in node["qualified_name"]["path"]]
    known = RELATIONS | named
    if len(path) == 1 and path[0] in known:
        return
    if len(path) == 2 and path[0] == "main" and path[1] in RELATIONS:
        return
    raise _refused(f"There is no table {'.'.join(path)} here; there are events and sessions.")


def _words(kind: str) -> str:
    return kind.replace("_", " ")


def _refused(detail: str) -> InvalidInput:
    return InvalidInput(detail, field="sql")
