"""One owner at a time: a lock on an open file that ends with its process, on POSIX systems and on Windows."""

from __future__ import annotations

import contextlib
import errno
import sys
import time
from collections.abc import Iterator
from typing import Final

_LOOK_S: Final = 0.002

if sys.platform == "win32":
    import msvcrt

    def lock(fd: int) -> bool:
        """Whether this process has it now."""
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    @contextlib.contextmanager
    def wait_for_lock(fd: int, timeout_s: float) -> Iterator[None]:
        """Waits for nobody: several workers are there on Linux only."""
        del fd, timeout_s
        yield

else:
    import fcntl

    def lock(fd: int) -> bool:
        """Whether this process has it now."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    @contextlib.contextmanager
    def wait_for_lock(fd: int, timeout_s: float) -> Iterator[None]:
        """Has it for the time of a block, and waits for it first. Raises BlockingIOError when that takes longer."""
        end_s = time.monotonic() + timeout_s
        while not lock(fd):
            if time.monotonic() >= end_s:
                raise BlockingIOError(errno.EAGAIN, "another process holds its lock")
            time.sleep(_LOOK_S)
        try:
            yield
        finally:
            fcntl.flock(fd, fcntl.LOCK_UN)
