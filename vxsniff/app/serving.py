"""What a running vxsniff serves, for as long as a block takes: /metrics and /healthz, and the control socket."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

from vxsniff.app import values
from vxsniff.app.control import ControlError, ControlServer, Handler, listen_at
from vxsniff.app.ledger import Ledger
from vxsniff.app.settings import Settings
from vxsniff.capture.source import CaptureError

_log = logging.getLogger("vxsniff")


@contextlib.contextmanager
def metrics_served(chosen: Settings, look: Callable[[], Ledger], is_healthy: Callable[[], bool]) -> Iterator[None]:
    """Raises CaptureError when they were asked for and can't be served."""
    wanted = chosen.metrics
    if wanted is None or (chosen.engine == values.ENGINE_FILE and not chosen.metrics_asked_for):
        yield
        return
    from vxsniff.app.metrics import MetricsServer  # where nothing is served, a start does not wait for its libraries

    try:
        server = MetricsServer(wanted.host, wanted.port, look, is_healthy)
    except OSError as error:
        text = f"metrics can't be served on {wanted.host}:{wanted.port}: {error.strerror}"
        if chosen.metrics_asked_for:
            raise CaptureError(f"{text}; use another --metrics address, or off") from None
        _log.warning("%s; going on without them", text)
        yield
        return
    host = f"[{wanted.host}]" if ":" in wanted.host else wanted.host
    _log.info("metrics: http://%s:%d/metrics and /healthz", host, server.address[1])
    with contextlib.closing(server):
        yield


@contextlib.contextmanager
def control_served(path: Path | None, handler: Handler) -> Iterator[None]:
    if path is None:
        yield
        return
    try:
        server = ControlServer(listen_at(path), handler, path)
    except ControlError as error:
        _log.warning("control socket %s: %s; going on without it", path, error)
        yield
        return
    with contextlib.closing(server):
        yield
