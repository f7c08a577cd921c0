"""Where calls go, by the settings."""

from __future__ import annotations

import sys

from vxsniff.app import values
from vxsniff.app.banner import where
from vxsniff.app.settings import Settings, SettingsError
from vxsniff.delivery.files import FileOutlet, StreamOutlet
from vxsniff.delivery.outlet import Outlet


def open_outlet(chosen: Settings, is_shared: bool) -> Outlet:
    """Raises SettingsError. A file that `is_shared` is written to by several workers."""
    if chosen.posts:
        from vxsniff.delivery.post import PostOutlet  # requests takes a fifth of the time that a start takes

        try:
            return PostOutlet(chosen.url, not chosen.rules.skip_compression)
        except ValueError as error:
            raise SettingsError(f"USAGE_LOGGERS_URL: {where(chosen.url)} can't be posted to: {error}") from None
    if chosen.url in (values.URL_STDOUT, values.URL_TTY):
        return StreamOutlet(sys.stdout.fileno())
    try:
        return FileOutlet(chosen.url, is_shared)
    except OSError as error:
        raise SettingsError(f"USAGE_LOGGERS_URL: the file {chosen.url} can't be written: {error.strerror}") from None
