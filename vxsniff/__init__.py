"""vxsniff: mirrored packets in, API calls out. See README.md."""

__version__ = "0.1.0"
