"""The garbage collector and the allocator, tuned for what capturing does with memory.

Nearly all that capturing makes is freed by reference counts. Only objects in cycles need the collector; it runs by how
many objects were made, and each of its long runs walks over all that lives: with 100,000 open connections that was a
third of a call's cost. What the program itself consists of is never looked at again (freeze).

Batches and what was read of a file are some hundred KiB each, made and freed again and again. The C library gives such
memory back to the system at once, which then has to clear it for the next one; so it is told to keep some of it.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from typing import Final

YOUNG_OBJECTS: Final = 20_000
"""New objects between two runs (Python's default: 700). As garbage in cycles they are a few MiB at most."""
KEPT_BYTES: Final = 32 * 1024 * 1024
"""So much of what was freed is kept for the next (glibc's default: 128 KiB, growing)."""

_M_TRIM_THRESHOLD: Final = -1  # malloc.h
_M_MMAP_THRESHOLD: Final = -3


def tune_memory() -> None:
    """Once, before capturing begins."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):  # musl has none
            libc.mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
            libc.mallopt(_M_MMAP_THRESHOLD, KEPT_BYTES)
