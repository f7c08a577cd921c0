"""An interpreter of classic BPF, for programs that the tests run over made-up packets. It says what the kernel would."""

from vxsniff.capture import cbpf


def run(program: bytes, packet: bytes) -> int:
    """What the program returns. A load beyond the packet's end ends it with 0."""
    rows = list(cbpf.INSTRUCTION.iter_unpack(program))
    a = x = 0
    scratch = [0] * 16
    place = 0
    while True:
        code, true, false, k = rows[place]
        place += 1
        if code in (cbpf.LD_WORD, cbpf.LD_HALF, cbpf.LD_BYTE, cbpf.LD_HALF_X, cbpf.LD_BYTE_X):
            size = {cbpf.LD_WORD: 4, cbpf.LD_HALF: 2, cbpf.LD_HALF_X: 2}.get(code, 1)
            offset = k + (x if code in (cbpf.LD_HALF_X, cbpf.LD_BYTE_X) else 0)
            if offset + size > len(packet):
                return 0
            a = int.from_bytes(packet[offset : offset + size], "big")
        elif code == cbpf.LD_LENGTH:
            a = len(packet)
        elif code == cbpf.LDX_A:
            x = a
        elif code == cbpf.LDX_HEADER_BYTES:
            if k >= len(packet):
                return 0
            x = 4 * (packet[k] & 15)
        elif code == cbpf.LD_SCRATCH:
            a = scratch[k]
        elif code == cbpf.LDX_SCRATCH:
            x = scratch[k]
        elif code == cbpf.STORE:
            scratch[k] = a
        elif code == cbpf.XOR_X:
            a ^= x
        elif code == cbpf.MULTIPLY:
            a = a * k % 2**32
        elif code == cbpf.MODULO:
            a %= k
        elif code == cbpf.AND:
            a &= k
        elif code == cbpf.RSH:
            a >>= k
        elif code == cbpf.ADD_X:
            a = (a + x) % 2**32
        elif code == cbpf.SUB_X:
            a = (a - x) % 2**32
        elif code == cbpf.JA:
            place += k
        elif code in (cbpf.JEQ, cbpf.JGT, cbpf.JGE, cbpf.JSET):
            is_true = {cbpf.JEQ: a == k, cbpf.JGT: a > k, cbpf.JGE: a >= k, cbpf.JSET: a & k != 0}[code]
            place += true if is_true else false
        elif code == cbpf.RETURN:
            return k
        elif code == cbpf.RETURN_A:
            return a
        else:
            raise AssertionError(f"instruction {code:#x} is not known")
