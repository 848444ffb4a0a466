"""What the control tables were before, and how to get from there to what they are.

Each file of versions/ makes one revision of the one before it, by Alembic. A new database gets the
newest tables at once; a test holds that this makes the same.
"""

VERSION_TABLE = "accounts_version"
REVISIONS = ("0001",)  # the oldest first; those of versions/
