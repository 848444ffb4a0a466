"""What SQL may say: each escape that was thought of is refused before it runs."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pytest

from mallard.errors import InvalidInput
from mallard.query.events import add_macros
from mallard.query.permitted import SQL_LENGTH_MAX, Permission

ALLOWED = [
    "FROM events",
    "TABLE events",
    "VALUES (1)",
    "SELECT 1 -- not the end",
    "SELECT 1;",
    "SELECT ';' AS \"--\"",
    "SELECT site_id, count(*) FROM main.events GROUP BY ALL ORDER BY ALL LIMIT 5",
    "SELECT hostname, max(events) FROM events JOIN sessions USING (site_id) GROUP BY hostname",
    "WITH pages AS (FROM events WHERE event_type = 'page') SELECT count(*) FROM PAGES",
    "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 5) FROM t",
    "FROM totals('a.example', '2024-05-01', since := '2024-06-01')",
    "FROM funnel('a.example', '2024-05-01', '2024-06-01', ['page:/', 'signup'])",
    "SELECT visitors(visitor_id, started_at), bounce_rate(bounce) FROM sessions",
    "DESCRIBE events",
    "SUMMARIZE sessions",
    "FROM (DESCRIBE SELECT 1)",
    "SELECT row_number() OVER w, lag(pathname) OVER w FROM events WINDOW w AS (ORDER BY position)",
    "SELECT * EXCLUDE (props), COLUMNS(lambda c: c LIKE 'utm_%') FROM events",
    "SELECT date_trunc('day', timestamp AT TIME ZONE 'Europe/Berlin'), now(), current_date",
    "SELECT props->>'$.plan', json_extract_string(props, '$.a'), props::JSON FROM events",
    "SELECT list_transform([1], lambda x: x + 1), [x for x in [1, 2] if x > 1], MAP {1: 2}",
    "SELECT pathname.upper(), if(interactive, 1, 2), nullif(1, 2), split_part('a/b', '/', 1)",
    "SELECT unnest([1, 2]), quantile_cont(position, 0.5), string_agg(pathname, ',') FROM events",
    "FROM events PIVOT (count(*) FOR device_type IN ('Mobile', 'Desktop'))",
    "FROM range(10), generate_series(1, 3), unnest([1]), json_each('[1]')",
    "SELECT pathname FROM events QUALIFY rank() OVER (ORDER BY position) = 1",
    "SELECT EXISTS (FROM events), 1 IN (SELECT 1), (SELECT max(position) FROM events)",
    "FROM events WHERE pathname SIMILAR TO '/a.*' UNION ALL BY NAME FROM events USING SAMPLE 10%",
]
ONE = "one statement"
# The text, and what of the error says why.
ESCAPES = {
    "nothing": ("", ONE),
    "a comment": ("-- SELECT 1", ONE),
    "several statements": ("SELECT 1; SELECT 2", ONE),
    "several, the second a change": ("FROM events; DROP VIEW events", ONE),
    "no SQL": ("hello", "syntax error"),
    "half of one": ("SELECT (", "syntax error"),
    "NUL": ("SELECT '\0'", "NUL"),
    "too long": ("SELECT " + " " * SQL_LENGTH_MAX + "1", "too long"),
    "nested deeply": ("SELECT " + "(" * 2_000 + "1" + ")" * 2_000, ""),
    "COPY TO": ("COPY (SELECT 1) TO 'out.csv'", ONE),
    "COPY FROM": ("COPY events FROM 'in.csv'", ONE),
    "ATTACH": ("ATTACH 'data/mallard.db' AS d (TYPE sqlite)", ONE),
    "ATTACH in memory": ("ATTACH ':memory:' AS d", ONE),
    "DETACH": ("DETACH memory", ONE),
    "USE": ("USE memory", ONE),
    "INSTALL": ("INSTALL httpfs", ONE),
    "LOAD": ("LOAD httpfs", ONE),
    "PRAGMA": ("PRAGMA database_list", ONE),
    "PRAGMA with an argument": ("PRAGMA table_info('events')", ONE),
    "SET": ("SET memory_limit = '100GB'", ONE),
    "SET VARIABLE": ("SET VARIABLE mallard_open = ['x']", ONE),
    "RESET": ("RESET enable_external_access", ONE),
    "CALL": ("CALL enable_logging()", ONE),
    "EXPORT": ("EXPORT DATABASE 'out'", ONE),
    "IMPORT": ("IMPORT DATABASE 'in'", ONE),
    "CREATE TABLE": ("CREATE TABLE t AS FROM events", ONE),
    "CREATE VIEW": ("CREATE OR REPLACE VIEW events AS SELECT 1", ONE),
    "CREATE MACRO": ("CREATE MACRO f() AS TABLE FROM tail", ONE),
    "CREATE SECRET": ("CREATE SECRET (TYPE s3, KEY_ID 'a', SECRET 'b')", ONE),
    "DROP": ("DROP VIEW events", ONE),
    "ALTER": ("ALTER VIEW events RENAME TO others", ONE),
    "COMMENT": ("COMMENT ON VIEW events IS 'x'", ONE),
    "INSERT": ("INSERT INTO tail VALUES (1)", ONE),
    "UPDATE": ("UPDATE tail SET site_id = 'a'", ONE),
    "DELETE": ("DELETE FROM tail", ONE),
    "MERGE": ("MERGE INTO tail USING events ON true WHEN MATCHED THEN DELETE", ONE),
    "PREPARE": ("PREPARE p AS SELECT 1", ONE),
    "EXECUTE": ("EXECUTE p", ONE),
    "DEALLOCATE": ("DEALLOCATE p", ONE),
    "BEGIN": ("BEGIN TRANSACTION", ONE),
    "VACUUM": ("VACUUM", ONE),
    "CHECKPOINT": ("CHECKPOINT", ONE),
    "EXPLAIN": ("EXPLAIN FROM events", ONE),
    "EXPLAIN ANALYZE": ("EXPLAIN ANALYZE FROM events", ONE),
    "a pivot of several statements": ("PIVOT events ON device_type", ONE),
    "DELETE in WITH": ("WITH d AS (DELETE FROM tail RETURNING *) FROM d", "DELETE QUERY NODE"),
    "INSERT in WITH": (
        "WITH d AS (INSERT INTO tail BY NAME SELECT 'a' AS site_id RETURNING *) FROM d",
        "INSERT QUERY NODE",
    ),
    "UPDATE in WITH": ("WITH d AS (UPDATE tail SET site_id = 'a' RETURNING *) FROM d", "cannot"),
    "a parameter": ("SELECT $1", "PARAMETER"),
    "a question mark": ("SELECT ?", "PARAMETER"),
    "the tail": ("FROM tail", "no table tail"),
    "the tail by its schema": ("FROM main.tail", "no table main.tail"),
    "the tail by its database": ("FROM memory.main.tail", "no table"),
    "a view by its database": ("FROM memory.main.events", "no table"),
    "a file": ("FROM 'data/recent/x.parquet'", "no table data/recent/x.parquet"),
    "a file in quotes": ('FROM "/etc/passwd"', "no table /etc/passwd"),
    "a file in a join": ("FROM events JOIN 'x.csv' ON true", "no table x.csv"),
    "a file in a subquery": ("SELECT (SELECT max(a) FROM 'x.csv')", "no table x.csv"),
    "a file in a macro's argument": (
        "FROM totals((SELECT max(a) FROM 'x.csv'), '2024-01-01', '2024-01-02')",
        "no table x.csv",
    ),
    "a file in ORDER BY": ("FROM events ORDER BY (SELECT 1 FROM 'x.csv')", "no table x.csv"),
    "a file in a CASE": ("SELECT CASE WHEN EXISTS (FROM 'x.csv') THEN 1 END", "no table x.csv"),
    "a file in a lambda": (
        "SELECT list_transform([1], lambda x: (SELECT 1 FROM 'x.csv'))",
        "no table x.csv",
    ),
    "a file in a filter": (
        "SELECT count(*) FILTER (EXISTS (FROM 'x.csv')) FROM events",
        "no table x.csv",
    ),
    "a file in a window": (
        "SELECT sum(1) OVER (ORDER BY (SELECT 1 FROM 'x.csv')) FROM events",
        "no table x.csv",
    ),
    "a file in LIMIT": ("FROM events LIMIT (SELECT 1 FROM 'x.csv')", "no table x.csv"),
    "a Python variable": ("FROM frames", "no table frames"),
    "information_schema": ("FROM information_schema.tables", "no table information_schema"),
    "pg_catalog": ("FROM pg_catalog.pg_views", "no table pg_catalog"),
    "duckdb_views": ("FROM duckdb_views", "no table duckdb_views"),
    "a system view under a name of the query": (
        "WITH duckdb_views AS (SELECT 1) SELECT 1 UNION ALL (FROM duckdb_views)",
        "cannot be named duckdb_views",
    ),
    "the tail under a name of the query": (
        "FROM (WITH tail AS (SELECT 1) FROM tail), tail",
        "cannot be named tail",
    ),
    "SHOW TABLES": ("SHOW TABLES", "DESCRIBE and SUMMARIZE"),
    "SHOW ALL TABLES": ("FROM (SHOW ALL TABLES)", "DESCRIBE and SUMMARIZE"),
    "SHOW DATABASES": ("SHOW DATABASES", "DESCRIBE and SUMMARIZE"),
    "DESCRIBE of a file": ("DESCRIBE FROM 'x.csv'", "no table x.csv"),
    "SUMMARIZE of the tail": ("SUMMARIZE tail", "no table tail"),
    **{
        f"the table function {call.partition('(')[0]}": (f"FROM {call}", "table function")
        for call in (
            "read_parquet('x')",
            "main.read_parquet('x')",
            "system.main.read_parquet('x')",
            "READ_PARQUET('x')",
            "\"read_parquet\"('x')",
            "parquet_scan('x')",
            "parquet_metadata('x')",
            "parquet_schema('x')",
            "parquet_kv_metadata('x')",
            "read_csv('/etc/passwd')",
            "read_csv_auto('x')",
            "sniff_csv('x')",
            "read_json('x')",
            "read_ndjson('x')",
            "read_json_objects('x')",
            "read_text('/etc/passwd')",
            "read_blob('/etc/passwd')",
            "read_duckdb('x')",
            "glob('/**')",
            "query('FROM tail')",
            "query_table('tail')",
            "query_table(['tail'])",
            "json_execute_serialized_sql('{}')",
            "duckdb_settings()",
            "duckdb_secrets()",
            "duckdb_views()",
            "duckdb_tables()",
            "duckdb_columns()",
            "duckdb_functions()",
            "duckdb_variables()",
            "duckdb_logs()",
            "duckdb_memory()",
            "duckdb_temporary_files()",
            "duckdb_external_file_cache()",
            "pragma_database_size()",
            "pragma_storage_info('tail')",
            "pragma_table_info('tail')",
            "seq_scan('tail')",
            "summary((FROM events))",
            "arrow_scan(1, 2, 3)",
            "pandas_scan(1)",
            "python_map_function(1)",
            "enable_logging()",
            "checkpoint()",
            "sqlite_scan('data/mallard.db', 'keys')",
            "postgres_scan('host=x', 'a', 'b')",
            "which_secret('x', 's3')",
            "test_all_types()",
        )
    },
    **{
        f"the function {call.partition('(')[0]}": (f"SELECT {call}", "no function")
        for call in (
            "getenv('MALLARD_SECRET')",
            "getvariable('mallard_open')",
            "GETVARIABLE('mallard_open')",
            "'mallard_open'.getvariable()",
            "main.getvariable('mallard_open')",
            "current_setting('temp_directory')",
            "current_query()",
            "sleep_ms(60000)",
            "pg_sleep(60)",
            "nextval('s')",
            "write_log('x')",
            "json_serialize_plan('FROM tail')",
            "json_serialize_sql('FROM tail')",
            "json_deserialize_sql('{}')",
            "pg_get_viewdef(1)",
            "has_table_privilege('tail', 'select')",
            "read_text('/etc/passwd')",
            "current_schemas(true)",
            "in_search_path('memory', 'main')",
            "parse_duckdb_log_message('x', 'y')",
            "no_such_function(1)",
            "totals('a', 'b', 'c')",
        )
    },
    "a function in a window": ("SELECT getvariable('x') OVER () FROM events", "no function"),
}


@pytest.fixture(scope="module")
def permission() -> Iterator[Permission]:
    with duckdb.connect() as connection:
        add_macros(connection)
        connection.unregister("tail")
        connection.execute("CREATE TABLE tail (site_id VARCHAR)")
        yield Permission(connection)


@pytest.mark.parametrize("text", ALLOWED)
def test_a_select_over_the_views_may_run(permission: Permission, text: str) -> None:
    assert permission.check(text) == text.rstrip(";")


@pytest.mark.parametrize("name", ESCAPES)
def test_an_escape_is_refused_and_told_why(permission: Permission, name: str) -> None:
    text, why = ESCAPES[name]
    with pytest.raises(InvalidInput) as refused:
        permission.check(text)
    assert why in refused.value.detail
    assert refused.value.field == "sql"


def test_no_function_of_duckdb_is_allowed_that_looks_beyond_its_arguments() -> None:
    """Those that this DuckDB has; a new one of such a name wants to be looked at."""
    with duckdb.connect() as connection:
        permission = Permission(connection)
        names = connection.execute("SELECT DISTINCT function_name FROM duckdb_functions()")
        suspicious = {
            name
            for (name,) in names.fetchall()
            for word in ("read", "file", "write", "env", "secret", "query", "setting", "variable")
            if word in name and word != "to_variable"
        }
        allowed = set()
        for name in suspicious:
            try:
                permission.check(f'SELECT "{name}"(1)')
            except InvalidInput:
                continue
            allowed.add(name)
    assert allowed == {"parse_filename"}  # it looks at a text alone
