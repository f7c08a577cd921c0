"""vxsniff: mirrored packets in, API calls out. See README.md."""

__version__ = "0.1.0"

AGENT = f"Resurface/{__version__} (vxsniff)"
"""How deliveries name themselves to a collector."""
AGENT_MARK = b"(vxsniff)"
"""What tells a delivery of any vxsniff when one is captured: it is never a call, or calls would breed calls."""
