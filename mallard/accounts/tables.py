"""The control tables, in types that SQLite and PostgreSQL share.

They lie beside the store's manifest, in the same database, under a prefix of their own. Instants
are microseconds since 1970 UTC. A change here needs a migration and a new line in
`migrations/__init__.py`.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Date,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

METADATA = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
    }
)
_JSON = JSON(none_as_null=True)

# One row, whose number grows with every change: others see by it that they have to look again.
CHANGE = Table("accounts_change", METADATA, Column("version", BigInteger, nullable=False))

SITE = Table(
    "accounts_site",
    METADATA,
    Column("site_id", String(256), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("timezone", String(64), nullable=False),
    Column("currency", String(3)),
    Column("created_at", BigInteger, nullable=False),
)

# A number is never given twice: it may be written down somewhere, and must not mean another.
KEY = Table(
    "accounts_key",
    METADATA,
    Column("key_id", Integer, primary_key=True),
    Column("name", String(256), nullable=False),
    Column("digest", LargeBinary(32), nullable=False, unique=True),
    Column("scopes", _JSON, nullable=False),
    Column("sites", _JSON),  # null: every site
    Column("created_at", BigInteger, nullable=False),
    Column("last_used_on", Date),
    Column("revoked_at", BigInteger),
    sqlite_autoincrement=True,
)

# Sites come into being without a row, so nothing refers to one.
GOAL = Table(
    "accounts_goal",
    METADATA,
    Column("goal_id", Integer, primary_key=True),
    Column("site_id", String(256), nullable=False),
    Column("display_name", String(256), nullable=False),
    Column("page", Text),
    Column("event_name", String(256)),
    Column("props", _JSON, nullable=False),
    Column("currency", String(3)),
    UniqueConstraint("site_id", "display_name"),
    sqlite_autoincrement=True,
)

SEGMENT = Table(
    "accounts_segment",
    METADATA,
    Column("segment_id", Integer, primary_key=True),
    Column("site_id", String(256), nullable=False),
    Column("name", String(256), nullable=False),
    Column("filters", _JSON, nullable=False),
    UniqueConstraint("site_id", "name"),
    sqlite_autoincrement=True,
)
