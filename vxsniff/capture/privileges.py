"""What an executable's file allows it, taken up when it is needed (capabilities(7), "File capabilities").

The image's interpreter has CAP_NET_RAW as permitted, not as effective: so it starts as well in a container that drops
all capabilities, where an effective one would make execve fail. Who captures on devices then has to make it effective.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Final

_NET_ADMIN: Final = 12
_NET_RAW: Final = 13
_VERSION_3: Final = 0x20080522  # linux/capability.h


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def use_permitted() -> None:
    """Makes the capabilities that capturing needs effective in this thread, where they are permitted."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    header = _Header(_VERSION_3, 0)
    data = (_Data * 2)()
    if libc.capget(ctypes.byref(header), data) != 0:
        return
    data[0].effective |= data[0].permitted & (1 << _NET_RAW | 1 << _NET_ADMIN)
    libc.capset(ctypes.byref(header), data)
