"""Ordered bytes of a connection -> exchanges: a request and the response that answers it. Pure: no I/O, no clock."""
