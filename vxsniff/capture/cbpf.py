"""Classic BPF for sockets: a small assembler (Linux, Documentation/networking/filter.rst, "BPF engine").

An instruction is 8 bytes: code (16 bit), how far to jump when true and when false (8 bit each), and k (32 bit). The
machine has an accumulator A, an index register X, and the packet; a load beyond the packet's end ends the program
with 0.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from typing import Final

# Loads into A: absolute, at X + k, the packet's length, a scratch word. Into X: four times a nibble, A, a scratch word.
LD_WORD: Final = 0x20
LD_HALF: Final = 0x28
LD_BYTE: Final = 0x30
LD_HALF_X: Final = 0x48
LD_BYTE_X: Final = 0x50
LD_LENGTH: Final = 0x80
LDX_HEADER_BYTES: Final = 0xB1
LDX_A: Final = 0x07
LD_SCRATCH: Final = 0x60
LDX_SCRATCH: Final = 0x61
STORE: Final = 0x02
# A with k, A with X.
AND: Final = 0x54
RSH: Final = 0x74
ADD_X: Final = 0x0C
SUB_X: Final = 0x1C
XOR_X: Final = 0xAC
MULTIPLY: Final = 0x24
MODULO: Final = 0x94
# Jumps by A and k.
JA: Final = 0x05
JEQ: Final = 0x15
JGT: Final = 0x25
JGE: Final = 0x35
JSET: Final = 0x45
RETURN: Final = 0x06
RETURN_A: Final = 0x16

MAX_INSTRUCTIONS: Final = 4096
"""What the kernel takes (BPF_MAXINSNS)."""
INSTRUCTION: Final = struct.Struct("=HBBI")
NEXT: Final = ""

_SO_ATTACH_FILTER: Final = 26
_SO_DETACH_FILTER: Final = 27
_SO_ATTACH_REUSEPORT: Final = 51


class Assembler:
    """Takes instructions in order; jumps go to labels, or to the NEXT instruction."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, int, str, str]] = []
        self._labels: dict[str, int] = {}

    def label(self, name: str) -> None:
        """The next instruction has this name."""
        self._labels[name] = len(self._rows)

    def do(self, code: int, k: int = 0) -> None:
        self._rows.append((code, k, NEXT, NEXT))

    def jump(self, code: int, k: int, true: str = NEXT, false: str = NEXT) -> None:
        """A conditional jump, at most 255 instructions away."""
        self._rows.append((code, k, true, false))

    def go(self, target: str) -> None:
        """A jump without condition, as far as it takes."""
        self._rows.append((JA, 0, target, NEXT))

    def program(self) -> bytes:
        """The instructions, INSTRUCTION each. Raises ValueError when a jump or the whole is too long."""
        if len(self._rows) > MAX_INSTRUCTIONS:
            raise ValueError(f"{len(self._rows)} instructions are too many")
        made = bytearray()
        for place, (code, k, true, false) in enumerate(self._rows):
            distances = [0 if name == NEXT else self._labels[name] - place - 1 for name in (true, false)]
            if code == JA:
                made += INSTRUCTION.pack(code, 0, 0, distances[0])
                continue
            if max(distances) > 255 or min(distances) < 0:
                raise ValueError("a jump is too long, or goes back")
            made += INSTRUCTION.pack(code, *distances, k)
        return bytes(made)


def attach_filter(to: socket.socket, program: bytes) -> None:
    """Datagrams for which it returns 0 are dropped. It sees the UDP header first. Raises OSError."""
    _attach(to, _SO_ATTACH_FILTER, program)


def detach_filter(from_: socket.socket) -> None:
    from_.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)


def attach_steering(to: socket.socket, program: bytes) -> None:
    """It returns which socket of a SO_REUSEPORT group takes a datagram, by the order in which they were bound. It sees
    what is behind the UDP header. Raises OSError.
    """
    _attach(to, _SO_ATTACH_REUSEPORT, program)


def _attach(to: socket.socket, option: int, program: bytes) -> None:
    buffer = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog (linux/filter.h): how many instructions there are, and where.
    where = struct.pack("@HP", len(program) // INSTRUCTION.size, ctypes.addressof(buffer))
    to.setsockopt(socket.SOL_SOCKET, option, where)
