"""Frames come in here, with a timestamp: UDP sockets and capture files. I/O."""
