"""Batches on disk until the collector takes them: SQLite in WAL mode, one file a worker, oldest first.

`batch` holds what waits, `dead` what the collector refused for good, with its answer. Ids only grow, so order is
theirs. A file that is no spool of ours, or a damaged one, is set aside under another name, never deleted.

All methods may be called from any thread; each takes as long as the disk does. They raise SpoolError.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from vxsniff.delivery.batch import Batch
from vxsniff.delivery.lock import lock

APPLICATION_ID: Final = 0x76785350  # "vxSP"
SCHEMA_VERSION: Final = 1
BUSY_TIMEOUT_S: Final = 1.0
MAX_ANSWER_CHARS: Final = 2048
TIDY_FREE_PAGES: Final = 256

_SCHEMA: Final = """
CREATE TABLE batch (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    made_ms INTEGER NOT NULL,
    calls INTEGER NOT NULL,
    packed BLOB NOT NULL
);
CREATE TABLE dead (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    made_ms INTEGER NOT NULL,
    calls INTEGER NOT NULL,
    status INTEGER NOT NULL,
    answer TEXT NOT NULL,
    packed BLOB NOT NULL
);
"""

_COLUMNS: Final = {"batch": "made_ms, calls, packed", "dead": "made_ms, calls, status, answer, packed"}
"""What a row is besides its id."""

# Primary result codes (https://www.sqlite.org/rescode.html).
_WORDS: Final = {
    sqlite3.SQLITE_BUSY: "another process holds its lock",
    sqlite3.SQLITE_LOCKED: "another process holds its lock",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_READONLY: "it is read-only",
    sqlite3.SQLITE_CANTOPEN: "it can't be opened",
    sqlite3.SQLITE_PERM: "permission denied",
    sqlite3.SQLITE_IOERR: "the disk reports an error",
}
_DAMAGE: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)


class SpoolError(Exception):
    """The spool can't be used now; with `is_damaged` this file never again."""

    def __init__(self, text: str, is_damaged: bool = False) -> None:
        super().__init__(text)
        self.is_damaged = is_damaged


class Contents(NamedTuple):
    """How much there is: of what waits, of dead letters, and bytes of the file that are in use."""

    batches: int
    calls: int
    dead_batches: int
    dead_calls: int
    used_bytes: int


class Entry(NamedTuple):
    """A row, without its lines. `status` is 0 for what waits."""

    id: int
    made_ms: int
    calls: int
    packed_bytes: int
    status: int = 0
    answer: str = ""


class Room(NamedTuple):
    """What was let go for want of room."""

    batches: int = 0
    calls: int = 0
    dead_calls: int = 0


class Spool:
    """One file. A worker is its only owner, by a lock beside it; `as_guest` looks at a file that has one. What it holds
    beyond the limit when it is opened may stay, up to `total_bytes`: a share may have been greater before.
    """

    def __init__(
        self,
        folder: Path,
        number: int = 0,
        limit_bytes: int = 1 << 30,
        as_guest: bool = False,
        total_bytes: int = 0,
    ) -> None:
        self.path = folder / f"spool-{number}.sqlite"
        self._number = number
        self.limit_bytes = limit_bytes
        self._total_bytes = total_bytes
        self._allowed_bytes = limit_bytes
        self._as_guest = as_guest
        self._lock = threading.RLock()
        self._db: sqlite3.Connection | None = None
        self._lock_fd = -1
        self._version = 0
        self._in_use = 0  # the row that is being delivered
        self._done = 0  # rows up to this one are delivered, whether or not they could be deleted
        self._highest = 0  # the highest row that was used: a new file in place of a damaged one goes on from there
        self._batches = 0  # what waits, as this object knows it
        self._calls = 0

    # ---- open and close

    def open(self) -> str:
        """Opens the file, makes it if need be, and looks whether it is whole. A damaged or foreign one is set aside:
        the answer says why and under which name, and is empty otherwise.
        """
        with self._lock:
            try:
                self._prepare()
                try:
                    self._connect()
                    return ""
                except SpoolError as error:
                    if self._as_guest or not error.is_damaged:
                        raise
                    name = self._set_aside()
                    self._connect()
                    return f"{error}; it is kept as {name}"
            except BaseException:
                self.close()
                raise

    def adopt(self, workers: int) -> list[str]:
        """Takes in what former workers left, when there were more of them: spools beyond the first `workers` are shared
        among those. Answers what there is to say on it.
        """
        said = []
        for number in self.former(workers):
            former = Spool(self.path.parent, number)
            try:
                what = former.open() or f"took over {self._take_over(former)} batches of {former.path.name}"
                former.delete()
            except (SpoolError, OSError) as error:
                what = f"{former.path.name} of a former worker is left alone: {error}"
                former.close()
            said.append(what)
        return said

    def former(self, workers: int) -> list[int]:
        """The numbers of those that this one is to take in."""
        return [n for n in numbers(self.path.parent) if n >= workers and n % workers == self._number]

    def _take_over(self, former: Spool) -> int:
        """All of it, behind what is here."""
        with self._lock, self._translated():
            db = self._connection
            db.execute("ATTACH ? AS former", (str(former.path),))
            try:
                db.execute("BEGIN IMMEDIATE")
                for table, columns in (
                    ("batch", "made_ms, calls, packed"),
                    ("dead", "made_ms, calls, status, answer, packed"),
                ):
                    db.execute(f"INSERT INTO main.{table} ({columns}) SELECT {columns} FROM former.{table} ORDER BY id")
                (count,) = db.execute("SELECT count(*) FROM former.batch").fetchone()
                db.execute("COMMIT")
                self._allowed_bytes = max(self._allowed_bytes, min(self._total_bytes, self._used_bytes()))
                self._version = -1  # it does not change by what this connection does
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                db.execute("DETACH former")
            return int(count)

    def delete(self) -> None:
        """The file is of no more use."""
        with self._lock:
            self._disconnect()
            for suffix in ("", "-wal", "-shm"):  # who waits for the lock must find the same one
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{self.path}{suffix}")
            self.close()

    def _prepare(self) -> None:
        try:
            if not self._as_guest:
                self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._own()
                # Calls are private, and SQLite's other files get the permissions of this one.
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            elif not self.path.exists():
                raise SpoolError("there is none")
        except OSError as error:
            raise SpoolError((error.strerror or str(error)).lower()) from None

    def _connect(self) -> None:
        with self._translated():
            self._db = db = sqlite3.connect(
                self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
            if not self._as_guest and self._value("SELECT count(*) FROM sqlite_schema") == 0:
                self._create(db)
            if self._value("PRAGMA application_id") != APPLICATION_ID:
                raise SpoolError("it is no spool of vxsniff's", is_damaged=True)
            if self._value("PRAGMA user_version") != SCHEMA_VERSION:
                raise SpoolError("it is the spool of another version", is_damaged=True)
            if not self._as_guest and (found := self._value("PRAGMA quick_check(1)")) != "ok":
                raise SpoolError(f"it is damaged: {str(found).splitlines()[-1].lower()}", is_damaged=True)
            db.execute("SELECT id, made_ms, calls, packed FROM batch LIMIT 0")
            db.execute("SELECT id, made_ms, calls, status, answer, packed FROM dead LIMIT 0")
            db.execute("PRAGMA synchronous = FULL")  # what is written survives the machine, too
            db.execute("PRAGMA journal_size_limit = 16777216")
            self._allowed_bytes = max(self.limit_bytes, min(self._total_bytes, self._used_bytes()))
            self._version = -1  # whatever is there, `changes` is to tell

    def _create(self, db: sqlite3.Connection) -> None:
        if self._value("PRAGMA application_id") != 0:
            return
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript(
            f"BEGIN IMMEDIATE; {_SCHEMA} INSERT INTO sqlite_sequence VALUES ('batch', {self._highest}); "
            f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
        )

    def _own(self) -> None:
        if self._lock_fd >= 0:
            return
        self._lock_fd = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        if not lock(self._lock_fd):
            raise SpoolError("another vxsniff uses it: give each its own --spool-dir")

    def close(self) -> None:
        """Ends the use of the file. It is all in one file then, if the disk allows it."""
        with self._lock:
            if self._db is not None:
                with contextlib.suppress(sqlite3.Error):
                    if not self._as_guest:
                        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._disconnect()
            if self._lock_fd >= 0:
                os.close(self._lock_fd)
                self._lock_fd = -1

    def _disconnect(self) -> None:
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    def _set_aside(self) -> str:
        self._disconnect()
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        name, count = f"{self.path}.damaged-{stamp}", 1
        while os.path.exists(name):
            name, count = f"{self.path}.damaged-{stamp}-{count}", count + 1
        try:
            os.rename(self.path, name)
            for suffix in ("-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    os.rename(f"{self.path}{suffix}", f"{name}{suffix}")
        except OSError as error:
            raise SpoolError(f"it is damaged, and can't be set aside: {error.strerror}") from None
        self._in_use = self._batches = self._calls = 0
        return name

    # ---- what waits

    def append(self, batches: Sequence[Batch], in_use: Batch | None = None) -> Room:
        """Writes them, in order and all or none, and gives them their rows. Beyond the limit dead letters go first,
        then the oldest batches, but never the one that is `in_use`.
        """
        packed = [batch.packed for batch in batches]
        with self._lock, self._translated(), self._transaction() as db:
            now_ms = time.time_ns() // 1_000_000
            rows = []
            for batch, data in zip(batches, packed, strict=True):
                cursor = db.execute(
                    "INSERT INTO batch (made_ms, calls, packed) VALUES (?, ?, ?)", (now_ms, batch.calls, data)
                )
                rows.append(cursor.lastrowid or 0)
            if in_use is not None and in_use in batches:
                self._in_use = rows[list(batches).index(in_use)]
            room = self._make_room(db)
            self._commit(db)
            self._batches += len(batches) - room.batches
            self._calls += sum(batch.calls for batch in batches) - room.calls
            for batch, row in zip(batches, rows, strict=True):
                batch.row = self._highest = row
            return room

    def oldest(self) -> Batch | None:
        """The next one to deliver."""
        with self._lock, self._translated():
            row = self._connection.execute(
                "SELECT id, calls, packed FROM batch WHERE id > ? ORDER BY id LIMIT 1", (self._done,)
            ).fetchone()
            if row is None:
                return None
            self._in_use = self._highest = row[0]
            return Batch(row[1], packed=row[2], row=row[0])

    def remove(self, batch: Batch) -> bool:
        """A batch was delivered. False when it was no longer there: someone has purged it.

        When the disk is too full even to delete, it is remembered that it was delivered.
        """
        with self._lock:
            self._done, self._in_use = batch.row, 0
            with self._translated():
                existed = self._has(batch)
            self._forget(batch, existed)
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("DELETE FROM batch WHERE id <= ?", (self._done,))
            return existed

    def bury(self, batch: Batch, status: int, answer: str) -> tuple[bool, Room]:
        """A batch was refused for good: it goes to the dead letters. Answers as `remove`; and what had to go for it."""
        packed = batch.packed
        with self._lock:
            existed = True
            if batch.row:
                self._done, self._in_use = batch.row, 0
                with self._translated():
                    existed = self._has(batch)
                self._forget(batch, existed)
            if not existed:
                return False, Room()
            with self._translated(), self._transaction() as db:
                now_ms = time.time_ns() // 1_000_000
                db.execute("DELETE FROM batch WHERE id = ?", (batch.row,))
                db.execute(
                    "INSERT INTO dead (made_ms, calls, status, answer, packed) VALUES (?, ?, ?, ?, ?)",
                    (now_ms, batch.calls, status, answer[:MAX_ANSWER_CHARS], packed),
                )
                room = self._make_room(db)
                self._commit(db)
            self._batches -= room.batches
            self._calls -= room.calls
            return True, room

    def changes(self) -> tuple[int, int]:
        """By how many batches and calls what waits differs from what this object knew: all that was found, after the
        first `open`; later what another process (`vxsniff spool`) brought back or purged.
        """
        with self._lock, self._translated():
            if self._value("PRAGMA data_version") == self._version:
                return 0, 0
            batches, calls = self._batches, self._calls
            self._count()
            return self._batches - batches, self._calls - calls

    def tidy(self) -> int:
        """In quiet times: gives what was deleted back to the disk. Answers the bytes that are in use."""
        with self._lock, self._translated():
            if int(self._value("PRAGMA freelist_count")) > TIDY_FREE_PAGES:
                # As a script: it frees one page a step, and `execute` takes one step.
                self._connection.executescript("PRAGMA incremental_vacuum")
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            used_bytes = self._used_bytes()
            self._allowed_bytes = max(self.limit_bytes, min(self._allowed_bytes, used_bytes))
            return used_bytes

    # ---- for people

    def contents(self) -> Contents:
        with self._lock, self._translated():
            batches = self._connection.execute("SELECT count(*), total(calls) FROM batch").fetchone()
            dead = self._connection.execute("SELECT count(*), total(calls) FROM dead").fetchone()
            return Contents(batches[0], int(batches[1]), dead[0], int(dead[1]), self._used_bytes())

    def entries(self, dead: bool) -> list[Entry]:
        """What waits, or the dead letters, oldest first."""
        columns = ", status, answer" if dead else ""
        with self._lock, self._translated():
            rows = self._connection.execute(
                f"SELECT id, made_ms, calls, length(packed){columns} FROM {_table(dead)} ORDER BY id"
            ).fetchall()
        return [Entry(*row) for row in rows]

    def read(self, row: int, dead: bool) -> Batch | None:
        with self._lock, self._translated():
            found = self._connection.execute(
                f"SELECT calls, packed FROM {_table(dead)} WHERE id = ?",
                (row,),
            ).fetchone()
        return None if found is None else Batch(found[0], packed=found[1], row=row)

    def retry(self, rows: Sequence[int]) -> int:
        """Dead letters become batches again, the youngest of all; how many calls that were."""
        calls = 0
        with self._lock, self._translated(), self._transaction() as db:
            for row in rows:
                found = db.execute("SELECT made_ms, calls, packed FROM dead WHERE id = ?", (row,)).fetchone()
                if found is not None:
                    db.execute("INSERT INTO batch (made_ms, calls, packed) VALUES (?, ?, ?)", found)
                    db.execute("DELETE FROM dead WHERE id = ?", (row,))
                    calls += found[1]
            self._commit(db)
        return calls

    def purge(self, rows: Sequence[int], dead: bool) -> int:
        """Deletes; how many calls that were."""
        calls = 0
        table = _table(dead)
        with self._lock, self._translated(), self._transaction() as db:
            for row in rows:
                found = db.execute(f"SELECT calls FROM {table} WHERE id = ?", (row,)).fetchone()
                if found is not None:
                    db.execute(f"DELETE FROM {table} WHERE id = ?", (row,))
                    calls += found[0]
            self._commit(db)
        return calls

    # ---- within the lock

    @property
    def _connection(self) -> sqlite3.Connection:
        if self._db is None:
            raise SpoolError("it is closed")
        return self._db

    def _value(self, query: str) -> int | str:
        row = self._connection.execute(query).fetchone()
        return row[0] if row else 0

    def _count(self) -> None:
        self._version = int(self._value("PRAGMA data_version"))
        row = self._connection.execute(
            "SELECT count(*), total(calls) FROM batch WHERE id > ?", (self._done,)
        ).fetchone()
        self._batches, self._calls = row[0], int(row[1])

    def _has(self, batch: Batch) -> bool:
        query = "SELECT 1 FROM batch WHERE id = ?"
        return self._connection.execute(query, (batch.row,)).fetchone() is not None

    def _forget(self, batch: Batch, existed: bool) -> None:
        if existed:
            self._batches -= 1
            self._calls -= batch.calls

    def _used_bytes(self) -> int:
        pages = int(self._value("PRAGMA page_count")) - int(self._value("PRAGMA freelist_count"))
        return pages * int(self._value("PRAGMA page_size"))

    def _make_room(self, db: sqlite3.Connection) -> Room:
        room = Room()
        while self._used_bytes() > self._allowed_bytes:
            dead = db.execute("SELECT id, calls FROM dead ORDER BY id LIMIT 1").fetchone()
            if dead is not None:
                db.execute("DELETE FROM dead WHERE id = ?", (dead[0],))
                room = room._replace(dead_calls=room.dead_calls + dead[1])
                continue
            oldest = db.execute(
                "SELECT id, calls FROM batch WHERE id != ? ORDER BY id LIMIT 1", (self._in_use,)
            ).fetchone()
            if oldest is None:
                break
            db.execute("DELETE FROM batch WHERE id = ?", (oldest[0],))
            if oldest[0] > self._done:
                room = room._replace(batches=room.batches + 1, calls=room.calls + oldest[1])
        return room

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Ends with `_commit`, or undoes all."""
        db = self._connection
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
        finally:
            if db.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    db.execute("ROLLBACK")

    @staticmethod
    def _commit(db: sqlite3.Connection) -> None:
        db.execute("COMMIT")

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in _DAMAGE:
                raise SpoolError(f"it is damaged: {error}", is_damaged=True) from None
            raise SpoolError(_WORDS.get(code, str(error))) from None


def numbers(folder: Path) -> list[int]:
    """Of the spools that are there."""
    found = (re.fullmatch(r"spool-(\d+)\.sqlite", path.name) for path in folder.glob("spool-*.sqlite"))
    return sorted(int(match[1]) for match in found if match)


def _table(dead: bool) -> str:
    return "dead" if dead else "batch"
