"""Batches -> a file, or standard output."""

from __future__ import annotations

import contextlib
import gzip
import os
import stat
import time
from typing import Final

from vxsniff.delivery.batch import Batch
from vxsniff.delivery.lock import wait_for_lock
from vxsniff.delivery.outlet import ACCEPTED, GONE, RETRY, Outcome

_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
_MODE: Final = 0o600  # calls are private; whoever wants it otherwise creates the file first


class FileOutlet:
    """Appends to the file at `path`, which it creates. Once moved away (rotation), it is created anew. One that
    `is_shared` is locked for each batch: several workers append to it.
    """

    def __init__(self, path: str, is_shared: bool = False) -> None:
        """Raises OSError when the file can't be opened."""
        self._path = path
        self._is_shared = is_shared
        self._fd = self._open()

    def _open(self) -> int:
        return os.open(self._path, _FLAGS, _MODE)

    def send(self, batch: Batch, timeout_s: float) -> Outcome:
        try:
            if self._fd < 0 or self._was_moved():
                self.close()
                self._fd = self._open()
            with wait_for_lock(self._fd, timeout_s) if self._is_shared else contextlib.nullcontext():
                self._append(batch.lines)
        except BrokenPipeError:
            return Outcome(RETRY, "its reader has gone")
        except OSError as error:
            return Outcome(RETRY, error.strerror or str(error))
        return Outcome(ACCEPTED)

    def _append(self, lines: bytes) -> None:
        before = os.fstat(self._fd)
        try:
            _write_all(self._fd, lines)
        except OSError:
            if stat.S_ISREG(before.st_mode):
                os.ftruncate(self._fd, before.st_size)  # a full disk must not leave half a line
            raise

    def _was_moved(self) -> bool:
        try:
            there = os.stat(self._path)
        except FileNotFoundError:
            return True
        here = os.fstat(self._fd)
        return (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class DailyOutlet:
    """Appends to a gzip file for each day in a folder, `2026-11-21.gz`, each batch a member of its own (RFC 1952
    section 2.2: members may follow each other).
    """

    def __init__(self, folder: str = ".") -> None:
        self._folder = folder

    def send(self, batch: Batch, timeout_s: float) -> Outcome:
        del timeout_s
        path = os.path.join(self._folder, time.strftime("%Y-%m-%d.gz"))
        try:
            fd = os.open(path, _FLAGS, _MODE)
            try:
                _write_all(fd, gzip.compress(batch.lines, 6))
            finally:
                os.close(fd)
        except OSError as error:
            return Outcome(RETRY, error.strerror or str(error))
        return Outcome(ACCEPTED)

    def close(self) -> None:
        """Nothing is open between batches."""


class StreamOutlet:
    """Writes to a stream that is open already, standard output as a rule."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def send(self, batch: Batch, timeout_s: float) -> Outcome:
        del timeout_s
        try:
            _write_all(self._fd, batch.lines)
        except OSError as error:
            return Outcome(GONE, error.strerror or str(error))
        return Outcome(ACCEPTED)

    def close(self) -> None:
        """The stream is its owner's to close."""


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
