"""Bytes of a frame -> one TCP segment, or a counted reason why not. Pure: no I/O, no clock."""
