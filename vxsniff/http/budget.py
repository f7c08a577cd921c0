"""Memory that all connections of a worker share for heads, bodies and data that waits."""

from __future__ import annotations


class Budget:
    """Counts bytes against a limit. What does not fit is the caller's to leave out and to say so."""

    __slots__ = ("limit_bytes", "refused", "used_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self.refused = 0

    def charge(self, size: int) -> bool:
        """Takes `size` bytes; False, and nothing taken, when they would pass the limit."""
        if self.used_bytes + size > self.limit_bytes:
            self.refused += 1
            return False
        self.used_bytes += size
        return True

    def release(self, size: int) -> None:
        self.used_bytes -= size
