"""A guest's cable: moves frames between a TAP of the host and `eth0` in the guest's namespace, like a monitor does.

pump.py TAP /run/netns/GUEST MAC
"""

import contextlib
import ctypes
import fcntl
import os
import select
import struct
import sys
from pathlib import Path

TUNSETIFF = 0x400454CA
FLAGS = 0x0002 | 0x1000 | 0x4000  # IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, as Firecracker opens it


def open_tap(name: str) -> int:
    tap = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", name.encode(), FLAGS))
    return tap


def main(tap: str, namespace: str) -> None:
    outer = open_tap(tap)
    libc = ctypes.CDLL(None, use_errno=True)
    with Path(namespace).open() as handle:
        if libc.setns(handle.fileno(), 0x40000000):  # CLONE_NEWNET
            raise OSError(ctypes.get_errno(), "setns")
    inner = open_tap("eth0")
    print("ready", flush=True)
    other = {outer: inner, inner: outer}
    while True:
        for ready in select.select(list(other), [], [])[0]:
            try:
                frame = os.read(ready, 1 << 16)
            except OSError:
                if ready == outer:  # the host took the TAP away
                    return
                raise
            with contextlib.suppress(OSError):  # an interface that is down loses frames
                os.write(other[ready], frame)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
