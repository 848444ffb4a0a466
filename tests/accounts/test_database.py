"""The tables, and how old ones become new ones."""

from __future__ import annotations

import os
import re
import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine
from sqlalchemy.dialects import registry
from sqlalchemy.schema import CreateTable

from mallard.accounts import accounts as room
from mallard.accounts import database as databases
from mallard.accounts import migrations
from mallard.accounts.accounts import Accounts
from mallard.accounts.database import Database
from mallard.accounts.migrations import REVISIONS
from mallard.accounts.migrations import upgrade as upgrades
from mallard.accounts.tables import METADATA
from tests.accounts.conftest import StandingClock

SECOND = """
import sqlalchemy as sa
from alembic import op
revision, down_revision = "0002", "0001"
def upgrade():
    with op.batch_alter_table("accounts_site") as site:
        site.add_column(sa.Column("note", sa.Text, nullable=False, server_default="old"))
"""


def schema(path: Path) -> dict[str, str]:
    """Each table and index as SQLite has it, with the spaces of whoever wrote it made one."""
    with sqlite3.connect(path) as database:
        rows = database.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
        found = {name: re.sub(r"\s*([(),]|\s)\s*", r"\1", sql) for name, sql in rows}
    database.close()
    return found


def migrated(path: Path) -> None:
    """Run every migration on an empty database; the outcome is what tables.py says."""
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        upgrades.upgrade(connection)
        options = {"version_table": migrations.VERSION_TABLE}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, METADATA) == []
    engine.dispose()


def test_all_migrations_in_a_row_make_what_a_new_database_has(tmp_path: Path, path: Path) -> None:
    Database(path).close()
    migrated(tmp_path / "migrated.db")
    assert schema(path) == schema(tmp_path / "migrated.db")
    assert len(schema(path)) > 5
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT version FROM accounts_change").fetchall() == [(0,)]
    database.close()


def test_postgresql_takes_the_same_tables() -> None:
    for table in METADATA.tables.values():
        statement = str(CreateTable(table).compile(dialect=registry.load("postgresql")()))
        assert statement.strip().startswith(f"CREATE TABLE {table.name}")
        assert "AUTOINCREMENT" not in statement


def test_the_revisions_are_those_of_the_folder() -> None:
    scripts = ScriptDirectory(str(Path(migrations.__file__).parent))
    found = [script.revision for script in scripts.walk_revisions()]
    assert tuple(reversed(found)) == REVISIONS


def test_an_older_database_is_migrated_at_the_start_and_keeps_what_it_has(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = StandingClock()
    old = Accounts(path, clock)
    old.change_now(lambda control: control.sites.add("a.example", {"timezone": "Asia/Tokyo"}))
    old.close()

    versions = tmp_path / "versions"
    versions.mkdir()
    (versions / "v0002_notes.py").write_text(SECOND)
    ours = upgrades.configuration

    def both(connection: Connection) -> Config:
        config = ours(connection)
        folders = [str(Path(migrations.__file__).parent / "versions"), str(versions)]
        config.set_main_option("version_locations", os.pathsep.join(folders))
        return config

    for module in (databases, room):
        monkeypatch.setattr(module, "REVISIONS", ("0001", "0002"))
    monkeypatch.setattr(upgrades, "configuration", both)
    new = Accounts(path, clock)
    new.start()
    with sqlite3.connect(path) as database:
        rows = database.execute("SELECT site_id, timezone, note FROM accounts_site").fetchall()
        assert rows == [("a.example", "Asia/Tokyo", "old")]
        version = database.execute(f"SELECT * FROM {migrations.VERSION_TABLE}").fetchall()
        assert version == [("0002",)]
    database.close()
    new.close()


def test_tables_of_others_in_the_same_database_are_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE manifest_part (location TEXT)")
        database.execute("INSERT INTO manifest_part VALUES ('recent/x.parquet')")
    database.close()
    Database(path).close()
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT * FROM manifest_part").fetchall() == [("recent/x.parquet",)]
    database.close()
    assert all(name.startswith(("accounts_", "manifest_", "sqlite_")) for name in schema(path))
