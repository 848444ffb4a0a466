"""Who visits, under a pseudonym that lasts one UTC day on one site.

A visitor id is the first 64 bits of HMAC-SHA256(day key, site and identity). There are two kinds
of identity, with day keys of their own, so that neither can ever be taken for the other:

* address and User-Agent, under HMAC-SHA256(secret, UTC date and the day's salt);
* an id the client sent itself, under HMAC-SHA256(secret, UTC date), so that late events of a past
  day meet their visitor again. The row holds that id anyway: nothing is given away.

With `visitor_salt = "random"` the salt is 32 random bytes a day, destroyed when the day and a
short grace are over. From then on nobody can say who an id was, or make it again, whatever secret
he holds. With "derived" there is no salt, and servers that share the secret agree.

Invariants:
* An id depends on the identity, the site, the day of the event's instant, the secret and the
  salt, and on nothing else: not on when it is computed, nor by which process of the day.
* A salt is on disk, synced, before an id is made with it: a restart within the day keeps it.
* An event of a day whose salt is destroyed has no visitor id. It could only be given one that
  matches nobody. (Events carry the server's own time of receipt, so within the grace this takes
  a clock that jumps.) A clock that is set back to a destroyed day gets a new salt from the next
  `prepare` on, and its visitors of before count anew.

Salts lie in files of their own, `salts/YYYY-MM-DD`, and not in mallard.db: SQLite's free pages
and its log would keep destroyed bytes, and a backup of the database would carry a live salt.
Destroying overwrites in place before removing; a disk that writes elsewhere instead (flash, or a
file system that copies on write) may keep the old bytes until it reuses the place. Backups must
leave `salts/` out.
"""

from __future__ import annotations

import hmac
import secrets
from contextlib import suppress
from datetime import date
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from struct import Struct
from threading import Lock

from mallard.clock import MICROSECONDS_PER_DAY, utc_date
from mallard.config import PrivacyConfig
from mallard.errors import CorruptData, Overloaded, StorageError
from mallard.files import Files
from mallard.ingest.user_agent import AGENT_LENGTH_MAX

SALTS_FOLDER = "salts"
SECRET_FILE = "secret"  # noqa: S105 - a file's name
SALT_BYTES = 32
GRACE_US = 5 * 60 * 1_000_000  # for what was received before midnight; requests last seconds
AHEAD_US = 10 * 60 * 1_000_000  # tomorrow's salt is made this early, off the path of events
CLIENT_DAYS_CACHED = 1024  # day keys of client ids; backfill may bring years

_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
# RFC 2104: the key, filled up to a block of the hash, goes in twice, under two masks.
_BLOCK_BYTES = 64
_INNER = bytes(byte ^ 0x36 for byte in range(256))
_OUTER = bytes(byte ^ 0x5C for byte in range(256))
_FIRST_64_BITS = Struct(">q").unpack_from


class DayKey:
    """HMAC-SHA256 under one key of 32 bytes, for many short texts.

    `hmac.digest` lets go of the interpreter's lock each time. The log's thread then takes it in
    the middle of every request and syncs what little there is: groups of 10 events where 60 wait,
    and a quarter more of processor time for an event. Hashing under 2 kB keeps the lock.
    """

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        block = key.ljust(_BLOCK_BYTES, b"\0")
        self._inner = sha256(block.translate(_INNER))
        self._outer = sha256(block.translate(_OUTER))

    def digest(self, text: bytes) -> bytes:
        """Return what `hmac.digest(key, text, "sha256")` does."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(text)
        outer.update(inner.digest())
        return outer.digest()


class Visitors:
    """Gives visitor ids, and keeps the secret and the salts they are made with.

    visitor_id and client_visitor_id belong to the event loop; prepare and destroy_expired to a
    job that runs at the start and then about every half minute.
    """

    def __init__(self, config: PrivacyConfig, folder: Path, files: Files) -> None:
        """Read the secret, or make one at the first start; folder is the data folder.

        Raises StorageError if it can be neither read nor written.
        """
        self.privacy_signals = config.privacy_signals
        self._random = config.visitor_salt == "random"
        self._files = files
        self._folder = folder / SALTS_FOLDER
        self._secret = config.secret.encode() or self._kept_secret(folder / SECRET_FILE)
        self._keys: dict[int, DayKey] = {}  # by days since 1970
        self._oldest_day: int | None = None  # salts of days before it are destroyed
        # Held across I/O on purpose: two threads that each made a salt would split the
        # day's visitors, and who waits here needs the salt that is being written.
        self._turning = Lock()
        self._client_key = lru_cache(CLIENT_DAYS_CACHED)(self._make_client_key)

    def visitor_id(self, site_id: str, address: str, user_agent: str, at_us: int) -> int | None:
        """Return the id of who has this address and agent; a signed 64-bit integer.

        None: the salt of the instant's day is destroyed. Of the agent the first
        `AGENT_LENGTH_MAX` characters count. Raises Overloaded if the day has no salt yet and the
        disk takes none.
        """
        day = at_us // MICROSECONDS_PER_DAY
        key = self._keys.get(day)
        if key is None:
            try:
                key = self._open(day)
            except OSError as error:
                raise Overloaded("The day's visitor salt cannot be stored just now.") from error
            if key is None:
                return None
        agent = user_agent[:AGENT_LENGTH_MAX]
        # The lengths keep ("ab", "c") and ("a", "bc") apart, whatever the texts hold.
        return _pseudonym(key, f"{len(site_id)}:{len(address)}:{site_id}{address}{agent}")

    def client_visitor_id(self, site_id: str, client_id: str, at_us: int) -> int:
        """Return the id of who the client says it is; a signed 64-bit integer."""
        key = self._client_key(at_us // MICROSECONDS_PER_DAY)
        return _pseudonym(key, f"{len(site_id)}:{site_id}{client_id}")

    def prepare(self, now_us: int) -> None:
        """Have today's salt, and shortly before midnight tomorrow's, before an event needs it.

        Raises StorageError if the disk takes none.
        """
        oldest_day = (now_us - GRACE_US) // MICROSECONDS_PER_DAY
        if self._oldest_day is None or oldest_day < self._oldest_day:
            self._oldest_day = oldest_day
        first = now_us // MICROSECONDS_PER_DAY
        last = (now_us + AHEAD_US) // MICROSECONDS_PER_DAY
        try:
            for day in range(first, last + 1):
                self._open(day)
        except OSError as error:
            raise StorageError(
                f"The visitor salt of the day cannot be kept in {self._folder}: {error}. "
                "Events are refused until it can."
            ) from error

    def destroy_expired(self, now_us: int) -> None:
        """Destroy every salt but those of today, of yesterday within the grace, and prepared.

        Raises StorageError if one could not be destroyed; the next call tries again.
        """
        oldest = (now_us - GRACE_US) // MICROSECONDS_PER_DAY
        newest = (now_us + AHEAD_US) // MICROSECONDS_PER_DAY
        try:
            with self._turning:
                self._oldest_day = oldest
                for day in [day for day in self._keys if not oldest <= day <= newest]:
                    del self._keys[day]
                self._destroy_files(oldest, newest)
        except OSError as error:
            raise StorageError(
                f"A visitor salt of a past day cannot be removed from {self._folder}: {error}. "
                "Until it is, its ids can still be linked to addresses. Remove it by hand."
            ) from error

    def _destroy_files(self, oldest: int, newest: int) -> None:
        destroyed = False
        for name in self._files.names(self._folder):
            # Unfinished ones too: whatever a crash left under another name may hold a salt.
            day = _day_of(name)
            if day is None or not oldest <= day <= newest:
                self._files.overwrite(self._folder / name)
                self._files.remove(self._folder / name)
                destroyed = True
        if destroyed:
            self._files.sync_folder(self._folder)

    def _open(self, day: int) -> DayKey | None:
        with self._turning:
            key = self._keys.get(day)
            if key is None:
                salt = b""
                if self._random:
                    if self._oldest_day is not None and day < self._oldest_day:
                        return None
                    salt = self._salt(self._folder / _name_of(day))
                mode = "random" if self._random else "derived"
                label = f"mallard visitor day 1 {mode} {_name_of(day)} ".encode()
                key = DayKey(hmac.digest(self._secret, label + salt, "sha256"))
                self._keys[day] = key
            return key

    def _salt(self, path: Path) -> bytes:
        # A file that holds no salt is no salt: a new one costs a day's visitors counted
        # twice, refusing would cost the day's events.
        with suppress(FileNotFoundError, ValueError):
            salt = bytes.fromhex(self._files.read(path).decode("ascii"))
            if len(salt) == SALT_BYTES:
                return salt
        salt = secrets.token_bytes(SALT_BYTES)
        self._files.make_folder(self._folder)
        self._files.sync_folder(self._folder.parent)
        self._files.replace(path, salt.hex().encode())
        return salt

    def _make_client_key(self, day: int) -> DayKey:
        label = f"mallard client day 1 {_name_of(day)}".encode()
        return DayKey(hmac.digest(self._secret, label, "sha256"))

    def _kept_secret(self, path: Path) -> bytes:
        try:
            secret = self._files.read(path).strip()
        except FileNotFoundError:
            secret = secrets.token_hex(32).encode()
            try:
                self._files.replace(path, secret)
            except OSError as error:
                raise StorageError(f"The secret cannot be kept in {path}: {error}.") from error
        except OSError as error:
            raise StorageError(f"The secret cannot be read from {path}: {error}.") from error
        if not secret:
            raise CorruptData(
                f"{path} is empty. Restore it from a backup, or remove it and a new one is made; "
                "with a new one, today's visitors count anew."
            )
        return secret


def _pseudonym(day_key: DayKey, identity: str) -> int:
    # surrogatepass: text that is not quite Unicode is still somebody. ASCII has a shorter way.
    text = identity.encode() if identity.isascii() else identity.encode("utf-8", "surrogatepass")
    visitor_id: int
    (visitor_id,) = _FIRST_64_BITS(day_key.digest(text))
    return visitor_id


def _name_of(day: int) -> str:
    return utc_date(day * MICROSECONDS_PER_DAY).isoformat()


def _day_of(name: str) -> int | None:
    try:
        day = date.fromisoformat(name)
    except ValueError:
        return None
    return day.toordinal() - _EPOCH_ORDINAL if day.isoformat() == name else None
