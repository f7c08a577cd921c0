"""Segments -> the ordered bytes of each TCP connection, with every hole named. Pure: no I/O, no clock."""
