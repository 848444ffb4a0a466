"""The first tables: sites, API keys, goals, segments."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table("accounts_change", sa.Column("version", sa.BigInteger, nullable=False))
    op.execute("INSERT INTO accounts_change VALUES (0)")
    op.create_table(
        "accounts_site",
        sa.Column("site_id", sa.String(256), primary_key=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("timezone", sa.String(64), nullable=False),
        sa.Column("currency", sa.String(3)),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "accounts_key",
        sa.Column("key_id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(256), nullable=False),
        sa.Column("digest", sa.LargeBinary(32), nullable=False, unique=True),
        sa.Column("scopes", sa.JSON, nullable=False),
        sa.Column("sites", sa.JSON),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("last_used_on", sa.Date),
        sa.Column("revoked_at", sa.BigInteger),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "accounts_goal",
        sa.Column("goal_id", sa.Integer, primary_key=True),
        sa.Column("site_id", sa.String(256), nullable=False),
        sa.Column("display_name", sa.String(256), nullable=False),
        sa.Column("page", sa.Text),
        sa.Column("event_name", sa.String(256)),
        sa.Column("props", sa.JSON, nullable=False),
        sa.Column("currency", sa.String(3)),
        sa.UniqueConstraint("site_id", "display_name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "accounts_segment",
        sa.Column("segment_id", sa.Integer, primary_key=True),
        sa.Column("site_id", sa.String(256), nullable=False),
        sa.Column("name", sa.String(256), nullable=False),
        sa.Column("filters", sa.JSON, nullable=False),
        sa.UniqueConstraint("site_id", "name"),
        sqlite_autoincrement=True,
    )
