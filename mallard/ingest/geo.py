"""Where an address lies, from a database file in MaxMind's format.

Invariants: no address outlives the look-up; nothing is cached by address. A look-up raises
nothing. A replacement that cannot be read leaves the old database in use, and is reported once.

The file is copied aside and read from there. It is mapped into memory, and a tool that
overwrites the original in place (`cp new.mmdb old.mmdb`) would otherwise pull the pages
away under the reader, which ends a process with SIGBUS.

Source: MaxMind DB file format 2.0; field names of GeoIP2/GeoLite2 City and Country and of DB-IP.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

import maxminddb

from mallard.errors import StorageError
from mallard.ingest.page import clean

NAME_LENGTH_MAX = 100


class Place(NamedTuple):
    """Where somebody is; None where the database does not say.

    country_code: ISO 3166-1, two letters, upper case. region: ISO 3166-2 such as "US-CA",
    or the English name where the database has no code (DB-IP's has none). city: English name.
    """

    country_code: str | None = None
    region: str | None = None
    city: str | None = None


NOWHERE = Place()

_Signature = tuple[int, int, int]


class Places:
    """Looks addresses up; without a database every place is unknown.

    place belongs to the event loop, reload_if_changed to a job; the reader they share is
    replaced by one assignment, and the old one ends with its last look-up.
    """

    def __init__(self, database: Path | None) -> None:
        """Read the database. Raises StorageError if one is named that cannot be read."""
        self._path = database
        self._reader: maxminddb.Reader | None = None
        self._seen: _Signature | None = None
        self.reload_if_changed()

    def place(self, address: str | None) -> Place:
        """Return where an IPv4 or IPv6 address lies."""
        reader = self._reader
        if reader is None or not address:
            return NOWHERE
        try:
            record = reader.get(address)
        except (ValueError, TypeError, maxminddb.InvalidDatabaseError):
            # Not an address (with a NUL in it: TypeError), one of a family that the
            # database lacks, or a damaged record.
            return NOWHERE
        return _place(record) if isinstance(record, dict) else NOWHERE

    def reload_if_changed(self) -> bool:
        """Read the file again if it is not the one last seen; tell whether it was read.

        Raises StorageError, once for each file, if the new one cannot be used.
        """
        if self._path is None:
            return False
        try:
            status = self._path.stat()
            signature = (status.st_mtime_ns, status.st_size, status.st_ino)
            if signature == self._seen:
                return False
            reader = _open(self._path)
        except OSError as error:
            if self._reader is not None and self._seen is None:
                return False  # reported already: gone, or unreadable, since the last call
            self._seen = None
            raise StorageError(self._complaint(str(error))) from error
        except (ValueError, maxminddb.InvalidDatabaseError) as error:
            self._seen = signature
            raise StorageError(self._complaint(str(error))) from error
        self._seen = signature
        self._reader = reader
        return True

    def _complaint(self, reason: str) -> str:
        kept = " The one read before stays in use." if self._reader is not None else ""
        return (
            f"The GeoIP database {self._path} cannot be used: {reason}.{kept} "
            "geo.database must name a City or Country file in MaxMind's format (.mmdb)."
        )


def _open(path: Path) -> maxminddb.Reader:
    with path.open("rb") as source, tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(source, copy)
        copy.flush()
        # The name goes with the file; the reader maps it and keeps it alive.
        # A file that was cut off lacks the metadata at its end, and does not open.
        return maxminddb.open_database(f"/dev/fd/{copy.fileno()}")


def _place(record: dict[str, object]) -> Place:
    country = _text(_inside(record, "country").get("iso_code"))
    divisions = record.get("subdivisions")
    division = divisions[0] if isinstance(divisions, list) and divisions else None
    region = None
    if isinstance(division, dict):
        code = _text(division.get("iso_code"))
        region = f"{country}-{code}" if code and country else _english(division)
    return Place(country, region, _english(_inside(record, "city")))


def _inside(record: dict[str, object], key: str) -> dict[str, object]:
    value = record.get(key)
    return value if isinstance(value, dict) else {}


def _english(record: dict[str, object]) -> str | None:
    return _text(_inside(record, "names").get("en"))


def _text(value: object) -> str | None:
    return clean(value)[:NAME_LENGTH_MAX] or None if isinstance(value, str) else None
